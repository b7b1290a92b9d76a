"""The evaluation against the same done plainly: one point, one ensemble at a time, with numpy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace.evaluation.survey import survey
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import adapters, build, results
from jsubspace.runs import run as lifecycle


@pytest.fixture
def run(tiny_config):
    tiny_config.evaluation.num_points = 5
    return build.build(tiny_config)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@functools.partial(jax.jit, static_argnums=0)
def batch_stats_of(model, point, images):
    return model.apply({"params": point}, images, train=True, mutable=["batch_stats"])[1]["batch_stats"]


@functools.partial(jax.jit, static_argnums=0)
def outputs_of(model, variables, images):
    return model.apply(variables, images, train=False)


def plainly(run, endpoints, alpha):
    """Logits and features [360, ...] of one point, its statistics from one epoch of training batches, in one process."""
    model = run.problem.model.clone(axis_name=None)
    point = jsubspace.interpolate(endpoints, alpha, run.subspace)

    stats_fn = functools.partial(batch_stats_of, model)

    def augmented():
        epoch = itertools.islice(
            run.problem.pipeline.train_batches(run.total_steps), run.problem.pipeline.steps_per_epoch
        )
        for number, batch in enumerate(epoch):
            key, _ = jax.random.split(jax.random.fold_in(run.evaluation_key, number))
            yield (run.problem.pipeline.augment(key, batch["image"], batch["index"]),)

    stats = jsubspace.reestimate_batch_stats(stats_fn, point, augmented())
    images = run.problem.pipeline.preprocess(jnp.asarray(run.problem.pipeline.test.images))
    outputs = outputs_of(model, {"params": point, "batch_stats": stats}, images)
    return np.asarray(outputs.logits, np.float64), np.asarray(outputs.features, np.float64)


def test_all_at_once_is_one_at_a_time(run):
    state = run.devices.run_once(run.init_state)
    measured = results.measure(run, state.endpoints)
    labels = run.problem.pipeline.test.labels
    assert len(labels) == 360  # not a multiple of the batch: the last one counts, its padding does not
    outputs = {alpha: plainly(run, state.endpoints, jnp.float32(alpha)) for alpha in (0, 0.25, 0.5, 0.75, 1)}

    assert [row["alpha"] for row in measured["points"]] == list(outputs)
    assert measured["midpoint"] == "0.50"
    for row in measured["points"]:
        probs = softmax(outputs[row["alpha"]][0])
        assert row["accuracy"] == pytest.approx(np.mean(probs.argmax(-1) == labels), abs=1.1 / 360)
        assert row["nll"] == pytest.approx(-np.log(probs[range(360), labels]).mean(), rel=1e-3)

    for row, (a, b) in zip(measured["ensembles"], [(0, 1), (0.25, 0.75)], strict=True):
        (logits_a, features_a), (logits_b, features_b) = outputs[a], outputs[b]
        p, q = softmax(logits_a), softmax(logits_b)
        mean = (p + q) / 2
        assert row["mean_probability"]["nll"] == pytest.approx(-np.log(mean[range(360), labels]).mean(), rel=1e-3)
        by_logit = softmax((logits_a + logits_b) / 2)
        assert row["mean_logit"]["nll"] == pytest.approx(-np.log(by_logit[range(360), labels]).mean(), rel=1e-3)
        assert row["tv_distance"] == pytest.approx(np.abs(p - q).sum(-1).mean() / 2, rel=1e-3)
        assert row["disagreement"] == pytest.approx(np.mean(p.argmax(-1) != q.argmax(-1)), abs=2.1 / 360)
        dots = np.sum(features_a * features_b, -1) ** 2
        cosine = np.mean(dots / np.sum(features_a**2, -1) / np.sum(features_b**2, -1))
        assert row["feature_cosine_squared"] == pytest.approx(cosine, rel=1e-3)


def test_statistics_from_fewer_batches(run, tiny_config):
    tiny_config.evaluation.num_stats_batches = 1
    plan, endpoints = survey(run.subspace, 3), run.devices.run_once(run.init_state).endpoints
    stats = adapters.batch_stats(run, adapters.evaluator(run, Classification(), plan), endpoints)
    batch = next(run.problem.pipeline.train_batches(run.total_steps))
    key, _ = jax.random.split(jax.random.fold_in(run.evaluation_key, 0))
    images = run.problem.pipeline.augment(key, batch["image"], batch["index"])
    model, point = run.problem.model.clone(axis_name=None), jsubspace.midpoint(jax.device_get(endpoints))
    expected = model.apply({"params": point}, images, train=True, mutable=["batch_stats"])[1]["batch_stats"]
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours[plan.center], theirs, rtol=1e-3, atol=1e-5),
        stats,
        expected,
    )


def test_the_number_of_devices_does_not_matter(run, tiny_config):
    tiny_config.num_devices = 8
    eight = build.build(tiny_config)
    two = results.measure(run, run.devices.run_once(run.init_state).endpoints)
    other = results.measure(eight, eight.devices.run_once(eight.init_state).endpoints)
    for a, b in zip(two["points"], other["points"], strict=True):
        assert a["nll"] == pytest.approx(b["nll"], rel=1e-4)
    np.testing.assert_allclose(two["endpoints"]["kernels"]["l2"], other["endpoints"]["kernels"]["l2"], rtol=1e-6)


def test_data_is_read_once_and_the_programs_are_traced_once(run, monkeypatch):
    traces, read = [], []
    model, test_batches = type(run.problem.model), run.problem.pipeline.test_batches
    call = model.__call__
    monkeypatch.setattr(model, "__call__", lambda *args, **kwargs: traces.append(0) or call(*args, **kwargs))
    monkeypatch.setattr(
        type(run.problem.pipeline), "test_batches", lambda self: (read.append(0) or batch for batch in test_batches())
    )
    plan = survey(run.subspace, 5)
    endpoints = run.devices.run_once(run.init_state).endpoints
    evaluator = adapters.evaluator(run, Classification(), plan)
    traces.clear()
    stats = adapters.batch_stats(run, evaluator, endpoints)
    adapters.on_test_data(run, evaluator, endpoints, stats)
    assert len(read) == 3  # 360 examples in batches of 128, for all five points
    # One training batch size and the smaller last one, and one test batch size; not one a point.
    assert 1 <= len(traces) <= 3


def test_the_table_shows_every_point_and_ensemble(tiny_mlp):
    tiny_mlp.evaluation.num_points = 5
    run = build.build(tiny_mlp)
    measured = results.measure(run, run.devices.run_once(run.init_state).endpoints)
    table = results.table(measured | {"early_stopping": None})
    assert table.count("\n0.") == 4 + 2
    assert "0.50" in table.split("<- midpoint")[0].splitlines()[-1]
    for row in measured["points"]:
        assert (
            f"{row['name']:<14} {row['accuracy']:8.4f}  {row['nll']:6.4f}  {row['brier']:6.4f}  {row['ece']:6.4f}"
            in table
        )


@pytest.mark.parametrize(("name", "m", "rows"), [("point", 0, 1), ("simplex", 3, 1 + 3 + 2 + 3), ("curve", 0, 5)])
def test_every_subspace_is_evaluated(tiny_mlp, name, m, rows):
    tiny_mlp.subspace.name, tiny_mlp.subspace.num_endpoints = name, m
    tiny_mlp.evaluation.num_points, tiny_mlp.evaluation.num_random_points = 5, 2
    run = build.build(tiny_mlp)
    measured = results.measure(run, run.devices.run_once(run.init_state).endpoints)
    assert len(measured["points"]) == rows
    assert all(0 <= row["accuracy"] <= 1 and row["nll"] > 0 for row in measured["points"])
    assert sum(measured["reliability"]["count"]) == 360
    assert results.table(measured | {"early_stopping": None})


def test_spread_by_points_or_by_data(run, tiny_config):
    """Either way the same, also when the devices do not divide the points."""
    endpoints = run.devices.run_once(run.init_state).endpoints
    plan = survey(run.subspace, 5)
    (stats, outcomes), (stats_by_points, outcomes_by_points) = (
        (found, adapters.on_test_data(run, evaluator, endpoints, found))
        for evaluator in (adapters.evaluator(run, Classification(), plan, by_points) for by_points in (False, True))
        for found in [adapters.batch_stats(run, evaluator, endpoints)]
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), stats_by_points, stats)
    np.testing.assert_allclose(outcomes_by_points.points.nll, outcomes.points.nll, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        outcomes_by_points.differences.tv_distance, outcomes.differences.tv_distance, rtol=1e-3, atol=1e-3
    )
    assert outcomes_by_points.points.nll.shape == (5, 360)


def test_measure_agrees_with_the_results_of_a_run(tiny_config, tmp_path):
    """The public function, given the run's network and batches, against results.json: all points and ensembles to 1e-6."""
    tiny_config.optimizer.num_epochs, tiny_config.optimizer.warmup_epochs = 1, 0
    written = lifecycle.train(tiny_config, tmp_path)
    run = build.build(tiny_config)
    endpoints = jax.device_get(lifecycle.trained_endpoints(run, tmp_path))
    model = run.problem.model.clone(axis_name=None)

    def predict_fn(point, images, stats):
        outputs = model.apply({"params": point, "batch_stats": stats}, images, train=False)
        return outputs.logits, outputs.features

    def train_batches():
        for images, _, index, number in adapters.train_batches(run):
            key, _ = jax.random.split(jax.random.fold_in(run.evaluation_key, number[0]))
            yield (run.problem.pipeline.augment(key, images, index),)

    test = run.problem.pipeline.test
    images = np.asarray(run.problem.pipeline.preprocess(jnp.asarray(test.images)))
    report = jsubspace.measure(
        predict_fn,
        endpoints,
        run.subspace,
        [(images[i : i + 128], test.labels[i : i + 128]) for i in range(0, 360, 128)],
        stats_fn=functools.partial(batch_stats_of, model),
        train_batches=train_batches(),
        num_points=tiny_config.evaluation.num_points,
        num_resamples=tiny_config.evaluation.num_resamples,
    )
    found = report.to_json()
    for rows in ("points", "ensembles", "predictors"):
        for ours, theirs in zip(found[rows], written[rows], strict=True):
            assert_close(ours, theirs)
    assert_close(found["endpoints"], written["endpoints"])
    assert_close(found["connector"], written["connector"])
    assert_close(found["reliability"], written["reliability"])


def assert_close(ours, theirs):
    """Equal names, and numbers that agree to 1e-6, in nested dictionaries and lists."""
    if isinstance(ours, dict):
        assert set(ours) == set(theirs)
        for name in ours:
            assert_close(ours[name], theirs[name])
    elif isinstance(ours, list | tuple):
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b)
    elif isinstance(ours, float | int) and not isinstance(ours, bool):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    else:
        assert ours == theirs
