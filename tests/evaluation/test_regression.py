"""Regression against scipy, numerical integrals and scikit-learn, and its intervals in a simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, stats
from sklearn.metrics import root_mean_squared_error

import jsubspace
from jsubspace.evaluation.tasks import Regression

LINE = jsubspace.Line()
N, E = 12, 3


def mixtures(seed=0, d=None):
    """Means, log-variances ``[e, n(, d)]`` and targets ``[n(, d)]``."""
    rng, inner = np.random.default_rng(seed), () if d is None else (d,)
    return rng.normal(size=(E, N, *inner)), rng.normal(size=(E, N, *inner)), 2 * rng.normal(size=(N, *inner))


def per_example(task, mean, log_variance, y):
    @jax.jit
    def found(mean, log_variance, y):
        reduced = [task.reduce(outputs, y) for outputs in zip(mean, log_variance, strict=True)]
        members = tuple(jnp.stack(leaves) for leaves in zip(*reduced, strict=True))
        return task.per_example(members, y)

    values = found(np.float32(mean), np.float32(log_variance), y)
    return {name: np.asarray(value, np.float64) for name, value in values.items()}


def cdf(x, mean, log_variance):
    return np.mean(stats.norm.cdf(x, mean, np.exp(log_variance / 2)))


def test_a_single_gaussian_has_the_closed_forms():
    mean, log_variance, y = mixtures()
    found = per_example(Regression(), mean[:1], log_variance[:1], y)
    scale = np.exp(log_variance[0] / 2)
    z = (y - mean[0]) / scale
    crps = scale * (
        z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    )  # Gneiting and Raftery
    np.testing.assert_allclose(found["crps"], crps, rtol=2e-5)
    np.testing.assert_allclose(found["nll"], -stats.norm.logpdf(y, mean[0], scale), rtol=2e-5)
    inside = np.abs(z) <= stats.norm.ppf(0.95)
    np.testing.assert_array_equal(found["coverage_90"], inside)


def test_a_mixture_agrees_with_numerical_integrals_and_quantiles():
    mean, log_variance, y = mixtures(1)
    task = Regression(levels=(0.5, 0.9), quantiles=(0.05, 0.5))
    found = per_example(task, mean, log_variance, y)
    for i in range(N):
        m, v = mean[:, i], log_variance[:, i]

        def below(x, m=m, v=v):
            return cdf(x, m, v) ** 2

        def above(x, m=m, v=v):
            return (1 - cdf(x, m, v)) ** 2

        crps = integrate.quad(below, -40, y[i], limit=200)[0] + integrate.quad(above, y[i], 40, limit=200)[0]
        assert found["crps"][i] == pytest.approx(crps, rel=1e-4)
        density = np.mean(stats.norm.pdf(y[i], m, np.exp(v / 2)))
        assert found["nll"][i] == pytest.approx(-np.log(density), rel=1e-4)

        def quantile(q, m=m, v=v):
            return optimize.brentq(lambda x: cdf(x, m, v) - q, -60, 60)

        for level in (0.5, 0.9):
            inside = quantile((1 - level) / 2) <= y[i] <= quantile((1 + level) / 2)
            assert found[f"coverage_{100 * level:.0f}"][i] == inside
        assert found["quantile_05"][i] == (y[i] <= quantile(0.05))
        assert found["quantile_50"][i] == (y[i] <= quantile(0.5))


def test_several_outputs_of_an_example_belong_together():
    mean, log_variance, y = mixtures(2, d=2)
    found = per_example(Regression(), mean, log_variance, y)
    of_each = [per_example(Regression(), mean[..., k], log_variance[..., k], y[..., k]) for k in range(2)]
    for name in ("squared_error", "crps", "coverage_50"):
        np.testing.assert_allclose(found[name], (of_each[0][name] + of_each[1][name]) / 2, rtol=1e-5)
    joint = stats.norm.logpdf(y, mean, np.exp(log_variance / 2)).sum(
        -1
    )  # [e, n]: outputs are independent given the member
    np.testing.assert_allclose(found["nll"], -np.log(np.exp(joint).mean(0)), rtol=1e-5)


def lines(seed=0, n=300):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return x, (x.sum(-1) + rng.normal(size=n)).astype(np.float32)


ENDS = {"w": jnp.array([[1.0, 0.5, 1.5], [0.5, 1.5, 1.0]]), "s": jnp.array([0.0, 0.4])}
X, Y = lines()


def predict_fn(point, x):
    return x @ point["w"], point["s"]


def test_the_whole_report():
    report = jsubspace.measure(predict_fn, ENDS, LINE, [(X[:200], Y[:200]), (X[200:], Y[200:])], task=Regression())
    first, last = X @ np.array([1, 0.5, 1.5]), X @ np.array([0.5, 1.5, 1])
    assert report.at(0).rmse == pytest.approx(root_mean_squared_error(Y, first), rel=1e-5)
    ensemble = report.ensemble(0, 1)
    assert ensemble.rmse == pytest.approx(root_mean_squared_error(Y, (first + last) / 2), rel=1e-5)
    densities = stats.norm.pdf(Y, first), stats.norm.pdf(Y, last, np.exp(0.2))
    assert ensemble.nll == pytest.approx(-np.log(np.mean(densities, axis=0)).mean(), rel=1e-5)
    assert ensemble.nll <= (report.at(0).nll + report.at(1).nll) / 2
    low, high = report.center.intervals["coverage_90"]
    expected = stats.binomtest(round(300 * report.center.coverage_90), 300).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert report.connector["verdict"] == "yes"  # The midpoint is better than both ends.
    assert report.connector["difference"] < 0


def test_a_known_scale_is_a_shared_log_variance():
    ends = {"w": ENDS["w"], "s": jnp.full(2, 2 * np.log(0.7))}
    both = [
        jsubspace.measure(function, ends, LINE, [(X, Y)], task=task, num_points=3, num_resamples=0)
        for function, task in ((predict_fn, Regression()), (lambda p, x: x @ p["w"], Regression(scale=0.7)))
    ]
    for a, b in zip(both[0].points, both[1].points, strict=True):
        assert dict(a.scores) == pytest.approx(dict(b.scores), rel=1e-6)


def test_the_best_point_has_a_direction():
    report = jsubspace.measure(predict_fn, ENDS, LINE, validation_batches=[(X, Y)], task=Regression(), num_points=5)
    assert report.best().nll == min(row.nll for row in report.points)
    assert report.best("crps").crps == min(row.crps for row in report.points)
    with pytest.raises(ValueError, match=r"neither higher nor lower is better. Choose by nll, rmse, crps"):
        report.best("coverage_90")


def test_intervals_hold_the_truth_as_often_as_they_say():
    """300 test sets, a model with known scores. The standard error of a fraction is 0.013."""
    rng, n, sets = np.random.default_rng(0), 200, 300
    sigma, task = 1.3, Regression()
    zeros = np.zeros((1, sets * n))
    found = per_example(task, zeros, zeros, sigma * rng.normal(size=sets * n))
    rows = task.scores({name: values.reshape(sets, n) for name, values in found.items()}, num_resamples=200)
    root, pi = np.sqrt(1 + sigma**2), np.pi
    truth = {
        "rmse": sigma,
        "nll": (np.log(2 * pi) + sigma**2) / 2,
        "crps": np.sqrt(2 / pi) * root - 1 / np.sqrt(pi),  # E|X - y| - E|X - X'| / 2
        "coverage_90": 2 * stats.norm.cdf(stats.norm.ppf(0.95) / sigma) - 1,
    }
    for name, value in truth.items():
        held = np.mean([row["intervals"][name][0] <= value <= row["intervals"][name][1] for row in rows])
        assert 0.9 <= held <= 0.99, name
        assert np.mean([row[name] for row in rows]) == pytest.approx(value, rel=0.02)


def test_outputs_that_are_not_finite_are_said_once():
    ends = {"w": ENDS["w"] * jnp.array([[1.0], [jnp.nan]]), "s": ENDS["s"]}
    report = jsubspace.measure(predict_fn, ends, LINE, [(X, Y)], task=Regression(), num_points=3)
    assert report.at(0).nll < 10
    assert np.isnan([report.at(1).nll, report.at(1).coverage_90, report.ensemble(0, 1).crps]).all()
    assert report.connector["verdict"] == "undecided"
    text = report.table()
    assert text.count("2 of 3 points have scores that are not finite, the first at 0.50") == 1


@pytest.mark.parametrize(
    ("predict", "batch", "options", "message"),
    [
        (lambda p, x: x @ p["w"], (X, Y), {}, r"returned float32\[300\]. For this regression it must return \(mean, log_var"),
        (predict_fn, (X, Y), {"scale": 1.0}, "it must return the mean alone, since the task has a scale"),
        (lambda p, x: ((x @ p["w"])[:, None], p["s"]), (X, Y), {}, r"\(float32\[300, 1\], float32\[\]\) for targets .* \[300\]"),
        (lambda p, x: (x, x[:, 0]), (X, X), {}, r"\(float32\[300, 3\], float32\[300\]\) for targets of the shape \[300, 3\]"),
        (lambda p, x: (x[:3], x[:3, 0]), (X[:3], X[:3]), {}, r"so must the log-variance, or be one number"),
        (predict_fn, (X, Y.astype(str)), {}, "the targets of batch 0 are <U.* The targets of a regression are real"),
        (predict_fn, (X, np.where(Y > 1, np.nan, Y)), {}, "a target of batch 0 is not finite"),
        (predict_fn, (X,), {}, "batch 0 is a tuple of length 1. A batch is a tuple of the network's inputs and, last, the targets"),
    ],
)  # fmt: skip
def test_bad_input(predict, batch, options, message):
    with pytest.raises(ValueError, match=message):
        jsubspace.measure(predict, ENDS, LINE, [batch], task=Regression(**options), num_points=3)


@pytest.mark.parametrize("options", [{"scale": 0}, {"scale": np.nan}, {"scale": "1"}, {"levels": (0, 0.5)}, {"levels": 0.5},
                                     {"quantiles": (1.0,)}, {"quantiles": ("a",)}])  # fmt: skip
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Regression(**options)


def test_there_is_a_warning_of_targets_that_float32_rounds(x64):
    """And none of ordinary targets. A batch of nearly equal targets may warn, and is not refused."""
    task, seconds = Regression(scale=1.0), 1.7e9 + np.arange(40.0)
    task.check_targets(0, seconds)  # float64 keeps them.
    with jax.enable_x64(False):
        with pytest.warns(UserWarning, match=r"float32 rounds them by up to .*subtract the mean of all targets"):
            task.check_targets(0, seconds)
        task.check_targets(0, seconds - seconds.mean())
        task.check_targets(0, np.tanh(np.linspace(-10, 10, 1000)))
        task.check_targets(0, np.full(3, 0.1))


def test_levels_have_names_of_their_own():
    assert Regression(levels=(0.975, 0.99), quantiles=(0.05, 0.005)).fractions == (
        "coverage_97_5", "coverage_99", "quantile_05", "quantile_00_5"
    )  # fmt: skip
