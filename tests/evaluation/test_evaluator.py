"""The evaluation against the same done plainly: one point, one ensemble at a time, with numpy."""

import functools
import itertools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import tiny_settings

import jsubspace
from jsubspace.evaluation.survey import survey
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import adapters, build, results


def built(data_dir, **settings):
    """A run with BatchNorm and five points."""
    config = tiny_settings(data_dir)
    config.evaluation.num_points = 5
    config.update(settings)
    return build.build(config)


@pytest.fixture(scope="module")
def run(data_dir):
    return built(data_dir)


@pytest.fixture(scope="module")
def endpoints(run):
    return run.devices.run_once(run.init_state).endpoints


@pytest.fixture(scope="module")
def measured(run, endpoints):
    return results.measure(run, endpoints)


@pytest.fixture(scope="module")
def by_data(run, endpoints):
    """The evaluator of five points, what it found, and how often it traced the network and read the test data."""
    traces, read = [], []
    model, pipeline = type(run.problem.model), run.problem.pipeline
    call, test_batches = model.__call__, pipeline.test_batches
    plan = survey(run.subspace, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "__call__", lambda *args, **kwargs: traces.append(0) or call(*args, **kwargs))
        patch.setattr(
            type(pipeline), "test_batches", lambda self: (read.append(0) or batch for batch in test_batches())
        )
        evaluator = adapters.evaluator(run, Classification(), plan)
        stats = adapters.batch_stats(run, evaluator, endpoints)
        outcomes = adapters.on_test_data(run, evaluator, endpoints, stats)
    return types.SimpleNamespace(
        evaluator=evaluator, plan=plan, stats=stats, outcomes=outcomes, traces=len(traces), read=len(read)
    )


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@functools.partial(jax.jit, static_argnums=0)
def batch_stats_of(model, point, images):
    return model.apply({"params": point}, images, train=True, mutable=["batch_stats"])[1]["batch_stats"]


@functools.partial(jax.jit, static_argnums=0)
def outputs_of(model, variables, images):
    return model.apply(variables, images, train=False)


def plainly(run, endpoints, alphas):
    """Logits and features [360, ...] of each point, its statistics from one epoch of training batches, in one process."""
    model, pipeline = run.problem.model.clone(axis_name=None), run.problem.pipeline
    stats_fn = functools.partial(batch_stats_of, model)
    interpolate = jax.jit(lambda alpha: jsubspace.interpolate(endpoints, alpha, run.subspace))
    images = pipeline.preprocess(jnp.asarray(pipeline.test.images))
    epoch = list(augmented(run, itertools.islice(pipeline.train_batches(run.total_steps), pipeline.steps_per_epoch)))
    for alpha in alphas:
        point = interpolate(jnp.float32(alpha))
        stats = jsubspace.reestimate_batch_stats(stats_fn, point, epoch)
        outputs = outputs_of(model, {"params": point, "batch_stats": stats}, images)
        yield np.asarray(outputs.logits, np.float64), np.asarray(outputs.features, np.float64)


def augmented(run, batches):
    """The images of training batches as the evaluation sees them."""
    augment = jax.jit(run.problem.pipeline.augment)
    for number, batch in enumerate(batches):
        key, _ = jax.random.split(jax.random.fold_in(run.evaluation_key, number))
        yield (augment(key, batch["image"], batch["index"]),)


def test_all_at_once_is_one_at_a_time(run, endpoints, measured):
    labels = run.problem.pipeline.test.labels
    assert len(labels) == 360  # not a multiple of the batch: the last one counts, its padding does not
    alphas = (0, 0.25, 0.5, 0.75, 1)
    outputs = dict(zip(alphas, plainly(run, jax.device_get(endpoints), alphas), strict=True))

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


def test_statistics_from_fewer_batches(data_dir, endpoints, by_data):
    run = built(data_dir)
    run.evaluation.num_stats_batches = 1
    stats = adapters.batch_stats(run, by_data.evaluator, endpoints)
    ((images,),) = augmented(run, itertools.islice(run.problem.pipeline.train_batches(run.total_steps), 1))
    point = jax.jit(jsubspace.midpoint)(jax.device_get(endpoints))
    expected = batch_stats_of(run.problem.model.clone(axis_name=None), point, images)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours[by_data.plan.center], theirs, rtol=1e-3, atol=1e-5),
        stats,
        expected,
    )


def test_the_number_of_devices_does_not_matter(measured, data_dir):
    eight = built(data_dir, num_devices=8)
    other = results.measure(eight, eight.devices.run_once(eight.init_state).endpoints)
    for a, b in zip(measured["points"], other["points"], strict=True):
        assert a["nll"] == pytest.approx(b["nll"], rel=1e-4)
    np.testing.assert_allclose(measured["endpoints"]["kernels"]["l2"], other["endpoints"]["kernels"]["l2"], rtol=1e-6)


def test_data_is_read_once_and_the_programs_are_traced_once(by_data):
    assert by_data.read == 3  # 360 examples in batches of 128, for all five points
    # One training batch size and the smaller last one, and one test batch size; not one a point.
    assert 1 <= by_data.traces <= 3


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


def test_spread_by_points_or_by_data(run, endpoints, by_data):
    """Either way the same, also when the devices do not divide the points."""
    evaluator = adapters.evaluator(run, Classification(), by_data.plan, by_points=True)
    stats = adapters.batch_stats(run, evaluator, endpoints)
    outcomes, expected = adapters.on_test_data(run, evaluator, endpoints, stats), by_data.outcomes
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), stats, by_data.stats)
    np.testing.assert_allclose(outcomes.points.nll, expected.points.nll, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(outcomes.differences.tv_distance, expected.differences.tv_distance, rtol=1e-3, atol=1e-3)
    assert outcomes.points.nll.shape == (5, 360)


def test_measure_agrees_with_the_results_of_a_run(run, endpoints, measured):
    """The public function, given the run's network and batches, against results.json: all points and ensembles to 1e-6."""
    written = json.loads(json.dumps(measured))
    model = run.problem.model.clone(axis_name=None)

    def predict_fn(point, images, stats):
        outputs = model.apply({"params": point, "batch_stats": stats}, images, train=False)
        return outputs.logits, outputs.features

    pipeline = run.problem.pipeline
    test = pipeline.test
    images = np.asarray(pipeline.preprocess(jnp.asarray(test.images)))
    report = jsubspace.measure(
        predict_fn,
        jax.device_get(endpoints),
        run.subspace,
        [(images[i : i + 128], test.labels[i : i + 128]) for i in range(0, 360, 128)],
        stats_fn=functools.partial(batch_stats_of, model),
        train_batches=augmented(
            run, itertools.islice(pipeline.train_batches(run.total_steps), pipeline.steps_per_epoch)
        ),
        num_points=run.evaluation.num_points,
        num_resamples=run.evaluation.num_resamples,
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
