"""What an argument must be, and not what it looks like: rows, truth values, counts, masks, layers, subspaces, batches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jsubspace
from jsubspace import arguments, gradients, tree
from jsubspace.evaluation import averaging, batches, curvature, metrics

KEY = jax.random.key(0)
ENDPOINTS = {"w": jax.random.normal(KEY, (3, 2, 2)), "b": jnp.ones((3, 2))}
THREE = jsubspace.Simplex(3)
MANY = settings(max_examples=100, deadline=None, derandomize=True)

INTEGERS = st.sampled_from([int, np.int8, np.int64, np.uint8, np.array, jnp.asarray])


def loss_fn(point, *batch):
    return jnp.sum(point["w"])


def gradient(chosen=(0, 1), **options):
    return gradients.value_and_grad_at(loss_fn, THREE, **options)(THREE.center, chosen, ENDPOINTS)


@MANY
@given(row=st.integers(-4, 6), kind=INTEGERS)
def test_a_row_of_any_integer_type_is_the_row_or_refused(row, kind):
    if kind is np.uint8 and row < 0:
        return
    if 0 <= row < 3:
        assert arguments.row("j", kind(row), 3) == row
        return
    for call in (
        lambda: jsubspace.cosine_squared(ENDPOINTS, kind(row), 1),
        lambda: jsubspace.cosine_squared(ENDPOINTS, 1, kind(row)),
        lambda: gradient((kind(row), 1)),
    ):
        with pytest.raises(ValueError, match=rf"there is no endpoint {row}\. The 3 endpoints are 0 to 2"):
            call()


@pytest.mark.parametrize("row", [True, np.True_, 1.0, np.float32(1), jnp.ones(()), jnp.arange(2)], ids=repr)
def test_what_is_no_row(row):
    for call in (lambda: jsubspace.cosine_squared(ENDPOINTS, 0, row), lambda: gradient((0, row))):
        with pytest.raises(ValueError, match="the row of an endpoint must be one integer"):
            call()


@pytest.mark.parametrize(("implementation", "length"), [("threefry2x32", 2), ("rbg", 4)])
def test_a_raw_key_is_as_long_as_the_implementation_says(implementation, length):
    """Before, the other length ended in an error of jax."""
    with jax.default_prng_impl(implementation):
        right, wrong = jnp.zeros(length, jnp.uint32), jnp.zeros(6 - length, jnp.uint32)
        assert jsubspace.sample_alpha(right, THREE).shape == (3,)
        with pytest.raises(ValueError, match=f"key is an array uint32.*A raw key has {length} numbers here"):
            jsubspace.sample_alpha(wrong, THREE)


def test_rows_that_are_no_pair():
    with pytest.raises(ValueError, match=r"chosen is \(1, 1\). The same endpoint stands in it twice"):
        gradient((1, np.int64(1)))
    with pytest.raises(ValueError, match="one endpoint has no pair"):
        gradient((1,))
    with pytest.raises(ValueError, match="must hold the rows of two or more endpoints"):
        gradient(1)
    rows = jnp.asarray(np.array([0, 1]))
    np.testing.assert_array_equal(*jax.jit(lambda: [gradient(chosen)[1]["w"] for chosen in (rows, (0, 1))])())


def test_numpy_truth_values_are_truth_values():
    expected = jax.jit(jsubspace.value_and_grad(loss_fn, THREE, layerwise=True, all_pairs=True))(KEY, ENDPOINTS)
    options = {"layerwise": np.True_, "all_pairs": np.True_, "has_aux": np.False_, "num_samples": np.int64(1)}
    found = jax.jit(jsubspace.value_and_grad(loss_fn, THREE, **options))(KEY, ENDPOINTS)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("value", [1, 0, "yes", 0.0, None, np.ones(2)], ids=repr)
@pytest.mark.parametrize("name", ["all_pairs", "has_aux", "layerwise"])
def test_what_is_no_truth_value(name, value):
    with pytest.raises(ValueError, match=rf"{name} is .*True(, False)?,? or"):
        jsubspace.value_and_grad(loss_fn, THREE, **{name: value})(KEY, ENDPOINTS)


@pytest.mark.parametrize("layerwise", [{"w": "a"}, {"w": "a", "b": True}, {"w": "a", "b": jnp.ones(())}, ["a", "b"]])
def test_layers_that_do_not_fit(layerwise):
    with pytest.raises(ValueError, match="a tree like the endpoints with the name of a layer per leaf"):
        jsubspace.value_and_grad(loss_fn, THREE, layerwise=layerwise)(KEY, ENDPOINTS)


@pytest.mark.parametrize("number", [True, np.True_, 2.0, np.float32(2), "2", None], ids=repr)
def test_what_is_no_number_of_things(number):
    calls = [
        lambda: jsubspace.Simplex(number),
        lambda: jsubspace.Curve(number),
        lambda: jsubspace.value_and_grad(loss_fn, THREE, num_samples=number),
        lambda: averaging.random_points(KEY, ENDPOINTS, THREE, number),
        lambda: averaging.gaussian(KEY, ENDPOINTS, number),
        lambda: curvature.largest_eigenvalue(lambda v: v, jnp.ones(2), KEY, num_iterations=number),
    ]
    if number is not None:
        calls.append(lambda: jsubspace.sample_alpha(KEY, THREE, num_samples=number))
    if number not in ("2", None):
        calls.append(lambda: jsubspace.init_endpoints(KEY, lambda key: {"w": jnp.ones(2)}, number))
        calls.append(lambda: jsubspace.sample_pair(KEY, number))
    for call in calls:
        with pytest.raises(ValueError, match="it must be an integer"):
            call()


def test_numpy_integers_are_integers():
    assert jsubspace.Simplex(np.int64(3)) == THREE
    assert repr(jsubspace.Curve(np.int32(2))) == "Curve(num_bends=2)"
    assert jsubspace.init_endpoints(KEY, lambda key: {"w": jnp.ones(2)}, np.int64(2))["w"].shape == (2, 2)


@pytest.mark.parametrize("subspace", [jsubspace.Line, jsubspace.Simplex])
def test_a_class_is_no_subspace(subspace):
    for call in (
        lambda: jsubspace.value_and_grad(loss_fn, subspace),
        lambda: gradients.value_and_grad_at(loss_fn, subspace),
        lambda: jsubspace.init_endpoints(KEY, lambda key: {"w": jnp.ones(2)}, subspace),
        lambda: jsubspace.interpolate(ENDPOINTS, 0.5, subspace),
        lambda: jsubspace.midpoint(ENDPOINTS, subspace),
        lambda: jsubspace.sample_alpha(KEY, subspace),
        lambda: jsubspace.measure(lambda point, x: x, ENDPOINTS, subspace, []),
    ):
        with pytest.raises(ValueError, match=rf"{subspace.__name__} is a class.*Write {subspace.__name__}\(\)"):
            call()
    with pytest.raises(ValueError, match="'line' is not a subspace"):
        jsubspace.value_and_grad(loss_fn, "line")


def test_a_mask_that_can_be_called_is_a_mask():
    endpoints = jsubspace.init_endpoints(KEY, lambda key: eqx.nn.Linear(3, 2, key=key), 2)
    expected = jsubspace.cosine_squared(endpoints, 0, 1, mask=jsubspace.kernels)
    assert jsubspace.cosine_squared(endpoints, 0, 1, mask=jsubspace.kernels(endpoints)) == expected
    assert jsubspace.cosine_squared(ENDPOINTS["w"], 0, 1, mask=jsubspace.all_leaves) > 0  # a bare array is a tree too
    assert jsubspace.cosine_squared(ENDPOINTS, 0, 1, {"w": np.True_, "b": False}) > 0


@pytest.mark.parametrize("counts", [1, 0.5, "yes", np.ones((2, 2), bool), jnp.ones((), bool)], ids=repr)
def test_what_says_not_whether_a_leaf_counts(counts):
    with pytest.raises(ValueError, match=r"leaf \['w'\] of the mask is (?s:.*) a Python bool"):
        jsubspace.cosine_squared(ENDPOINTS, 0, 1, {"w": counts, "b": True})


def test_a_list_that_may_be_one_thing_or_another():
    """Two leaves, two endpoints, two numbers: one position per leaf, or one weight per endpoint."""
    endpoints = [jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [1.0]])]
    with pytest.raises(ValueError, match=r"one position per leaf or one weight per endpoint\. Name the subspace"):
        jsubspace.interpolate(endpoints, [0.25, 0.75])
    layerwise = jsubspace.interpolate(endpoints, [0.25, 0.75], jsubspace.Line())
    assert [float(leaf[0]) for leaf in layerwise] == [0.25, 0.75]
    weights = jsubspace.interpolate(endpoints, [0.25, 0.75], jsubspace.Simplex(2))
    assert [float(leaf[0]) for leaf in weights] == [0.75, 0.75]
    assert float(jsubspace.interpolate({"w": endpoints[0]}, [0.25, 0.75])["w"][0]) == 0.75


def test_what_is_no_list_of_networks():
    for networks in ({"w": jnp.ones(2)}, jnp.ones((2, 3)), iter([jnp.ones(2)])):
        with pytest.raises(ValueError, match="stack takes a list of networks, not a"):
            tree.stack(networks)


LOG_PROBS = jnp.log(jnp.full((4, 3), 1 / 3))


@pytest.mark.parametrize("labels", [np.full(4, 3), np.array([0, 0, -1, 0]), jnp.full(4, 7)], ids=repr)
def test_labels_that_are_no_class(labels):
    with pytest.raises(ValueError, match="there are 3 classes, 0 to 2"):
        metrics.score(LOG_PROBS, labels)
    traced = jax.jit(metrics.score)(LOG_PROBS, labels)
    outside = (np.asarray(labels) < 0) | (np.asarray(labels) > 2)
    np.testing.assert_array_equal(np.isnan(traced.nll), outside)
    np.testing.assert_array_equal(np.isnan(traced.brier), outside)
    assert not np.any(np.asarray(traced.correct)[outside])


def test_labels_that_are_no_integers():
    for labels in (np.zeros(4), np.zeros(4, bool)):
        with pytest.raises(ValueError, match="They must be integers"):
            metrics.score(LOG_PROBS, labels)
        with pytest.raises(ValueError, match="must hold the labels, one integer per example"):
            next(batches.padded([(np.ones((4, 2)), labels)], jsubspace.Classification()))
    with pytest.raises(ValueError, match="a label of batch 0 is -1"):
        next(batches.padded([(np.ones((4, 2)), np.array([0, -1, 1, 1]))], jsubspace.Classification()))


def test_measure_refuses_labels_that_are_no_class():
    endpoints = {"w": jnp.stack([jnp.eye(2), 2 * jnp.eye(2)])}
    with pytest.raises(ValueError, match="measure: a label is no class"):
        jsubspace.measure(
            lambda p, x: x @ p["w"], endpoints, jsubspace.Line(), [(np.eye(2), np.array([0, 2]))], num_points=3
        )
