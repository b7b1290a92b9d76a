"""Loops inside of a program: the same results as `jax.lax.map`, and convolutions in the layout that the CPU computes fast."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsubspace import loops

FAST = "b01f_01io->b01f"


def network(kernels, x, layout):
    """Two convolutions, the first with a stride. Its result is computed again for the gradient."""
    convolve = functools.partial(jax.lax.conv_general_dilated, padding="SAME", dimension_numbers=layout)
    first = jax.checkpoint(lambda x: jax.nn.relu(convolve(x, kernels[0], window_strides=(2, 1))))
    return jnp.sum(jnp.sin(convolve(first(x), kernels[1], window_strides=(1, 1))))


@pytest.mark.parametrize("layout", [("NCHW", "OIHW", "NCHW"), ("NHWC", "HWIO", "NHWC")], ids=["first", "last"])
def test_convolutions_in_a_loop_are_those_outside(layout):
    """XLA may mend its loops. Then the last assertion fails, and `loops` is no longer needed."""
    rng = np.random.default_rng(0)
    sizes = {"N": 2, "C": 4, "H": 6, "W": 5}, {"O": 4, "I": 4, "H": 3, "W": 3}
    x, *kernels = (
        jnp.asarray(rng.normal(size=[*rows, *(size[axis] for axis in axes)]), jnp.float32)
        for rows, size, axes in (((), sizes[0], layout[0]), ((3,), sizes[1], layout[1]), ((3,), sizes[1], layout[1]))
    )
    of_row = jax.value_and_grad(functools.partial(network, x=x, layout=layout))

    def compiled(over):
        return jax.jit(lambda kernels: over(of_row, kernels)).lower(kernels).compile()

    ours, theirs = compiled(loops.over), compiled(jax.lax.map)
    for i in range(3):
        jax.tree.map(
            lambda one, other, i=i: np.testing.assert_allclose(one[i], other, rtol=1e-4, atol=1e-4),
            ours(kernels),
            of_row([kernel[i] for kernel in kernels]),
        )
    found, plain = (re.findall(r"dim_labels=(\w+->\w+)", program.as_text()) for program in (ours, theirs))
    assert set(found) == {FAST}
    assert set(plain) != {FAST}


def test_other_operations_stay_as_they_are():
    def of_row(x):
        return {"y": jax.nn.relu(x["a"]) @ x["b"], "n": jax.lax.fori_loop(0, 3, lambda i, n: n + i, x["c"])}

    rows = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones((2, 3, 2)), "c": jnp.arange(2)}
    texts = [jax.jit(functools.partial(over, of_row)).lower(rows).as_text() for over in (loops.over, jax.lax.map)]
    counts = [sorted(re.findall(r"stablehlo\.\w+", text)) for text in texts]
    assert counts[0] == counts[1]
    jax.tree.map(np.testing.assert_array_equal, loops.over(of_row, rows), jax.lax.map(of_row, rows))
