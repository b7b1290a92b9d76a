"""Plain jit with sharded arrays (docs/sharding.md): the numbers of one device, and one network on the wire."""

import collections
import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jsubspace
from experiments.lib.collectives import collectives
from jsubspace import Curve, Line, Point, Simplex

IN, HIDDEN, CLASSES = 16, 32, 3  # Eight devices do not cut the last bias.
KERNELS = 2
NUMBERS = IN * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES
X = np.random.default_rng(0).normal(size=(64, IN))
Y = np.random.default_rng(1).normal(size=(64, CLASSES))
BETA = 0.7


@pytest.fixture(autouse=True)
def in_float64(x64):
    """Differences are then faults and not rounding."""


def loss_fn(point, x, y):
    hidden = jnp.tanh(x @ point["hidden"]["kernel"] + point["hidden"]["bias"])
    return jnp.mean((hidden @ point["head"]["kernel"] + point["head"]["bias"] - y) ** 2)


def conditional(point, alpha, x, y):
    alpha = jax.tree.leaves(alpha)[0]
    return alpha * loss_fn(point, x, y) + (1 - alpha) * jnp.mean(point["head"]["kernel"] ** 2)


def clip(grad):
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(grad)))
    return jax.tree.map(lambda leaf: leaf * jnp.minimum(1, 0.05 / norm), grad)


def networks(seed, *leading):
    """Leaves ``[*leading, *s]``."""
    rng = np.random.default_rng(seed)
    return {
        "hidden": {"kernel": rng.normal(size=(*leading, IN, HIDDEN)) / 4, "bias": rng.normal(size=(*leading, HIDDEN))},
        "head": {"kernel": rng.normal(size=(*leading, HIDDEN, CLASSES)), "bias": rng.normal(size=(*leading, CLASSES))},
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A subspace, the options of its gradient (a ``beta`` of None is traced), and whether the endpoints share their biases."""

    subspace: Any
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    loss_fn: Any = loss_fn
    shares_biases: bool = False


CASES = {
    "line": Case(Line()),
    "curve, layerwise, pass_alpha": Case(Curve(), {"layerwise": True, "pass_alpha": True}, conditional),
    "simplex, all pairs, traced beta, origin, at_point": Case(
        Simplex(3), {"all_pairs": True, "beta": None, "origin": networks(9), "at_point": clip}
    ),
    "line, two samples, SAM": Case(Line(), {"num_samples": 2, "sam_rho": 0.1}),
    "simplex, shared biases, four samples": Case(Simplex(3), {"num_samples": 4}, shares_biases=True),
}
PLAIN = {1: Case(Point()), 2: CASES["line"], 4: Case(Simplex(4)), 6: Case(Simplex(6))}


class Layout(NamedTuple):
    """A mesh, the spec of a leaf ``[m, *s]``, and whether the loss gathers the point itself."""

    sizes: tuple[int, ...]
    axes: tuple[str, ...]
    spec_of: Any
    kind: AxisType = AxisType.Auto
    gathers: bool = False

    def mesh(self):
        return jax.make_mesh(self.sizes, self.axes, axis_types=(self.kind,) * len(self.axes))


def replicated(leaf):
    return PartitionSpec()


def fully_sharded(leaf):
    """The first axis of ``[*s]`` that eight devices divide is cut."""
    axis = next((axis for axis in range(1, leaf.ndim) if leaf.shape[axis] % 8 == 0), None)
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data")


def in_two_axes(leaf):
    """Kernels are cut by inputs over ``data`` and by outputs over ``model``, as far as the sizes allow."""
    names = ("data", "model") if leaf.ndim == 3 else ("model",)
    sizes = {"data": 4, "model": 2}
    cut = [name if size % sizes[name] == 0 else None for name, size in zip(names, leaf.shape[1:], strict=True)]
    return PartitionSpec(None, *cut)


def along_the_endpoints(leaf):
    return PartitionSpec("endpoints")


LAYOUTS = {
    "data parallel": Layout((8,), ("data",), replicated),
    "FSDP": Layout((8,), ("data",), fully_sharded),
    "FSDP x tensor": Layout((4, 2), ("data", "model"), in_two_axes),
    "explicit data parallel": Layout((8,), ("data",), replicated, AxisType.Explicit),
    "explicit FSDP": Layout((8,), ("data",), fully_sharded, AxisType.Explicit, gathers=True),
    "endpoints cut": Layout((4, 2), ("data", "endpoints"), along_the_endpoints),
}


def endpoints_of(case):
    endpoints = networks(2, case.subspace.num_endpoints)
    if case.shares_biases:
        for layer in endpoints.values():
            layer["bias"] = layer["bias"][:1]
    return endpoints


def gradient_of(case, layout=None):
    """``(endpoints, x, y, beta) -> (value, grads)``."""

    def own_loss(point, *args):
        if layout is not None and layout.gathers:
            point = jax.tree.map(lambda leaf: jax.reshard(leaf, PartitionSpec()), point)
        return case.loss_fn(point, *args)

    def gradient(endpoints, x, y, beta):
        options = {name: beta if value is None else value for name, value in case.options.items()}
        grad_fn = jsubspace.value_and_grad(own_loss, case.subspace, **options)
        (value, _), grads = grad_fn(jax.random.key(3), endpoints, x, y)
        return value, grads

    return gradient


def placed(layout, mesh, endpoints):
    shardings = jax.tree.map(lambda leaf: NamedSharding(mesh, layout.spec_of(leaf)), endpoints)
    batch = [jax.device_put(array, NamedSharding(mesh, PartitionSpec("data"))) for array in (X, Y)]
    return jax.device_put(endpoints, shardings), *batch, BETA


@functools.cache
def compiled(name, case):
    """The compiled gradient and its arguments. The compiler chooses where the results of an explicit mesh lie."""
    layout = LAYOUTS[name]
    mesh = layout.mesh()
    with jax.set_mesh(mesh):
        arguments = placed(layout, mesh, endpoints_of(case))
        results = None
        if layout.kind == AxisType.Auto:
            results = NamedSharding(mesh, PartitionSpec()), jax.tree.map(lambda leaf: leaf.sharding, arguments[0])
        gradient = jax.jit(gradient_of(case, layout), out_shardings=results)
        return gradient.lower(*arguments).compile(), arguments


@functools.cache
def on_one_device(case):
    return jax.device_get(jax.jit(gradient_of(case))(endpoints_of(case), X, Y, BETA))


def numbers(name, case):
    """How many numbers each kind of collective moves in a step. A collective in a loop counts once."""
    found = collections.Counter()
    for collective in collectives(compiled(name, case)[0].as_text()):
        found[collective.kind] += collective.numbers
    return found


IN_ALL_CASES = ("data parallel", "FSDP", "FSDP x tensor", "explicit FSDP")
# Two other layouts are tried with every case, and every case with a layout that cuts leaves.
ONE_MORE = {
    ("FSDP", "simplex, all pairs, traced beta, origin, at_point"),
    ("FSDP", "line, two samples, SAM"),
    ("FSDP x tensor", "curve, layerwise, pass_alpha"),
    ("FSDP x tensor", "line, two samples, SAM"),
}
PAIRS = [*itertools.product(IN_ALL_CASES, CASES), ("explicit data parallel", "line"), ("endpoints cut", "line")]


@pytest.mark.parametrize(
    ("layout", "case"), [pytest.param(*pair, marks=[pytest.mark.slow] * (pair in ONE_MORE)) for pair in PAIRS]
)
def test_a_sharded_step_has_the_numbers_of_one_device(layout, case):
    """And its gradients lie where the endpoints lie."""
    gradient, arguments = compiled(layout, CASES[case])
    actual = jax.block_until_ready(gradient(*arguments))
    for leaf, given in zip(jax.tree.leaves(actual[1]), jax.tree.leaves(arguments[0]), strict=True):
        assert leaf.sharding.is_equivalent_to(given.sharding, leaf.ndim)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)
    jax.tree.map(close, actual, on_one_device(CASES[case]))


@pytest.mark.parametrize("m", [pytest.param(m, marks=[pytest.mark.slow] * (m == 4)) for m in PLAIN])
def test_one_gradient_is_reduced_if_the_endpoints_are_replicated(m):
    """And the loss."""
    assert numbers("data parallel", PLAIN[m]) == {"all-reduce": NUMBERS + 1}


@pytest.mark.parametrize("m", [pytest.param(m, marks=[pytest.mark.slow] * (m == 4)) for m in PLAIN])
def test_one_network_is_gathered_and_one_gradient_reduced_if_the_leaves_are_cut(m):
    """And the loss and the inner products of a pair. On the CPU they are four numbers for every kernel, and two of them are equal. They
    stand twice in the program, but the second time in a branch that is not taken for ordinary norms."""
    found = numbers("FSDP", PLAIN[m])
    assert found.pop("all-gather") == NUMBERS - CLASSES  # The last bias is not cut.
    assert set(found) <= {"all-reduce", "reduce-scatter"}
    assert found.total() <= NUMBERS + 1 + 2 * 4 * KERNELS


def test_what_two_mesh_axes_move_does_not_grow_with_the_endpoints():
    assert numbers("FSDP x tensor", PLAIN[2]) == numbers("FSDP x tensor", PLAIN[4])
    assert numbers("FSDP x tensor", PLAIN[4]).total() < 3 * NUMBERS


@pytest.mark.parametrize("case", CASES)
def test_options_move_one_gradient_for_each_that_they_take(case):
    gradients = 2 if "sam_rho" in CASES[case].options else 1
    found = numbers("data parallel", CASES[case])
    assert set(found) == {"all-reduce"}
    assert found.total() <= gradients * NUMBERS + 2
    assert numbers("explicit FSDP", CASES[case])["all-gather"] == gradients * (NUMBERS - CLASSES)


@pytest.mark.parametrize("layout", ["data parallel", "FSDP", "FSDP x tensor", "explicit FSDP"])
@pytest.mark.parametrize("shares", [False, True])
def test_the_first_state_lies_where_its_parameters_lie(layout, shares):
    """Outside jit a vmap of init would put the state of all endpoints on one device, before the first step."""
    layout = LAYOUTS[layout]
    mesh, endpoints = layout.mesh(), endpoints_of(dataclasses.replace(CASES["line"], shares_biases=shares))
    placed = jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, layout.spec_of(leaf))), endpoints)
    optimizer = jsubspace.per_endpoint(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)))
    state, expected = optimizer.init(placed), optimizer.init(endpoints)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    moments = [part for part in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(part, "mu")]
    found = {}
    for moment in moments:
        for tree in (moment.mu, moment.nu):
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                found.setdefault(path, []).append(leaf.sharding)
    for path, leaf in jax.tree_util.tree_leaves_with_path(placed):
        assert len(found[path]) == 2
        assert all(sharding.is_equivalent_to(leaf.sharding, leaf.ndim) for sharding in found[path])
    assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(state))


def test_to_cut_the_endpoint_axis_moves_many_networks():
    assert numbers("endpoints cut", PLAIN[2]).total() > 5 * NUMBERS


def test_an_explicit_mesh_that_cuts_the_endpoint_axis_is_refused():
    layout = LAYOUTS["endpoints cut"]._replace(kind=AxisType.Explicit)
    mesh, case = layout.mesh(), PLAIN[2]
    with jax.set_mesh(mesh):
        arguments = placed(layout, mesh, endpoints_of(case))
        with pytest.raises(
            ValueError, match=r"'bias'.*cut along the endpoint axis, over the mesh axis 'endpoints'.*None"
        ):
            jax.eval_shape(gradient_of(case), *arguments)
