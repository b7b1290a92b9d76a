"""Uncertainty: every number against a definition written out or another library, intervals by simulation, and what is refused."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.metrics

import jsubspace
from jsubspace import Line, Point, Simplex
from jsubspace.evaluation import bounds, ensembles
from jsubspace.evaluation.uncertainty import conformal, detection, entropies, selective, temperature

CLASSES = 4


def init_fn(key):
    """It reads the class from the first inputs, with an error and too much certainty."""
    return {"kernel": 2 * jnp.eye(6, CLASSES) + jax.random.normal(key, (6, CLASSES))}


def predict_fn(point, x):
    return x @ point["kernel"]


def examples(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, 6)) + shift).astype(np.float32)
    return x, np.argmax(x[:, :CLASSES] + rng.normal(size=(n, CLASSES)), axis=-1)


def cut(arrays, size=64):
    return [tuple(array[i : i + size] for array in arrays) for i in range(0, len(arrays[0]), size)]


@pytest.fixture(scope="module")
def endpoints():
    return jsubspace.init_endpoints(jax.random.key(0), init_fn, 2)


@pytest.fixture(scope="module")
def report(endpoints):
    return jsubspace.uncertainty(
        predict_fn,
        endpoints,
        Line(),
        validation_batches=cut(examples(500, 0)),
        test_batches=cut(examples(300, 1)),
        outside_batches=cut(examples(200, 2, shift=1.0)),
        num_resamples=20,
    )


def probabilities(endpoints, x, alpha):
    point = np.asarray(jsubspace.interpolate(endpoints, alpha)["kernel"], np.float64)
    return scipy.special.softmax(x @ point, axis=-1)


def predictors(endpoints, x):
    """Probabilities of the midpoint, the two ends and the ensemble of the ends, in the order of the report."""
    center, first, last = (probabilities(endpoints, x, alpha) for alpha in (0.5, 0.0, 1.0))
    return [center, first, last, (first + last) / 2]


def test_the_networks_of_a_report(report):
    assert [row.name for row in report.rows] == ["0.50", "0.00", "1.00", "0.00 & 1.00"]
    assert report.center is report.rows[0]
    assert report.ensembles[0].members == ("0.00", "1.00")


def test_scores_entropies_and_detection_by_definition(report, endpoints):
    (x, y), (away, _) = examples(300, 1), examples(200, 2, shift=1.0)
    for row, p, q in zip(report.rows, predictors(endpoints, x), predictors(endpoints, away), strict=True):
        assert row.scores["accuracy"] == pytest.approx(np.mean(p.argmax(-1) == y))
        assert row.scores["nll"] == pytest.approx(sklearn.metrics.log_loss(y, p, labels=range(CLASSES)), rel=1e-5)
        assert row.entropy == pytest.approx(scipy.stats.entropy(p, axis=-1).mean(), rel=1e-5)
        labels = np.repeat([0, 1], [300, 200])
        for name, score in (
            ("entropy", lambda p: scipy.stats.entropy(p, axis=-1)),
            ("confidence", lambda p: -p.max(-1)),
        ):
            expected = sklearn.metrics.roc_auc_score(labels, np.concatenate([score(p), score(q)]))
            found = row.detection[name]
            assert found.auroc == pytest.approx(expected, abs=2e-4)
            assert found.auroc_interval[0] < found.auroc < found.auroc_interval[1]
            accepted = np.sort(score(p))[math.ceil(0.95 * 300) - 1]
            assert found.fpr95 == pytest.approx(np.mean(score(q) <= accepted), abs=0.006)


def test_mutual_information_by_definition(report, endpoints):
    (x, _), (away, _) = examples(300, 1), examples(200, 2, shift=1.0)

    def information(x):
        _, first, last, pooled = predictors(endpoints, x)
        members = (scipy.stats.entropy(first, axis=-1) + scipy.stats.entropy(last, axis=-1)) / 2
        return scipy.stats.entropy(pooled, axis=-1) - members

    found = report.ensembles[0]
    assert found.mutual_information == pytest.approx(information(x).mean(), rel=1e-4)
    labels = np.repeat([0, 1], [300, 200])
    expected = sklearn.metrics.roc_auc_score(labels, np.concatenate([information(x), information(away)]))
    assert found.detection["mutual_information"].auroc == pytest.approx(expected, abs=2e-4)
    assert report.center.mutual_information is None
    assert "mutual_information" not in report.center.detection


def test_every_mean_and_temperature_has_an_interval_around_it(report):
    for row in report.rows:
        assert ("mutual_information" in row.intervals) == (row.mutual_information is not None)
        for name, (low, high) in row.intervals.items():
            assert low < getattr(row, name) < high
        for sets in row.conformal.values():
            assert sets.size_interval[0] < sets.size < sets.size_interval[1]


@pytest.mark.parametrize("n", [40, 400])
def test_intervals_of_temperatures_cover(n):
    """Labels are drawn from logits that are 2.5 times too large."""
    rng, true, missed = np.random.default_rng(n), 2.5, 0
    logits = rng.normal(size=(400, n, 4)) * 3
    labels = (scipy.special.log_softmax(logits / true, -1) + rng.gumbel(size=logits.shape)).argmax(-1)
    derivatives = jax.jit(jax.vmap(temperature.derivatives))(
        jnp.asarray(jax.nn.log_softmax(logits)), jnp.asarray(labels)
    )
    for found in np.asarray(derivatives):
        low, high = temperature.interval(found)
        missed += not low <= true <= high
    assert 0.93 - 2 * (0.95 * 0.05 / 400) ** 0.5 < 1 - missed / 400 < 0.99


def test_the_interval_of_one_examples_temperature_is_everything():
    derivatives = temperature.derivatives(jnp.log(jnp.array([[0.7, 0.3]])), jnp.array([0]))
    assert temperature.interval(np.asarray(derivatives)) == (temperature.LOWEST, temperature.HIGHEST)


def test_temperatures_by_another_minimiser(report, endpoints):
    """An ensemble is scaled after its members are pooled."""
    (x, y), (x_test, y_test) = examples(500, 0), examples(300, 1)
    for row, p, q in zip(report.rows, predictors(endpoints, x), predictors(endpoints, x_test), strict=True):

        def nll(t, p=p, y=y):
            return -scipy.special.log_softmax(np.log(p) / t, axis=-1)[np.arange(len(y)), y].mean()

        expected = scipy.optimize.minimize_scalar(nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
        assert row.temperature == pytest.approx(expected, rel=1e-4)
        assert row.scaled["nll"] == pytest.approx(nll(row.temperature, q, y_test), rel=1e-5)
        assert row.scaled["accuracy"] == row.scores["accuracy"]


@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_a_planted_temperature(scale):
    """Labels that are drawn from the softmax of z have the temperature t where the logits are t z."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(4000, 5)) * 2
    labels = (z + rng.gumbel(size=z.shape)).argmax(-1)
    log_probs = ensembles.log_probabilities(jnp.asarray(scale * z, jnp.float32))
    found = temperature.fitted(np.asarray(temperature.derivatives(log_probs, jnp.asarray(labels))).mean(-1))
    assert found == pytest.approx(scale, rel=0.05)


def test_temperatures_without_a_minimum():
    right = jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8]]))
    means = [np.asarray(temperature.derivatives(right, jnp.array(y))).mean(-1) for y in ([0, 1], [1, 0])]
    assert [temperature.fitted(each) for each in means] == [temperature.LOWEST, temperature.HIGHEST]
    impossible = temperature.derivatives(jnp.log(jnp.array([[1.0, 0.0]])), jnp.array([1]))
    with pytest.raises(ValueError, match="calls the label impossible"):
        temperature.fitted(np.asarray(impossible).mean(-1))
    possible = temperature.derivatives(jnp.log(jnp.array([[0.6, 0.4, 0.0]])), jnp.array([1]))
    two = temperature.derivatives(jnp.log(jnp.array([[0.6, 0.4]])), jnp.array([1]))
    np.testing.assert_allclose(possible, two, rtol=1e-5)


def test_sets_by_definition(report, endpoints):
    """The adaptive scores are made again, class by class, with the uniform numbers of the report."""
    x, y = examples(500, 0)
    x_test, y_test = examples(300, 1)
    for row, p, q in zip(report.rows, predictors(endpoints, x), predictors(endpoints, x_test), strict=True):
        drawn = [np.random.default_rng(seed) for seed in (0, 1)]
        u, v = (
            np.concatenate([rng.uniform(size=len(batch[1])).astype(np.float32) for batch in cut(data)])
            for rng, data in zip(drawn, ((x, y), (x_test, y_test)), strict=True)
        )

        def adaptive(p, u):
            return np.array(
                [[row[row > own].sum() + draw * own for own in row] for row, draw in zip(p, u, strict=True)]
            )

        for kind, calibration, new in (
            ("threshold", 1 - p, 1 - q),
            ("adaptive", adaptive(p, u), adaptive(q, v)),
        ):
            of_labels = np.sort(calibration[np.arange(500), y])
            limit = of_labels[math.ceil(501 * 0.9) - 1]
            sets = new <= limit
            found = row.conformal[kind]
            assert found.threshold == pytest.approx(limit, abs=1e-5)
            assert found.size == pytest.approx(sets.sum(-1).mean(), abs=0.01)
            assert found.coverage == pytest.approx(sets[np.arange(300), y_test].mean(), abs=0.005)
            by_class = [sets[y_test == k, k].mean() for k in range(CLASSES)]
            np.testing.assert_allclose(found.by_class, by_class, atol=0.02)
            assert np.all(found.by_class_intervals[:, 0] <= found.by_class)


@pytest.mark.parametrize("kind", conformal.KINDS)
def test_sets_hold_the_label_as_often_as_promised(kind):
    """500 calibrations with 39 examples each: the mean coverage lies between 1 - a and 1 - a + 1 / 40, for a bad network too."""
    rng, n, miscoverage, covered = np.random.default_rng(5), 39, 0.1, []
    scores = jax.jit(lambda probs, u: conformal.scores(probs, u, kind))
    for _ in range(500):
        probs = scipy.special.softmax(3 * rng.normal(size=(n + 20, CLASSES)), axis=-1).astype(np.float32)
        labels, u = rng.integers(0, CLASSES, n + 20), rng.uniform(size=n + 20).astype(np.float32)
        found = np.asarray(scores(probs, u))[np.arange(n + 20), labels]
        covered.append(np.mean(found[n:] <= conformal.quantile(found[:n], miscoverage)))
    error = np.std(covered) / math.sqrt(len(covered))
    assert 0.9 - 3 * error <= np.mean(covered) <= 0.9 + 1 / (n + 1) + 3 * error


def test_too_few_examples_for_a_threshold():
    assert conformal.quantile(np.arange(8) / 8, 0.1) == math.inf
    found = conformal.coverage(np.ones(3), np.full(3, 2), np.array([0, 0, 1]), 3, math.inf)
    assert found.to_json()["threshold"] is None
    assert found.to_json()["by_class"] == [1.0, 1.0, None]


def test_the_curve_of_risks_by_definition():
    rng = np.random.default_rng(0)
    confidence, correct = rng.uniform(size=60), rng.integers(0, 2, 60)
    order = np.argsort(-confidence)
    risks = [1 - correct[order][:k].mean() for k in range(1, 61)]
    found = selective.selective(confidence, correct, num_resamples=0)
    assert found.aurc == pytest.approx(np.mean(risks))
    np.testing.assert_allclose(found.risk, risks)
    assert found.coverage[-1] == 1
    assert found.risk[-1] == pytest.approx(1 - correct.mean())
    best = selective.selective(correct.astype(float), correct, num_resamples=0)
    assert found.excess_aurc == pytest.approx(found.aurc - best.aurc)


def test_equal_confidences_have_no_order():
    confidence, correct = np.array([0.9, 0.5, 0.5, 0.5]), np.array([1, 0, 0, 1])
    areas = [
        selective.selective(np.array([0.9, *c]), correct, num_resamples=0).aurc
        for c in itertools.permutations((0.5, 0.4, 0.3))
    ]
    assert selective.selective(confidence, correct, num_resamples=0).aurc == pytest.approx(np.mean(areas))


def test_entropies_at_the_edge():
    certain, even = jnp.log(jnp.array([1.0, 0.0])), jnp.log(jnp.array([0.5, 0.5]))
    assert float(entropies.entropy(certain)) == 0
    assert jnp.isnan(entropies.entropy(jnp.array([jnp.nan, 0.0])))
    members = jnp.stack([certain[None], certain[None, ::-1]])
    assert float(entropies.mutual_information(members)[0]) == pytest.approx(math.log(2))
    assert float(entropies.mutual_information(jnp.stack([even[None], even[None]]))[0]) == 0


@pytest.mark.parametrize(("n", "q", "shift", "scale"), [(80, 60, 1.0, 1.0), (100, 400, 3.5, 1.0), (60, 200, 1.5, 3.0)])
def test_intervals_of_detection_hold_the_truth(n, q, shift, scale):
    """Normal scores, of which both numbers are known. 400 samples each."""
    rng, hits = np.random.default_rng(0), np.zeros(2)
    truth = (
        scipy.stats.norm.cdf(shift / math.hypot(1, scale)),
        scipy.stats.norm.cdf((scipy.stats.norm.ppf(0.95) - shift) / scale),
    )
    for _ in range(400):
        found = detection.detect(rng.normal(size=n), rng.normal(shift, scale, q), num_resamples=200)
        for i, (low, high) in enumerate((found.auroc_interval, found.fpr95_interval)):
            hits[i] += low <= truth[i] <= high
    assert hits.min() / 400 > 0.92


def test_the_interval_of_the_area_under_the_risks_holds_the_truth():
    rng = np.random.default_rng(0)

    def sample(resamples):
        confidence = rng.uniform(0.5, 1, 100)
        return selective.selective(confidence, rng.uniform(size=100) < confidence, resamples)

    truth = np.mean([sample(0).aurc for _ in range(1500)])
    hits = sum(low <= truth <= high for low, high in (sample(100).aurc_interval for _ in range(300)))
    assert hits / 300 > 0.9
    low, high = selective.selective(np.arange(50.0), np.ones(50)).aurc_interval
    assert low == 0 < high < 0.1


@pytest.mark.parametrize("n", [2, 5, 50])
def test_errors_alone_are_no_certainty_about_the_area(n):
    """A network with the error rate r has at least the area of one whose errors all come last."""
    low, high = selective.selective(np.arange(float(n)), np.zeros(n)).aurc_interval
    rate = bounds.of_fraction(np.array(n), n)[0]
    coverage = np.linspace(0, 1, 200_001)[1:]
    assert low == pytest.approx(np.maximum(1 - (1 - rate) / coverage, 0).mean(), abs=1e-4)
    assert high == 1


@pytest.mark.parametrize(("n", "error", "power"), [(100, 0.01, 0), (100, 0.02, 1), (400, 0.01, 0)])
def test_the_interval_of_the_area_covers_with_few_errors(n, error, power):
    """About one to four errors. With the quantile of a normal variable, the upper bound would be too low in every sixth case."""

    def drawn(rng, size):
        confidence = np.sort(rng.uniform(size=size))
        chance = error * (power + 1) * (1 - confidence) ** power
        return confidence, rng.uniform(size=size) >= chance, chance

    *_, chance = drawn(np.random.default_rng(0), 500_000)
    truth = (np.cumsum(chance[::-1]) / np.arange(1, len(chance) + 1)).mean()
    rng, missed = np.random.default_rng(1), 0
    for _ in range(150):
        low, high = selective.selective(*drawn(rng, n)[:2], num_resamples=100).aurc_interval
        missed += not low <= truth <= high
    assert 1 - missed / 150 > 0.92


def test_each_batch_is_read_once(endpoints):
    read = []

    def batches(name, count):
        for i in range(count):
            read.append((name, i))
            yield tuple(array[20 * i : 20 * (i + 1)] for array in examples(100, 0))

    jsubspace.uncertainty(
        predict_fn,
        endpoints,
        Line(),
        validation_batches=batches("validation", 5),
        test_batches=batches("test", 4),
        outside_batches=batches("outside", 3),
        num_resamples=0,
    )
    assert read == [("validation", i) for i in range(5)] + [("test", i) for i in range(4)] + [
        ("outside", i) for i in range(3)
    ]


def test_other_subspaces_and_a_table():
    data = {"validation_batches": cut(examples(100, 0)), "test_batches": cut(examples(80, 1)), "num_resamples": 0}
    for subspace, networks in ((Point(), 1), (Simplex(3), 5)):
        start = jsubspace.init_endpoints(jax.random.key(1), init_fn, subspace)
        found = jsubspace.uncertainty(predict_fn, start, subspace, **data)
        assert len(found.rows) == networks
        lines = found.table().splitlines()
        assert len(lines) == 1 + networks
        assert "AUROC" not in lines[0]
        assert "size of 90 % set" in lines[0]
        assert set(found.to_json()) == {"subspace", "miscoverage", "points", "ensembles"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation_batches": []}, "validation_batches: there is no test batch|validation_batches: .*no"),
        (
            {"outside_batches": [(np.zeros((5, 3)),)]},
            r"outside_batches: the inputs of batch 0 have examples of the shapes \[3\], .*\[6\]",
        ),
        ({"test_batches": [(np.zeros((5, 6)), np.zeros(5))]}, "test_batches: the last array|integers"),
        ({"test_batches": [(np.zeros((5, 6)), np.full(5, 9))]}, "test_batches: .*a label is no class"),
        ({"validation_batches": [(np.zeros((5, 6)), np.full(5, 9))]}, "validation_batches: a label is no class"),
        ({"test_batches": [np.zeros((5, 6))]}, "test_batches: batch 0 is a ndarray"),
        ({"miscoverage": 0}, "miscoverage is 0"),
        ({"seed": -1}, "seed is -1, but it must be at least 0"),
        ({"seed": "a"}, "seed is 'a', but it must be an integer"),
        ({"num_bins": 0}, "num_bins is 0, but it must be at least 1"),
        ({"num_resamples": 1}, "num_resamples is 1, but it must be 0 for no intervals, or at least 20"),
        ({"weights": "bogus"}, "weights is 'bogus'"),
        (
            {"outside_batches": [([[1.0], [1.0, 2.0]],)]},
            "outside_batches: a member of batch 0 is a list that is no array",
        ),
        ({"stats_fn": len}, "stats_fn and train_batches belong together"),
        ({"subspace": Simplex(3)}, "has 3 endpoints but 2 were given"),
    ],
    ids=str,
)
def test_what_is_refused(endpoints, change, message):
    options = {
        "validation_batches": cut(examples(50, 0)),
        "test_batches": cut(examples(50, 1)),
        "subspace": Line(),
    } | change
    subspace = options.pop("subspace")
    with pytest.raises(ValueError, match=message):
        jsubspace.uncertainty(predict_fn, endpoints, subspace, **options)


def test_scores_that_are_not_numbers():
    for function in (
        lambda: detection.detect(np.array([np.nan]), np.ones(2)),
        lambda: detection.detect(np.ones(0), np.ones(2)),
    ):
        with pytest.raises(ValueError, match="inside"):
            function()
    with pytest.raises(ValueError, match="1 of 2 confidences are NaN"):
        selective.selective(np.array([0.5, np.nan]), np.ones(2))
