"""Weight matching finds a permuted copy exactly, and never makes networks less alike."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import jsubspace
from jsubspace.errors import UsageError
from jsubspace.merging.alignment import align
from jsubspace.merging.units import Symmetries, permuted, symmetries
from jsubspace.models.cresnet import CResNet


def chain(*widths):
    """Dense layers as `Symmetries`, and their shapes: layer i has inputs of kind i and outputs of kind i + 1."""
    names = [None, *(f"units {i}" for i in range(1, len(widths) - 1)), None]
    ends = list(zip(names, widths, strict=True))
    axes = {f"layer{i}": ((ends[i],), (ends[i + 1],)) for i in range(len(widths) - 1)}
    return Symmetries(axes), [(widths[i], widths[i + 1]) for i in range(len(widths) - 1)]


def network(shapes, seed):
    rng = np.random.default_rng(seed)
    return {f"layer{i}": rng.normal(size=shape) for i, shape in enumerate(shapes)}


def order(found, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.permutation(length) for name, length in found.lengths.items()}


@pytest.mark.parametrize("seed", range(5))
def test_a_permuted_copy_of_a_deep_network_is_found_exactly(seed, x64):
    found, shapes = chain(3, 8, 8, 8, 8, 2)
    reference = network(shapes, seed)
    aligned = align(permuted(reference, found, order(found, seed)), reference, found)
    jax.tree.map(np.testing.assert_array_equal, aligned.network, reference)
    assert aligned.cosine[1] == pytest.approx(1, abs=1e-12)
    assert aligned.cosine[0] < 0.5


def test_a_permuted_copy_of_a_residual_network_is_found_exactly():
    module = CResNet(num_classes=3, depth=14, width=4)
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(images.shape), train=True))
    rng = np.random.default_rng(0)
    reference = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes["params"])

    def function(point, x, stats):
        return module.apply({"params": point, "batch_stats": stats}, x, train=False).logits

    found = symmetries(function, reference, images, stats=shapes["batch_stats"])
    other = permuted(reference, found, order(found, 0))
    aligned = align(other, reference, found)
    jax.tree.map(np.testing.assert_array_equal, aligned.network, reference)


def test_one_hidden_layer_is_a_linear_assignment(x64):
    """The best permutation of all is known there."""
    found, shapes = chain(5, 7, 3)
    ours, theirs = network(shapes, 0), network(shapes, 1)
    similarity = theirs["layer0"].T @ ours["layer0"] + theirs["layer1"] @ ours["layer1"].T
    rows, columns = optimize.linear_sum_assignment(similarity, maximize=True)
    aligned = align(ours, theirs, found)
    assert aligned.permutations["units 1"].tolist() == columns.tolist()
    norms = [np.sqrt(sum(np.sum(leaf**2) for leaf in each.values())) for each in (ours, theirs)]
    assert aligned.cosine[1] == pytest.approx(similarity[rows, columns].sum() / np.prod(norms), rel=1e-12)


def test_the_networks_are_never_less_alike_and_a_second_time_changes_nothing(x64):
    found, shapes = chain(4, 6, 6, 6, 2)
    for seed in range(5):
        ours, theirs = network(shapes, 2 * seed), network(shapes, 2 * seed + 1)
        aligned = align(ours, theirs, found)
        assert aligned.cosine[1] > aligned.cosine[0]
        again = align(aligned.network, theirs, found)
        assert again.cosine[0] == pytest.approx(aligned.cosine[1], rel=1e-12)
        assert again.cosine[1] >= again.cosine[0]
        near = jax.tree.map(lambda leaf: leaf + 1e-3 * np.ones_like(leaf), theirs)
        kept = align(near, theirs, found)
        jax.tree.map(np.testing.assert_array_equal, kept.network, near)


def test_units_on_two_axes_of_one_leaf(x64):
    """A residual layer x + x W, with the same units as inputs and outputs."""
    units = ("units", 6)
    found = Symmetries({"first": (((None, 4),), (units,)), "inner": ((units,), (units,))})
    rng = np.random.default_rng(0)
    reference = {"first": rng.normal(size=(4, 6)), "inner": rng.normal(size=(6, 6))}
    aligned = align(permuted(reference, found, order(found, 3)), reference, found)
    jax.tree.map(np.testing.assert_array_equal, aligned.network, reference)


def test_the_kind_of_array_stays():
    found, shapes = chain(3, 4, 2)
    reference = network(shapes, 0)
    for cast in (lambda leaf: jnp.asarray(leaf, jnp.bfloat16), lambda leaf: np.asarray(leaf, np.float32)):
        given = jax.tree.map(cast, reference)
        aligned = align(permuted(given, found, order(found, 1)), given, found).network
        assert [(type(a), a.dtype) for a in aligned.values()] == [(type(a), a.dtype) for a in given.values()]


def test_other_networks_are_refused():
    found, shapes = chain(3, 4, 2)
    wider, wide_shapes = chain(3, 5, 2)
    one, other = network(shapes, 0), network(wide_shapes, 1)
    one, other = (jax.tree.map(np.float32, each) for each in (one, other))
    for networks, symmetry, message in (
        ((one, other), found, "has the shape [3, 4], but in network 0 it is [3, 5]"),
        ((one, one | {"more": np.ones(2, np.float32)}), found, "it lacks leaf ['more']"),
        ((one, one | {"layer0": np.full((3, 4), np.nan, np.float32)}), found, "holds NaN"),
        ((one, one | {"layer0": one["layer0"] + 1}), wider, "leaf layer0 has the shape [3, 4], but in the symmetries it is [3, 5]"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=re.escape(message)):
            align(*networks, symmetry)
    with pytest.raises(ValueError, match="max_sweeps is"):
        align(one, other, found, max_sweeps=0.5)
    assert jsubspace.merging.alignment.align is align
