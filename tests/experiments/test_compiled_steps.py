"""The steps that are compiled for chips that need not exist here, the account of their passes, and what the record says of both."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import REPOSITORY

from experiments import bench_tpu, passes
from experiments.lib import tpu_steps
from jsubspace.examples import gpt

TINY = gpt.Shape(vocabulary=16, length=8, width=8, heads=2, blocks=1)
README = (REPOSITORY / "experiments" / "README.md").read_text(encoding="utf-8")


def state_numbers(step):
    """The bytes of the endpoints and of the optimizer, of a step whose batch is on one device."""
    return tpu_steps._bytes(step.lowered.args_info) - step.besides


@pytest.mark.parametrize(
    ("make", "method", "times"), [(tpu_steps._gpt, "simplex6", 6), (tpu_steps._factors, "line_products", 2)]
)
def test_the_state_grows_with_the_endpoints_and_nothing_else_does(make, method, times):
    one, several = (make(TINY)(each, "replicated", tuple(jax.devices()[:1]), 2) for each in ("standard", method))
    assert one.besides == several.besides
    assert state_numbers(several) == pytest.approx(times * state_numbers(one), rel=0.02)  # Some scalars exist once.


def test_factors_beside_a_frozen_base_are_the_base_with_their_products():
    init_fn, loss_fn, shapes = tpu_steps.low_rank(TINY, 2)
    rng = np.random.default_rng(0)
    base = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    factors = init_fn(jax.random.key(0))
    assert len(jax.tree.leaves(factors)) == 8
    tokens = jnp.asarray(rng.integers(16, size=(4, 9)))
    merged, zero = jax.tree.map(lambda x: x, base), init_fn(jax.random.key(0))
    for name in ("attention", "project", "widen", "narrow"):
        layer, kernel = factors["blocks"][0][name], merged["blocks"][0][name]["base_module"]["kernel"]
        layer["lora_b"][...] = jnp.asarray(rng.normal(size=layer["lora_b"].shape), jnp.float32)
        kernel[...] = kernel[...] + (layer["lora_a"][...] @ layer["lora_b"][...]).astype(jnp.bfloat16)
    loss = jax.jit(loss_fn)  # In bfloat16.
    assert abs(loss(factors, base, tokens) - loss(zero, merged, tokens)) < 0.02
    assert abs(loss(factors, base, tokens) - loss(zero, base, tokens)) > 0.04


PROGRAM = """ENTRY %main (p: f32[2,8], q: f32[12]) -> f32[2,8] {
  %p = f32[2,8] parameter(0)
  %q = f32[12] parameter(1)
  %sum = f32[] fusion(%p), kind=kInput, calls=%a, metadata={op_name="jit(step)/reduce_sum"}
  %padded = f32[8,1] fusion(%p), kind=kLoop, calls=%b
  %cond = f32[2] conditional(%sum, %p, %p)
  %dot = f32[12] fusion(%padded, %q), kind=kCustom, calls=%c
  ROOT %copy = f32[2,8] copy(%p)
}
"""


def test_passes_count_arrays_of_the_kernel_and_of_several_rows_alone():
    assert passes.passes(PROGRAM, 32) == [
        ("sum, reduce_sum", 2, 0),
        ("padded", 2, 1),
        ("dot", 1, 0),
        ("copy", 2, 2),
    ]
    in_fast_memory = PROGRAM.replace("%padded = f32[8,1]", "%padded = f32[8,1]{0,1:S(1)}")
    assert [each for each in passes.passes(in_fast_memory, 32) if each.name in ("padded", "dot")] == [("padded", 2, 0)]
    assert passes.passes(PROGRAM, 31) == []  # 32 bytes are 3 % more than 31, which is too much padding.
    assert passes.passes(PROGRAM, 31.5) == [("padded", 0, 1), ("dot", 1, 0)]


def test_the_readme_has_the_passes_as_they_are_recorded():
    rows = json.loads(passes.OUTPUT.read_text(encoding="utf-8"))
    assert f"\n\n{passes.summary(rows)}\n\n" in README
    for method in ("line", "simplex6"):
        found = [passes.Pass(*each) for each in rows[f"cuda/{method}"]["passes"]]
        assert f"\n\n{passes.table(found, method)}\n\n" in README


def test_the_readme_has_the_compiled_steps_as_they_are_recorded():
    rows = json.loads(bench_tpu.OUTPUT.read_text(encoding="utf-8"))
    networks = {name.partition("/")[0] for name in rows}
    assert networks >= {"resnet50", "cresnet20"}
    for network in networks:
        assert f"\n\n{bench_tpu.table(rows, network)}\n\n" in README
