"""Every method that a subspace is compared with: trained and evaluated on the digits, by the config alone."""

import json
import pathlib

import jax
import numpy as np
import pytest
from whole_runs import tiny_settings

import jsubspace
from jsubspace import compare, evaluate, runs
from jsubspace.errors import UsageError
from jsubspace.preemption import Preemption
from jsubspace.runs import build, config, limits, methods, results, stacks
from jsubspace.runs.run import train_endpoints
from jsubspace.runs.settings import added_later
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.writer import read_rows
from jsubspace.training.parallel import DataParallel


def settings_of_mlp(data_dir):
    settings = tiny_settings(data_dir)
    settings.model.name, settings.model.depth, settings.model.width = "mlp", 1, 32
    settings.optimizer.num_epochs = 8
    settings.checkpoint_every_epochs = 4
    settings.log_every_steps = 24
    settings.evaluation.num_resamples = 20
    settings.evaluation.num_random_points = 2
    settings.num_devices = 1
    return settings


@pytest.fixture
def mlp(data_dir):
    """A multilayer perceptron with one small hidden layer: a second or two a run."""
    return settings_of_mlp(data_dir)


def saved(workdir, step=None):
    """The endpoints of a checkpoint, as numpy arrays."""
    with Checkpoints(pathlib.Path(workdir) / "checkpoints", read_only=True) as checkpoints:
        found = checkpoints.restore_part("endpoints", DataParallel(tuple(jax.devices()[:1])).replicated, step)
    return jax.tree.map(np.asarray, found)


def point(measured, name):
    return next(row for row in measured["points"] if row["name"] == name)


def names(rows):
    return [row["name"] for row in rows]


@pytest.mark.parametrize(
    ("schedule", "epochs"),
    [
        ("swa_cyclic", (6, 7, 8)),
        pytest.param("swa_constant", (14, 15, 16), marks=pytest.mark.slow),
        ("snapshot", (3, 5, 8)),
        pytest.param("fast_geometric", (16, 18, 20), marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("no_figures")
def test_collected_networks_are_evaluated_as_a_simplex(mlp, tmp_path, schedule, epochs):
    """SWA is its center, the ensemble of checkpoints its corners, SWA-Gaussian and random averages are drawn from it."""
    mlp.subspace.name = "point"
    mlp.optimizer.num_epochs, mlp.optimizer.schedule, mlp.optimizer.num_collected = epochs[-1], schedule, 3
    kinds = ["random", "gaussian"]  # by default
    if schedule == "swa_cyclic":
        kinds = ["random", "layerwise", "weightwise", "gaussian"]
        mlp.evaluation.random_points = ",".join(kinds)
    mlp.keep_checkpoints = 1
    measured = runs.train(mlp, tmp_path / "run")
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [12 * epoch for epoch in epochs]
    assert measured["subspace"] == "Simplex(num_endpoints=3)"
    networks = [saved(tmp_path / "run", 12 * epoch) for epoch in epochs]
    stack = jax.tree.map(lambda *leaves: np.concatenate(leaves), *networks)
    np.testing.assert_allclose(
        measured["endpoints"]["kernels"]["l2"], np.asarray(jsubspace.distances(stack)), rtol=1e-4, atol=1e-4
    )

    run = build.build(mlp)
    images = run.problem.pipeline.preprocess(np.asarray(run.problem.pipeline.test.images))
    true_class = np.arange(360), run.problem.pipeline.test.labels

    @jax.jit
    def log_probs(network):
        return jax.nn.log_softmax(run.problem.model.apply({"params": network}, images, train=False).logits)

    center = np.asarray(log_probs(jax.tree.map(lambda leaf: leaf.mean(0), stack)))
    assert point(measured, "center")["nll"] == pytest.approx(-np.mean(center[true_class]), rel=1e-3)
    corners = [np.asarray(log_probs(jax.tree.map(lambda leaf, i=i: leaf[i], stack))) for i in range(3)]
    mean = np.log(np.mean(np.exp(corners), axis=0))
    ensemble = next(row for row in measured["ensembles"] if row["name"] == "all corners")
    assert ensemble["mean_probability"]["nll"] == pytest.approx(-np.mean(mean[true_class]), rel=1e-3)
    assert names(measured["ensembles"]) == ["all corners", *(f"2 {kind}" for kind in kinds)]
    assert names(measured["predictors"]) == ["center", *names(measured["ensembles"])]
    mesh = [row for row in measured["points"] if row["kind"] == "mesh"]
    assert len({row["nll"] for row in measured["points"]}) == 1 + 3 + 2 * len(kinds) + len(mesh)  # all different
    assert mesh


@pytest.mark.usefixtures("no_figures")
def test_early_stopping_is_the_best_test_during_training(mlp, tmp_path):
    mlp.subspace.name, mlp.evaluation.every_epochs = "point", 3
    measured = runs.train(mlp, tmp_path / "run")
    tests = read_rows(tmp_path / "run", "test")
    assert [row["epoch"] for row in tests] == [3, 6, 8]
    assert measured["early_stopping"]["accuracy"] == max(row["accuracy"] for row in tests)
    assert tests[-1]["nll"] == pytest.approx(point(measured, "network")["nll"], rel=1e-5)


def test_label_smoothing_dropout_and_sharpness_aware_minimisation_change_the_training(mlp, tmp_path):
    mlp.subspace.name, mlp.optimizer.num_epochs, mlp.optimizer.warmup_epochs = "point", 1, 0
    mlp.data.batch_size, ends = 479, []
    for field, given in (
        ("seed", mlp.seed),
        ("optimizer.label_smoothing", 0.2),
        ("model.dropout_rate", 0.2),
        ("optimizer.sam_rho", 0.1),
    ):
        settings = mlp.copy_and_resolve_references()
        config.change(settings, field, str(given))
        (tmp_path / field).mkdir()
        train_endpoints(build.build(settings), tmp_path / field, Preemption())
        ends.append(jax.tree.leaves(saved(tmp_path / field))[0].tobytes())
    assert len(set(ends)) == 4


def test_sharpness_aware_minimisation_takes_the_gradient_uphill(mlp):
    """One step of the run's own program against Foret et al.'s two lines."""
    mlp.subspace.name, mlp.optimizer.sam_rho, mlp.num_devices = "point", 0.5, 1
    mlp.optimizer.weight_decay = 0.0
    run = build.build(mlp)
    state, batch = run.devices.run_once(run.init_state), next(run.problem.data.train_batches(0, run.shard))
    before = jax.tree.map(np.array, state.endpoints)  # copies: the step reuses the memory
    step = run.compiled_step()
    after, _ = step(state, next(run.devices.put_batches([batch])), run.devices.put(run.key))

    _, augment_key, _ = jax.random.split(jax.random.fold_in(run.key, 0), 3)
    images = run.problem.pipeline.augment(augment_key, batch[0], batch[2])

    @jax.jit
    @jax.grad
    def gradient(network):
        log_probs = jax.nn.log_softmax(run.problem.model.apply({"params": network}, images, train=True).logits)
        return -log_probs[np.arange(128), batch[1]].mean()

    network = jsubspace.unstack(before)[0]
    g = gradient(network)
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(g)))
    uphill = gradient(jax.tree.map(lambda w, g: w + 0.5 * g / norm, network, g))
    rate = float(run.schedule(0))
    expected = jax.tree.map(lambda w, g: w - rate * g, network, uphill)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours[0], theirs, rtol=1e-4, atol=1e-6),
        after.endpoints,
        expected,
    )


@pytest.fixture(scope="module")
def two_runs(data_dir, tmp_path_factory):
    """The folders of two independent networks, trained."""
    folders = []
    for seed in (0, 1):
        settings, folder = settings_of_mlp(data_dir), tmp_path_factory.mktemp("runs") / f"seed{seed}"
        settings.subspace.name, settings.seed = "point", seed
        runs.train(settings, folder)
        folders.append(folder)
    return folders


@pytest.mark.parametrize("name", ["curve", pytest.param("chain", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("no_figures")
def test_independent_networks_are_ensembled_and_connected(name, mlp, two_runs, tmp_path):
    together = mlp.copy_and_resolve_references()
    together.start.runs = ",".join(map(str, two_runs))
    together.subspace.name, together.subspace.num_endpoints = "simplex", 2
    together.optimizer.num_epochs = 0
    stacked = runs.train(together, tmp_path / "ensemble")
    singles = [json.loads((folder / "results.json").read_text())["points"][0] for folder in two_runs]
    for i, single in enumerate(singles, 1):
        assert point(stacked, f"corner {i}")["nll"] == pytest.approx(single["nll"], rel=1e-5)
    ensemble = next(row for row in stacked["predictors"] if row["name"] == "all corners")
    assert ensemble["nll"] < np.mean([single["nll"] for single in singles])  # observation 1
    assert point(stacked, "center")["accuracy"] < min(single["accuracy"] for single in singles)  # observation 2
    assert stacked["connector"]["verdict"] == "no"

    connector = mlp.copy_and_resolve_references()
    connector.start.runs, connector.subspace.name, connector.subspace.fixed_ends = together.start.runs, name, True
    connector.penalty.beta = 0.0
    found = runs.train(connector, tmp_path / name)
    endpoints = saved(tmp_path / name)
    for i, folder in enumerate(two_runs):
        theirs = saved(folder)  # the ends have not moved by a bit
        jax.tree.map(lambda ours, end, i=i: np.testing.assert_array_equal(ours[i], end[0]), endpoints, theirs)
    halfway = jax.tree.map(lambda leaf: (leaf[0] + leaf[1]) / 2, endpoints)
    moved = jax.tree.map(lambda leaf, middle: float(np.abs(leaf[2] - middle).max()), endpoints, halfway)
    assert max(jax.tree.leaves(moved)) > 0.01
    # Observation 3: what no line does.
    assert point(found, "0.50")["accuracy"] > point(stacked, "center")["accuracy"] + 0.05
    assert found["connector"]["barrier"] < stacked["connector"]["barrier"]


@pytest.mark.usefixtures("no_figures")
def test_runs_that_share_their_first_epochs(mlp, tmp_path):
    """Observation 4: branches of a run are linearly connected, here two of them."""
    mlp.subspace.name, mlp.keep_epochs, mlp.checkpoint_every_epochs = "point", (6,), 8
    runs.train(mlp, tmp_path / "trunk")
    branches = []
    for seed in (1, 2):
        branch = mlp.copy_and_resolve_references()
        branch.seed, branch.keep_epochs = seed, ()
        branch.start.runs, branch.start.epoch = str(tmp_path / "trunk"), 6
        folder = tmp_path / f"branch{seed}"
        runs.train(branch, folder)
        assert [row["step"] for row in read_rows(folder, "train")] == [96]  # its first 72 steps are the trunk's
        branches.append(folder)
    with_its_own_seed = mlp.copy_and_resolve_references()
    with_its_own_seed.start.runs, with_its_own_seed.start.epoch = str(tmp_path / "trunk"), 6
    runs.train(with_its_own_seed, tmp_path / "same")
    jax.tree.map(
        np.testing.assert_array_equal, saved(tmp_path / "same"), saved(tmp_path / "trunk")
    )  # momentum, rate and data go on where they were

    together = mlp.copy_and_resolve_references()
    together.keep_epochs = ()
    together.start.runs = ",".join(map(str, branches))
    together.subspace.name, together.subspace.num_endpoints, together.optimizer.num_epochs = "simplex", 2, 0
    together.evaluation.random_points = "random,layerwise"
    found = runs.train(together, tmp_path / "stacked")
    assert found["connector"]["barrier"] < 0.03
    corners = [point(found, f"corner {i}")["accuracy"] for i in (1, 2)]
    assert point(found, "layerwise 1")["accuracy"] > np.mean(corners) - 0.03
    assert np.asarray(found["endpoints"]["kernels"]["l2"])[0, 1] > 0.01


def test_a_network_as_the_shared_start_of_a_subspace(mlp, two_runs, tmp_path):
    line = mlp.copy_and_resolve_references()
    line.start.runs, line.subspace.name = str(two_runs[0]), "line"
    run = build.build(line)
    endpoints = stacks.init_state(run).endpoints
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_array_equal(ours, np.repeat(theirs, 2, axis=0)),
        endpoints,
        saved(two_runs[0]),
    )


def test_starts_that_cannot_be(mlp, two_runs, tmp_path):
    def refused(message, **fields):
        settings = mlp.copy_and_resolve_references()
        settings.subspace.name, settings.subspace.num_endpoints = "simplex", 2
        settings.start.runs = ",".join(map(str, two_runs))
        for field, given in fields.items():
            name = field.replace("__", ".")
            config.change(settings, name, given)
        with pytest.raises(UsageError, match=message):
            runs.train(settings, tmp_path / "refused")
        assert not (tmp_path / "refused").exists()

    refused(r"is float32\[32, 10\] in .* makes it float32\[16, 10\]. Stack runs", model__width="16")
    refused("another architecture", model__depth="2")
    refused("names 2 runs for 3 endpoints", subspace__num_endpoints="3")
    refused("holds no run", start__runs=str(tmp_path / "nowhere"))
    refused("config.start.epoch resumes from one run", start__epoch="4")
    refused("config.subspace is .* here but", start__epoch="4", start__runs=str(two_runs[0]))
    refused("config.subspace.fixed_ends is True", subspace__fixed_ends="True")
    branch = {"subspace__name": "point", "subspace__num_endpoints": "0", "start__runs": str(two_runs[0])}
    refused(r"no checkpoint of step 60 .*keep_epochs", start__epoch="5", **branch)


def test_everything_else_that_is_measured(mlp, tmp_path):
    mlp.subspace.name, mlp.subspace.num_endpoints = "simplex", 3
    mlp.optimizer.num_epochs = 2
    mlp.evaluation.sharpness_batches, mlp.evaluation.plane_points = 1, 3
    mlp.evaluation.ensemble = ((1.05, -0.05, 0.0), (0.0, 0.5, 0.5))
    measured = runs.train(mlp, tmp_path / "run")
    assert measured["schema"] == 3
    json.dumps(measured, allow_nan=False)
    assert set(measured["sharpness"]) == {"center", "corner 1", "corner 2", "corner 3"}
    plane = measured["plane"]
    assert np.shape(plane["accuracy"]) == np.shape(plane["nll"]) == (3, 3)
    assert point(measured, "at (1.05, -0.05, 0.0)")["weights"] == pytest.approx([1.05, -0.05, 0], abs=1e-6)
    for row in (*measured["points"], *(row["mean_logit"] for row in measured["ensembles"])):
        for name, (low, high) in row["intervals"].items():
            assert low <= high
            if name in ("accuracy", "nll", "brier"):
                assert low <= row[name] <= high
    drawn = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert {"plane.png", "reliability.png", "endpoints.png"} <= drawn

    again = evaluate.evaluate(tmp_path / "run", {"evaluation.num_bins": "5", "evaluation.plane_points": "0"})
    assert again["plane"] is None
    assert len(again["reliability"]["count"]) == 5
    with pytest.raises(UsageError, match=r"Only config.evaluation fields"):
        evaluate.evaluate(tmp_path / "run", {"optimizer.num_epochs": "5"})
    with pytest.raises(UsageError, match=r"evaluation.num_bin; did you mean config.evaluation.num_bins\?"):
        evaluate.evaluate(tmp_path / "run", {"evaluation.num_bin": "5"})


@pytest.mark.usefixtures("no_figures")
def test_sharpness_is_the_hessians(mlp, tmp_path):
    """Against numpy's eigenvalues of the Hessian of the same loss."""
    mlp.subspace.name, mlp.optimizer.num_epochs, mlp.model.width, mlp.num_devices = "point", 2, 2, 2
    mlp.evaluation.sharpness_batches = 2
    found = runs.train(mlp, tmp_path / "run")["sharpness"]["network"]
    run, network = build.build(mlp), jax.tree.map(lambda leaf: leaf[0], saved(tmp_path / "run"))
    flat, unravel = jax.flatten_util.ravel_pytree(network)

    @jax.jit
    @jax.hessian
    def hessian_of(flat, batch):
        images = run.problem.pipeline.preprocess(batch["image"])
        logits = run.problem.model.apply({"params": unravel(flat)}, images, train=False).logits
        return -jax.nn.log_softmax(logits)[np.arange(len(images)), batch["label"]].mean()

    batches = [batch for batch, _ in zip(run.problem.pipeline.train_batches(run.total_steps), range(2), strict=False)]
    hessian = np.mean([hessian_of(flat, batch) for batch in batches], axis=0)
    assert found["eigenvalue"] == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=2e-2)


@pytest.mark.usefixtures("no_figures")
def test_compare(mlp, two_runs, tmp_path, capsys):
    line = mlp.copy_and_resolve_references()
    line.subspace.name, line.optimizer.num_epochs = "line", 2
    runs.train(line, tmp_path / "line")
    compare.main([*map(str, two_runs), str(tmp_path / "line"), f"--out={tmp_path / 'out'}"])
    lines = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[:4] for row in lines[2:-2]] == [
        ["| standard", "network", "1", "2"],
        ["| line", "0.50", "1", "1"],
        ["| line", "0.00 & 1.00", "2", "1"],
    ]
    accuracies = [json.loads((folder / "results.json").read_text())["points"][0]["accuracy"] for folder in two_runs]
    half = 12.7062 * np.std(accuracies, ddof=1) / 2**0.5  # the t interval of two runs
    assert f"{np.mean(accuracies):.4f} ± {half:.4f}" in lines[2]
    assert "(" in lines[3]  # the difference to the first row, over the 360 test examples
    assert (tmp_path / "out" / "table.md").read_text().splitlines() == lines
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000

    for arguments, message in [
        ([], "which runs"),
        ([str(tmp_path)], "holds no finished run"),
        ([str(two_runs[0]), str(two_runs[0])], "given twice"),
        ([str(two_runs[0]), "--metrics=acuracy"], "Did you mean 'accuracy'"),
    ]:
        with pytest.raises(UsageError, match=message):
            compare.main(arguments)
    old = json.loads((tmp_path / "line" / "results.json").read_text()) | {"schema": 1}
    (tmp_path / "line" / "results.json").write_text(json.dumps(old))
    with pytest.raises(UsageError, match=r"schema 1.*Evaluate it again"):
        compare.main([str(tmp_path / "line")])


def test_methods_are_called_by_their_names():
    def method(**fields):
        settings = config.default()
        for field, given in fields.items():
            config.change(settings, field.replace("__", "."), given)
        return methods.name_of(settings.to_dict())

    assert method(subspace__name="point") == "standard"
    assert method(subspace__layerwise="True") == "line, layerwise"
    assert method(subspace__name="simplex", subspace__num_endpoints="6") == "simplex, m = 6"
    assert (
        method(subspace__name="point", optimizer__schedule="swa_cyclic", optimizer__num_collected="3")
        == "SWA, cyclic, m = 3"
    )
    assert method(subspace__name="point", optimizer__label_smoothing="0.1") == "standard, label smoothing 0.1"
    assert method(subspace__name="simplex", start__runs="a,b", optimizer__num_epochs="0") == "2 runs stacked"


def test_a_run_of_an_older_version_is_the_same_method():
    """It lacks the settings that were added later, and had their defaults."""
    new = config.default().to_dict()
    old = config.default().to_dict()
    for name in added_later():
        group, field = name.rsplit(".", 1) if "." in name else ("", name)
        del (old[group] if group else old)[field]
    assert old != new
    assert set(methods.names_of({"old": old, "new": new}).values()) == {"line"}


def test_usual_kinds(mlp):
    mlp.subspace.name, mlp.subspace.num_endpoints, mlp.subspace.layerwise = "simplex", 3, True
    assert results.usual_kinds(build.build(mlp)) == ("random", "layerwise")
    mlp.subspace.name, mlp.subspace.num_endpoints = "line", 0
    assert results.usual_kinds(build.build(mlp)) == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"subspace__name": "chain", "subspace__pull_back": "center"},
            "config.subspace.pull_back is 'center'. It must be plain",
        ),
        (
            {"subspace__name": "curve", "subspace__num_endpoints": "4", "subspace__spread_growth": "0.5"},
            "spread_growth is 0.5",
        ),
        (
            {
                "subspace__name": "curve",
                "subspace__fixed_ends": "True",
                "start__runs": "a,b",
                "subspace__pull_back": "center",
            },
            "a curve with one bend whose ends are trained",
        ),
        (
            {
                "subspace__name": "curve",
                "subspace__fixed_ends": "True",
                "start__runs": "a,b",
                "subspace__spread_growth": "0.5",
            },
            "a curve with one bend whose ends are trained",
        ),
        ({"subspace__center_scale": "network", "subspace__shared_init": "True"}, "an initialisation already"),
        ({"subspace__center_scale": "network", "start__runs": "a,b"}, "where the endpoints are given"),
    ],
)
def test_options_of_the_center_that_do_not_fit(mlp, settings, message):
    for field, given in settings.items():
        config.change(mlp, field.replace("__", "."), given)
    with pytest.raises(UsageError, match=message):
        limits.validate(mlp)


def test_the_spread_of_a_run_grows_from_0_to_1_over_a_fraction_of_its_steps(mlp):
    mlp.subspace.name, mlp.subspace.spread_growth = "line", 0.5
    run = build.build(mlp)
    total = run.total_steps
    spreads = [float(run.spread(np.int32(step))) for step in (0, total // 4, total // 2, total)]
    assert spreads == pytest.approx([0, 0.5, 1, 1])
    mlp.subspace.spread_growth = 0.0
    assert build.build(mlp).spread is None


def test_names_of_the_options_of_the_center(mlp):
    mlp.subspace.pull_back, mlp.subspace.spread_growth = "center", 0.5
    assert methods.name_of(mlp.to_dict()).endswith(", center rate, growing spread")
