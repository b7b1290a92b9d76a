"""Units are found in programs of many kinds, and a network with permuted units computes the same function."""

import re

import equinox
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jsubspace
from jsubspace.merging import labels
from jsubspace.merging.units import Symmetries, leaf_names, permuted, symmetries
from jsubspace.models.cresnet import CResNet


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def perceptron(point, x):
    for i in range(2):
        x = jnp.tanh(x @ point[f"w{i}"] + point[f"b{i}"])
    return x @ point["head"]


PERCEPTRON = {
    "w0": normal(0, 4, 6),
    "b0": normal(1, 6),
    "w1": normal(2, 6, 6),
    "b1": normal(3, 6),
    "head": normal(4, 6, 3),
}


def convolve(x, kernel, groups=1):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def convolutional(point, x):
    """Convolutions, whole, by channel and in two groups, a pool, and a flattening to pixels times channels."""
    x = jax.nn.relu(convolve(x, point["first"]) + point["bias"])
    x = jax.nn.relu(convolve(x, point["depthwise"], 4))
    x = jax.nn.relu(convolve(x, point["grouped"], 2))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(x.shape[0], -1) @ point["head"]


CONVOLUTIONAL = {
    "first": normal(0, 3, 3, 1, 4), "bias": normal(1, 4), "depthwise": normal(2, 3, 3, 1, 4), "grouped": normal(3, 3, 3, 2, 6),
    "head": normal(4, 24, 3),
}  # fmt: skip


def transformer(point, tokens):
    """An embedding, attention with heads, LayerNorm, residual connections, and two dense layers that are scanned."""
    x = point["embedding"][tokens] + point["places"]
    n, t, _ = x.shape
    q, k, v = (jnp.reshape(x @ point[name], (n, t, 2, 4)) for name in "qkv")
    weights = jax.nn.softmax(jnp.einsum("nthd,nshd->nhts", q, k) + jnp.where(jnp.tri(t) > 0, 0, -1e9))
    x = x + jnp.einsum("nhts,nshd->nthd", weights, v).reshape(n, t, -1) @ point["out"]

    def layer(x, own):
        centred = x - x.mean(-1, keepdims=True)
        norm = centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5) * own["scale"]
        return x + jax.nn.gelu(norm @ own["up"]) @ own["down"], x.mean()

    x, _ = lax.scan(jax.checkpoint(layer), x, point["layers"])
    return jnp.cumsum(x, axis=1) @ point["embedding"].T


TRANSFORMER = {
    "embedding": normal(0, 7, 6), "places": normal(1, 5, 6), **{name: normal(i, 6, 8) for i, name in enumerate("qkv")},
    "out": normal(5, 8, 6),
    "layers": {"scale": normal(6, 2, 6), "up": normal(7, 2, 6, 10), "down": normal(8, 2, 10, 6)},
}  # fmt: skip

NETWORKS = {
    "perceptron": (perceptron, PERCEPTRON, normal(9, 5, 4), [6, 6]),
    "convolutional": (convolutional, CONVOLUTIONAL, normal(9, 2, 4, 4, 1), [2, 2, 3]),
    "transformer": (transformer, TRANSFORMER, np.array([[0, 3, 6, 2, 2]]), [2, 4, 4, 6, 10]),
}
"""A function, a network, a batch, and the numbers of units that are expected.

Two groups have two channels each as inputs, which leaves 2 groups and 2 channels of a group, and 3 outputs of a group. The heads
have 4 units for queries and keys, and 4 for values.
"""


def shuffled(network, found, seed=0):
    rng = np.random.default_rng(seed)
    order = {name: np.roll(rng.permutation(length), 1) for name, length in found.lengths.items()}
    return permuted(network, found, order), order


@pytest.mark.parametrize("name", NETWORKS)
def test_a_permuted_network_computes_the_same_function(name, x64):
    function, network, batch, expected = NETWORKS[name]
    found = symmetries(function, network, batch)
    assert sorted(found.lengths.values()) == expected
    assert found.unknown == ()
    apply = jax.jit(function)
    for seed in range(3):
        other, _ = shuffled(network, found, seed)
        assert not jax.tree.all(jax.tree.map(np.array_equal, network, other))
        np.testing.assert_allclose(apply(other, batch), apply(network, batch), rtol=1e-12, atol=1e-12)


class Normalized(nn.Module):
    """The norms of flax multiply the scale by a factor of one column, which they write first."""

    norm: type

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, param_dtype=float)(jnp.tanh(self.norm(param_dtype=float)(nn.Dense(8, param_dtype=float)(x))))


def one_hot_times(first):
    def function(point, tokens):
        hot = jax.nn.one_hot(tokens, 4)
        return jnp.tanh((first(hot) * hot) @ point["w0"]) @ point["w1"] @ point["head"]

    return function


def random_network(norm, seed):
    like = jax.eval_shape(lambda: Normalized(norm).init(jax.random.key(0), jnp.ones((2, 4))))["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), like)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_an_operand_with_one_column_does_not_hide_the_units(norm, x64):
    """An elementwise operation may repeat an operand of length 1. If it is the first, the others still say which units there are."""
    network, x = random_network(norm, 0), normal(1, 5, 4)

    def function(point, x):
        return Normalized(norm).apply({"params": point}, x)

    found = symmetries(function, network, x)
    assert tuple(found.lengths.values()) == (8,)
    np.testing.assert_allclose(function(shuffled(network, found)[0], x), function(network, x), rtol=1e-10, atol=1e-12)
    other = random_network(norm, 2)
    aligned = jsubspace.merging.align(other, network, found).network
    np.testing.assert_allclose(function(aligned, x), function(other, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("first", [lambda hot: hot.sum(-1, keepdims=True), lambda hot: jnp.ones((1, 4))])
def test_a_vocabulary_keeps_its_order(first):
    """one_hot compares a column of tokens with a row of numbers: a length of 1 on either side."""
    found = symmetries(one_hot_times(first), PERCEPTRON, jnp.array([0, 3, 1]))
    assert found.axes["w0"][0] == ((None, 4),)
    assert found.axes["w0"][1] == found.axes["w1"][0] != ((None, 6),)


def test_a_residual_network_with_batch_norm(x64):
    """The stages' channels are shared by their blocks, and the statistics follow them. The statistics of train mode agree."""
    module = CResNet(num_classes=3, depth=8, width=2)
    images = normal(0, 3, 8, 8, 1)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=True))
    variables = jax.tree.map(lambda leaf: 1 + normal(leaf.size, *leaf.shape) / 4, variables)

    def function(point, x, stats):
        return module.apply({"params": point, "batch_stats": stats}, x, train=False).logits

    def in_train_mode(point, x):
        return module.apply(variables | {"params": point}, x, train=True, mutable=["batch_stats"])[0].logits

    point = variables["params"]
    found = symmetries(function, point, images, stats=variables["batch_stats"])
    assert sorted(found.lengths.values()) == [2, 2, 4, 4, 8, 8]
    assert found == symmetries(in_train_mode, point, images)
    apply = jax.jit(in_train_mode)
    other, _ = shuffled(point, found)
    np.testing.assert_allclose(apply(other, images), apply(point, images), rtol=1e-12, atol=1e-12)


class Linear(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.head = nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


def test_modules_of_nnx_and_equinox_have_names():
    x = jnp.ones((3, 4))
    of_nnx = symmetries(lambda model, x: model(x), Linear(nnx.Rngs(0)), x)
    model = equinox.filter(equinox.nn.MLP(4, 2, 5, 1, key=jax.random.key(0)), equinox.is_inexact_array)
    of_equinox = symmetries(
        lambda model, x: jnp.tanh(x @ model.layers[0].weight.T) @ model.layers[1].weight.T, model, x
    )
    assert [place for place in of_nnx.axes if of_nnx.axes[place][0] and of_nnx.axes[place][0][0][0]] == [
        "head/kernel", "hidden/bias"
    ]  # fmt: skip
    assert of_equinox.axes["layers/1/weight"] == (((None, 2),), of_equinox.axes["layers/0/weight"][0])
    assert leaf_names(Linear(nnx.Rngs(0))) == list(of_nnx.axes)


def test_an_operation_that_is_not_known_fixes_its_axes():
    def sorting(point, x):
        return jnp.sort(jnp.tanh(x @ point["w0"]), axis=-1)[:, ::-1] @ point["w1"] @ point["head"]

    found = symmetries(sorting, PERCEPTRON, jnp.ones((2, 4)))
    assert found.axes["w0"] == (((None, 4),), ((None, 6),))
    assert found.axes["head"][0] == found.axes["w1"][1] != ((None, 6),)
    assert found.unknown == ("sort",)
    assert "keep their order: sort" in found.table()


@pytest.mark.parametrize(
    "function",
    [
        lambda point, x: jnp.tanh(x @ point["w0"])[:, :3],
        lambda point, x: jnp.argmax(x @ point["w0"], axis=-1),
        lambda point, x: jnp.tanh(x @ point["w0"]) @ jnp.arange(6.0),
        lambda point, x: jnp.cumsum(x @ point["w0"], axis=-1).sum(-1),
        lambda point, x: jnp.concatenate([x @ point["w0"], x], axis=-1) @ jnp.ones(10),
        lambda point, x: jnp.pad(x @ point["w0"], ((0, 0), (0, 1))).sum(-1),
        lambda point, x: jnp.split(x @ point["w0"], 2, axis=-1)[0].sum(-1),
        lambda point, x: jnp.take(x @ point["w0"], jnp.arange(2), axis=-1).sum(-1),
        lambda point, x: jnp.flip(x @ point["w0"], axis=-1) @ point["head"],
        lambda point, x: lax.dynamic_slice_in_dim(x @ point["w0"], 1, 3, axis=1).sum(-1),
        lambda point, x: jnp.convolve((x @ point["w0"])[0], jnp.ones(2)),
    ],
    ids=[
        "slice",
        "argmax",
        "constant",
        "cumsum",
        "concatenate",
        "pad",
        "split",
        "take",
        "flip",
        "dynamic_slice",
        "convolve",
    ],
)
def test_an_order_that_matters_is_kept(function):
    """The outputs of w0 enter something that depends on their order."""
    assert symmetries(function, PERCEPTRON, jnp.ones((2, 4))).axes["w0"][1] == ((None, 6),)


def test_labels_are_products_that_are_unified():
    (axis,), (pixels,), (channels,) = labels.of_shape([24]), labels.of_shape([4], fixed=True), labels.of_shape([6])
    labels.unify(axis, (*pixels, *channels))
    assert [(f.length, f.fixed) for f in labels.resolved(axis)] == [(4, True), (6, False)]
    (other,) = labels.of_shape([24])
    labels.unify(other, axis)
    labels.unify(other, (*labels.fresh(8), *labels.fresh(3)))  # 8 x 3 and 4 x 6 become 4 x 2 x 3.
    assert [f.length for f in labels.resolved(axis)] == [4, 2, 3]
    assert labels.resolved(other) == labels.resolved(axis)
    six, four = labels.fresh(6), labels.fresh(4)
    labels.unify((*six, *labels.fresh(4)), (*four, *labels.fresh(6)))  # Neither divides the other.
    assert six[0].fixed
    assert labels.cut([labels.fresh(6), labels.fresh(4)], [8, 3]) is None


def test_symmetries_that_do_not_fit_are_refused():
    found = symmetries(perceptron, PERCEPTRON, jnp.ones((2, 4)))
    name = next(iter(found.lengths))
    for network, order, message in (
        (PERCEPTRON | {"more": jnp.ones(3)}, {}, "belong to another network than the one that was given: more"),
        (PERCEPTRON | {"b0": jnp.ones(7)}, {}, r"leaf b0 has the shape [7], but in the symmetries it is [6]"),
        (PERCEPTRON, {"b9": np.arange(6)}, "permutations names 'b9', but there are no such units"),
        (PERCEPTRON, {name: np.zeros(6, int)}, "is no permutation of 0, ..., 5"),
    ):
        with pytest.raises(jsubspace.errors.UsageError, match=re.escape(message)):
            permuted(network, found, order)
    with pytest.raises(jsubspace.errors.UsageError, match=r"come from jsubspace.merging.symmetries\("):
        permuted(PERCEPTRON, None, {})
    with pytest.raises(jsubspace.errors.UsageError, match="leaf b has 5 units of 'u', and another leaf has 4"):
        Symmetries({"a": ((("u", 4),),), "b": ((("u", 5),),)})
