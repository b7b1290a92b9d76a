"""Values at the edge: denominators that vanish, values that are not finite, sums in narrow dtypes, other random numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jsubspace
from jsubspace import point_gradients, subspaces, tree
from jsubspace.data import augment, labels
from jsubspace.evaluation import averaging, curvature, ensembles, metrics
from jsubspace.network import Network
from jsubspace.shares import Shares
from jsubspace.training.train_step import task_loss

MANY = settings(max_examples=40, deadline=None, derandomize=True)
SEVERAL = settings(max_examples=12, deadline=None, derandomize=True)
"""Of what takes long: many batches, or a program for each kind of number."""
BAD = st.sampled_from([np.nan, np.inf, -np.inf])
SCALES = st.floats(-35, 35)  # log10


def ascent_of(gradient, rho=0.5):
    """How far SAM moves before it takes the second gradient."""
    return point_gradients.uphill({"w": jnp.zeros_like(gradient)}, {"w": gradient}, rho, Shares())["w"]


def test_sam_does_not_move_at_a_gradient_of_zero():
    np.testing.assert_array_equal(ascent_of(jnp.zeros(3)), 0)


@MANY
@given(seed=st.integers(0, 10**6), scale=SCALES)
def test_sam_moves_by_rho_whatever_the_scale(seed, scale):
    direction = np.random.default_rng(seed).normal(size=4)
    moved = ascent_of(jnp.asarray(10.0**scale * direction, jnp.float32))
    np.testing.assert_allclose(moved, 0.5 * direction / np.linalg.norm(direction), rtol=1e-5, atol=1e-6)


@MANY
@given(m=st.integers(1, 5), zeros=st.lists(st.booleans(), min_size=5, max_size=5), seed=st.integers(0, 10**6))
def test_a_draw_from_a_simplex_sums_to_one(m, zeros, seed):
    """Also for the exponentials that are 0, one draw in eight million."""
    exponentials = np.random.default_rng(seed).exponential(size=m) * ~np.array(zeros[:m])
    alpha = subspaces._normalized(jnp.asarray(exponentials, jnp.float32))
    np.testing.assert_allclose(np.sum(alpha), 1, rtol=1e-6)
    assert np.all(alpha >= 0)


@MANY
@given(seed=st.integers(0, 10**6), scale=st.floats(-30, 30))
def test_the_largest_eigenvalue_of_any_scale(seed, scale):
    right = 10.0**scale * np.array([3.0, 1.0, -1.0], np.float32)
    found = curvature.largest_eigenvalue(lambda v: v * right, jnp.zeros(3), jax.random.key(seed))
    np.testing.assert_allclose(found.value, right[0], rtol=1e-2)
    assert found.residual <= 2e-3 * abs(found.value)


def test_eigenvalues_of_zero_and_nan():
    zero = curvature.largest_eigenvalue(jnp.zeros_like, jnp.zeros(3), jax.random.key(0))
    assert zero == (0.0, 0.0, 1)
    calls = []

    def product(v):
        calls.append(v)
        return v * jnp.nan

    assert math.isnan(curvature.largest_eigenvalue(product, jnp.zeros(3), jax.random.key(0)).value)
    assert len(calls) == 1


@MANY
@given(seed=st.integers(0, 10**6), scales=st.tuples(SCALES, SCALES), sign=st.sampled_from([-1, 1]))
def test_cosines_of_features_of_any_scale(seed, scales, sign):
    f, g = np.random.default_rng(seed).normal(size=(2, 6))
    right = (f @ g) ** 2 / (f @ f) / (g @ g)
    for other, expected in ((g, right), (sign * f, 1.0), (0 * g, 0.0)):
        pair = (
            jnp.asarray(10.0 ** scales[0] * f, jnp.float32)[None],
            jnp.asarray(10.0 ** scales[1] * other, jnp.float32)[None],
        )
        found = metrics.difference((jnp.zeros((1, 2)),) * 2, pair, jnp.zeros(1, int)).feature_cosine_squared[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        assert 0 <= found <= 1


@MANY
@given(
    seed=st.integers(0, 10**6), label=st.integers(0, 2), place=st.integers(0, 2), bad=st.sampled_from([np.nan, np.inf])
)
def test_logits_that_are_not_finite_are_never_right(seed, label, place, bad):
    logits = np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)
    logits[0, place] = bad
    targets = jnp.array([label, 1])
    found = metrics.score(jax.nn.log_softmax(jnp.asarray(logits)), targets)
    assert found.correct[0] == 0
    assert np.isnan(found.confidence[0])
    assert np.isnan(found.nll[0])
    good = jax.nn.log_softmax(jnp.asarray(logits[::-1]))
    between = metrics.difference((jax.nn.log_softmax(jnp.asarray(logits)), good[:1].repeat(2, 0)), None, targets)
    assert np.isnan(between.disagreement[0])
    assert np.isnan(between.disagreement_and_one_is_right[0])
    network = Network(None, lambda point, images, key, train: images)
    _, scores = task_loss(network, jsubspace.Classification())({}, (jnp.asarray(logits), targets), None)
    assert scores["accuracy"] == (np.argmax(logits[1]) == 1) / 2


def test_an_impossible_class_is_still_a_class():
    found = metrics.score(jnp.array([[0.0, -jnp.inf]]), jnp.array([0]))
    assert (found.correct[0], found.confidence[0], found.nll[0]) == (1, 1, 0)


@pytest.mark.parametrize("label", [-1, 3, 100])
def test_the_loss_of_a_label_that_is_no_class_is_nan(label):
    assert np.isnan(metrics.cross_entropies(jnp.zeros((2, 3)), jnp.array([0, label]))[1])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("num_classes", [100, 200, 256, 257, 40_000])
def test_narrow_labels_are_the_same_classes(dtype, num_classes):
    """A number of classes that the labels' dtype does not have must not wrap."""
    logits = jax.random.normal(jax.random.key(1), (3, num_classes))
    labels = np.array([0, 97, min(num_classes - 1, np.iinfo(dtype).max)], dtype)
    wide = labels.astype(np.int32)
    np.testing.assert_array_equal(metrics.cross_entropies(logits, labels), metrics.cross_entropies(logits, wide))
    found, expected = (metrics.score(jax.nn.log_softmax(logits), jnp.asarray(given)) for given in (labels, wide))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert np.isfinite(found.nll).all()
    tokens = (jsubspace.Tokens().losses(logits[None], given[None]) for given in (labels, wide))
    np.testing.assert_array_equal(*tokens)
    if np.issubdtype(dtype, np.signedinteger):
        assert np.isnan(metrics.cross_entropies(logits, np.array([-1, 0, 0], dtype))[0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_sure_network_in_bfloat16_is_not_zero(smoothing):
    """Nor is the gradient of the label's logit. Both are those of the same logits in float32."""
    logits, labels = jnp.array([[6.0, 0.0], [8.0, 0.0], [0.0, 5.0]], jnp.bfloat16), jnp.array([0, 0, 0])

    def total(logits):
        losses = metrics.cross_entropies(logits, labels, smoothing)
        return jnp.sum(losses), losses

    (grads, losses), (wide_grads, wide) = (
        jax.grad(total, has_aux=True)(logits.astype(dtype)) for dtype in (jnp.bfloat16, jnp.float32)
    )
    np.testing.assert_array_equal(losses, wide)
    np.testing.assert_allclose(np.float32(grads), wide_grads, rtol=2**-7)
    assert np.all(np.float32(grads) != 0)


@MANY
@given(corner=st.integers(0, 3), bad=BAD, m=st.integers(2, 3), dtype=st.sampled_from([jnp.float32, jnp.bfloat16]))
def test_a_corner_is_its_endpoint_whatever_the_others_hold(corner, bad, m, dtype):
    corner %= m
    kernel = jnp.full((m, 2, 2), bad, dtype).at[corner].set(jax.random.normal(jax.random.key(m), (2, 2), dtype))
    weights = jnp.eye(m)[corner]
    found = jsubspace.interpolate({"w": kernel}, weights, jsubspace.Simplex(m))["w"]
    np.testing.assert_array_equal(found, kernel[corner])
    between = jsubspace.interpolate({"w": kernel}, jnp.full(m, 1 / m), jsubspace.Simplex(m))["w"]
    assert not np.any(np.isfinite(between))  # elsewhere the value is what it is


def test_the_derivative_at_a_corner_is_kept():
    endpoints = {"w": jnp.array([[1.0], [5.0]])}
    slope = jax.grad(lambda alpha: jsubspace.interpolate(endpoints, alpha, jsubspace.Line())["w"][0])
    assert [float(slope(alpha)) for alpha in (0.0, 0.3, 1.0)] == [4.0, 4.0, 4.0]
    row = jax.grad(lambda e: jsubspace.interpolate(e, 0.0, jsubspace.Line())["w"][0])(endpoints)["w"]
    np.testing.assert_array_equal(row, [[1.0], [0.0]])


def test_weightwise_points_of_a_chain_do_not_mix_in_what_has_no_weight():
    """Every parameter lies between two of the three points. The infinite one takes part in every draw of its segments."""
    endpoints = {"w": jnp.stack([jnp.zeros(200), jnp.full(200, jnp.inf), jnp.ones(200)])}
    drawn = averaging.weightwise_points(jax.random.key(0), endpoints, jsubspace.Chain(1), 1)["w"]
    assert not np.any(np.isnan(drawn))
    assert 0.3 < np.mean(np.isfinite(drawn)) < 0.7


@pytest.mark.parametrize("num_bends", [1, 2, 5, 12, 18, 20, 40])
def test_every_point_of_a_chain_is_met_exactly(num_bends):
    """i / (b + 1) in float32, times b + 1, is not i for (b, i) = (12, 7), (18, 15) and many more."""
    chain, segments = jsubspace.Chain(num_bends), num_bends + 1
    found = chain.coefficients(jnp.asarray(np.arange(segments + 1) / segments, jnp.float32))
    first, last, *bends = np.eye(segments + 1)
    np.testing.assert_array_equal(found, [first, *bends, last])


def test_the_derivative_at_a_point_of_a_chain_is_kept():
    slope = jax.jit(jax.jacobian(jsubspace.Chain(12).coefficients))(jnp.float32(7 / 13))
    np.testing.assert_allclose(np.abs(slope).max(), 13, rtol=1e-6)


@SEVERAL
@given(
    value=st.floats(0.1, 10),
    count=st.integers(1, 1000),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]),
)
def test_statistics_are_added_up_in_float32(value, count, dtype):
    found = jsubspace.reestimate_batch_stats(
        lambda _, x: x.mean(0).astype(dtype), {}, [(np.full((4, 1), value, np.float32),)] * count
    )
    assert found.dtype == dtype
    np.testing.assert_allclose(float(found[0]), value, rtol=1e-2)


@SEVERAL
@given(sizes=st.lists(st.integers(2, 9), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_weights_by_size_are_the_mean_over_examples(sizes, seed):
    rng = np.random.default_rng(seed)
    batches = [(rng.normal(size=(n, 2)).astype(np.float32),) for n in [10, *sizes]]

    def stats_fn(_, x):
        return x.mean(0)

    by_size = jsubspace.reestimate_batch_stats(stats_fn, {}, batches, weights="size")
    np.testing.assert_allclose(by_size, np.concatenate([x for (x,) in batches]).mean(0), rtol=1e-4, atol=1e-5)
    given_weights = jsubspace.reestimate_batch_stats(stats_fn, {}, batches, weights=[len(x) for (x,) in batches])
    np.testing.assert_array_equal(given_weights, by_size)
    alike = jsubspace.reestimate_batch_stats(stats_fn, {}, batches)
    np.testing.assert_allclose(alike, np.mean([x.mean(0) for (x,) in batches], 0), rtol=1e-4, atol=1e-5)


X = np.ones((4, 2), np.float32)


@pytest.mark.parametrize(
    ("batches", "weights", "message"),
    [
        ([X], None, r"batch 0 is a ndarray and not a tuple of arrays\. Write \(images,\)"),
        ([(X,), {"image": X}], None, "batch 1 is a dict and not a tuple"),
        ([()], None, "batch 0 is a tuple and not a tuple of arrays|batch 0"),
        ([(X,), (X[:0],)], None, "batch 1 is empty"),
        ([(X,), (X[:1],)], None, "batch 1 has one example and batch 0 has 4"),
        ([(X,)], "sizes", "weights is 'sizes'"),
        ([(X,), (X,)], [1.0], "batch 1 has the weight nan"),
        ([(X,)], [1.0, 2.0], "more weights than batches"),
        ([(X,)], [-1.0], "batch 0 has the weight -1.0"),
        ([(X,), (X,)], [0.0, 0.0], "the weights of all batches are 0"),
    ],
)
def test_batches_and_weights_that_do_not_fit(batches, weights, message):
    with pytest.raises(ValueError, match=message):
        jsubspace.reestimate_batch_stats(lambda _, x: x.mean(0), {}, batches, weights)


def test_one_example_counts_by_its_weight():
    batches = [(X,), (5 * X[:1],)]
    np.testing.assert_allclose(jsubspace.reestimate_batch_stats(lambda _, x: x.mean(0), {}, batches, "size"), 9 / 5)
    np.testing.assert_allclose(jsubspace.reestimate_batch_stats(lambda _, x: x.mean(0), {}, batches[1:]), 5)


def test_measure_weighs_statistics_by_size():
    """A network whose logits are the statistics: the mean over examples, or the mean over batches."""
    endpoints = {"w": jnp.ones((2, 2, 2))}
    train = [(np.float32([[1, 0]] * 4),), (np.float32([[6, 0]] * 1),)]
    options = {"stats_fn": lambda point, x: x.mean(0), "train_batches": train, "num_points": 3}

    def predict_fn(point, x, stats):
        return jnp.broadcast_to(stats, x.shape)

    def nll(**more):
        test = [(np.zeros((3, 2), np.float32), np.zeros(3, int))]
        return jsubspace.measure(predict_fn, endpoints, jsubspace.Line(), test, **options, **more).center.nll

    assert nll(weights="size") == pytest.approx(math.log1p(math.exp(-2.0)), rel=1e-5)
    with pytest.raises(ValueError, match="batch 1 has one example"):
        nll()


def test_scores_and_ensembles_of_narrow_and_wide_dtypes(x64):
    logits = np.random.default_rng(0).normal(size=(3, 50, 4))
    exact = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mean_probability, mean_logit = jax.jit(ensembles.mean_probability), jax.jit(ensembles.mean_logit)
    wide = np.exp(mean_probability(jnp.asarray(logits)))
    np.testing.assert_allclose(wide, exact.mean(0), rtol=1e-14)
    np.testing.assert_allclose(wide.sum(-1), 1, rtol=1e-14)
    narrow = jnp.asarray(logits, jnp.bfloat16)
    assert jax.eval_shape(mean_probability, narrow).dtype == mean_logit(narrow).dtype == jnp.float32
    assert jax.eval_shape(metrics.score, narrow[0], np.zeros(50, int)).nll.dtype == jnp.float32
    np.testing.assert_allclose(mean_logit(narrow), mean_logit(np.asarray(narrow, np.float32)), rtol=1e-6)


@MANY
@given(percent=st.integers(0, 100), n=st.sampled_from([100, 1000, 50_000]), dtype=st.sampled_from([float, np.float32]))
def test_label_noise_replaces_the_fraction_that_is_written(percent, n, dtype):
    noisy = labels.add_noise(np.full(n, -1, np.int32), dtype(percent / 100), 10)
    assert (noisy >= 0).sum() == n * percent // 100


IMAGES = np.random.default_rng(1).uniform(size=(4, 5, 5, 1)).astype(np.float32)


@jax.jit
def draws_of(key):
    """Endpoints, their own networks, and images that are augmented as one batch and as two halves."""
    endpoints = jsubspace.init_endpoints(key, lambda k: {"w": jax.random.normal(k, (4,))}, 3)["w"]
    own = [jax.random.normal(each, (4,)) for each in jax.random.split(key, 3)]
    whole, *halves = (
        augment.random_crop_and_flip(key, IMAGES[part], jnp.arange(4)[part], 2, True)
        for part in (slice(0, 4), slice(0, 2), slice(2, 4))
    )
    return endpoints, own, whole, halves


@SEVERAL
@given(seed=st.integers(0, 10**6), impl=st.sampled_from(["threefry2x32", "rbg", "unsafe_rbg"]))
def test_random_numbers_do_not_depend_on_the_implementation_of_the_key(seed, impl):
    """Endpoints are those of their own keys, and shares of a batch are augmented as the whole batch."""
    endpoints, own, whole, halves = draws_of(jax.random.key(seed, impl=impl))
    np.testing.assert_array_equal(endpoints, own)
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_the_draws_of_threefry_are_the_draws_of_its_vmap():
    keys = jax.random.split(jax.random.key(3), 4)

    def init(key):
        return {"w": jax.random.normal(key, (4,))}

    found = jax.jit(lambda key: jsubspace.init_endpoints(key, init, 4))(jax.random.key(3))["w"]
    np.testing.assert_array_equal(found, jax.jit(jax.vmap(init))(keys)["w"])
    assert tree.num_endpoints({"w": found}) == 4
