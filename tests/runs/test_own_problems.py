"""A problem of a user's own is trained, interrupted, resumed, measured and exported like the problems of the library."""

import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_problems import FILE, classes, classifier, of_file, short_settings
from places import REPOSITORY
from whole_runs import whole_and_interrupted, without_speed

import jsubspace
from jsubspace import compare, evaluate, export, training
from jsubspace.data.from_grain import from_grain
from jsubspace.errors import UsageError
from jsubspace.exchange import network_files
from jsubspace.models import adapters
from jsubspace.runs import build, config_files, results
from jsubspace.runs.run import training as training_of
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.writer import read_rows
from jsubspace.training.loop import train_endpoints
from jsubspace.training.parallel import DataParallel


def endpoints_in(workdir):
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        found = checkpoints.restore_part("endpoints", DataParallel(tuple(jax.devices()[:1])).replicated)
    return jax.tree.map(np.asarray, found)


def endpoints_of_interrupted_are_whole(problem, settings, folder, interruptions):
    """Trains once without and once with interruptions. The steps are compiled once, and the end of both is not measured."""
    of_run = training_of(build.build(settings, problem))
    for name in ("whole", "interrupted"):
        config_files.save(folder / name, settings)
    whole_and_interrupted(functools.partial(train_endpoints, of_run), folder, interruptions)
    check_same(folder)


def check_same(folder):
    jax.tree.map(np.testing.assert_array_equal, *(endpoints_in(folder / name) for name in ("whole", "interrupted")))
    rows = [without_speed(read_rows(folder / name)) for name in ("whole", "interrupted")]
    assert rows[0] == rows[1]


def interrupted_is_whole(problem, settings, folder, interruptions):
    """Trains once without and once with interruptions after these steps, and returns the results."""
    train = functools.partial(training.train, problem, settings)
    whole, found = whole_and_interrupted(train, folder, interruptions)
    assert found | {"seconds": None} == whole | {"seconds": None}
    check_same(folder)
    return found


@pytest.fixture(scope="module")
def sine(tmp_path_factory):
    """The run of the file, interrupted, with its folder."""
    folder = tmp_path_factory.mktemp("sine")
    get_config, get_problem = of_file()
    found = interrupted_is_whole(get_problem, get_config(), folder, (1, 5))
    return folder / "interrupted", found


def test_functions_and_arrays_resume_to_the_same_bits(sine):
    workdir, found = sine
    assert found["finished"]
    assert found["task"]["main"] == "nll"
    assert found["early_stopping"]["tested_on"] == "validation"
    assert found["validation"]["best"] in [row["name"] for row in found["points"]]
    best = min((row for row in read_rows(workdir) if row["kind"] == "validation"), key=lambda row: row["nll"])
    assert found["early_stopping"]["step"] == best["step"]  # A lower NLL is better.
    rows = read_rows(workdir, "train")
    assert [row["step"] for row in rows] == [4, 8, 9]  # The run has 9 steps.
    assert {"loss", "penalty", "examples_per_second"} <= set(rows[0])
    assert "accuracy" not in rows[0]
    assert (workdir / "figures" / "endpoints.png").exists()
    assert "examples" in results.table(found) or "NLL" in results.table(found)


def test_the_settings_are_recorded_and_identify_the_run(sine):
    workdir, found = sine
    recorded = json.loads((workdir / "config.json").read_text())
    assert recorded["problem"] == {"width": 6, "noise": 0.1}
    assert "data" not in recorded
    assert "model" not in recorded
    assert "batch_size" not in recorded["evaluation"]
    assert found["config"]["problem"] == recorded["problem"]
    get_config, get_problem = of_file()
    settings = get_config()
    assert training.train(lambda settings: pytest.fail("it is finished"), settings, workdir) == found
    settings.problem.noise = 0.2
    with pytest.raises(UsageError, match=r"holds another run:\n  config.problem.noise: 0.1 there, 0.2 here"):
        training.train(get_problem, settings, workdir)


@pytest.mark.usefixtures("no_figures")
def test_it_is_evaluated_again_and_exported(sine, tmp_path):
    workdir, found = sine
    _, get_problem = of_file()
    for command in (lambda: evaluate.evaluate(workdir), lambda: export.export(workdir, tmp_path / "x.safetensors")):
        with pytest.raises(UsageError, match=r"a problem of your own, .*Say --config=FILE"):
            command()
    again = evaluate.evaluate(workdir, {"evaluation.num_points": "5"}, get_problem)
    assert [row["nll"] for row in again["points"]][::2] == [row["nll"] for row in found["points"]]
    facts = export.export(workdir, tmp_path / "network.safetensors", "0.25", get_problem)
    network, _ = network_files.load(tmp_path / "network.safetensors")
    expected = jsubspace.interpolate(endpoints_in(workdir), 0.25)
    jax.tree.map(np.testing.assert_array_equal, network["params"], jax.tree.map(np.asarray, expected))
    assert facts["config"]["problem"] == {"width": 6, "noise": 0.1}
    data = get_problem(of_file()[0]()).data
    from jsubspace.data.shards import WHOLE_BATCH

    ((x, y), mask), *_ = data.test_batches(WHOLE_BATCH)
    assert mask.all()
    assert x.shape == (20, 1)
    assert y.shape == (20,)
    assert compare.compare([workdir])[0].method == "line"


@pytest.mark.usefixtures("no_figures")
def test_a_network_of_nnx_with_batch_norm_and_dropout(tmp_path):
    from flax import nnx

    class Module(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)])
            self.norm, self.dropout = nnx.BatchNorm(6, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)

        def __call__(self, x):
            return self.layers[1](self.dropout(nnx.relu(self.norm(self.layers[0](x)))))

    problem = classifier(adapters.from_nnx(lambda rngs: Module(rngs)))
    endpoints_of_interrupted_are_whole(problem, short_settings(), tmp_path, (2,))
    found = training.train(problem, short_settings(), tmp_path / "interrupted")
    export.export(tmp_path / "interrupted", tmp_path / "network.safetensors", problem=problem)
    network, _ = network_files.load(tmp_path / "network.safetensors")
    x, y = classes()
    logits = problem.network.apply(network["params"], jnp.asarray(x), stats=network["batch_stats"])
    midpoint = next(row for row in found["points"] if "center" in row["roles"])
    assert np.mean(np.argmax(logits, -1) == y) == pytest.approx(midpoint["accuracy"])


@pytest.mark.usefixtures("no_figures")
def test_a_network_of_equinox(tmp_path):
    eqx = pytest.importorskip("equinox")

    def make(key):
        first, last = jax.random.split(key)
        layers = [eqx.nn.Linear(4, 6, key=first), eqx.nn.Dropout(0.2), eqx.nn.Linear(6, 2, key=last)]
        return eqx.nn.Sequential(layers)

    problem = classifier(adapters.from_equinox(make))
    endpoints_of_interrupted_are_whole(problem, short_settings(), tmp_path, (2,))
    assert training.train(problem, short_settings(), tmp_path / "whole")["finished"]
    assert sorted(endpoints_in(tmp_path / "whole")["layers"]) == ["0", "2"]


@pytest.mark.usefixtures("no_figures")
def test_a_network_of_linen_with_batch_norm_and_dropout(tmp_path):
    from flax import linen as nn

    class Module(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(6)(x)))
            return nn.Dense(2)(nn.Dropout(0.2, deterministic=not train)(x))

    problem = classifier(adapters.from_linen(Module(), classes()[0][:1]))
    endpoints_of_interrupted_are_whole(problem, short_settings(), tmp_path, (2,))
    assert training.train(problem, short_settings(), tmp_path / "whole")["finished"]


@pytest.mark.usefixtures("no_figures")
def test_a_stream_of_grain_resumes_from_its_position(tmp_path):
    import grain

    x, y = classes()
    examples = grain.MapDataset.source(range(60)).map(lambda i: (x[i], y[i]))
    stream = examples.seed(1).shuffle().repeat().to_iter_dataset()
    data = from_grain(train=stream, test=examples, batch_size=20, steps_per_epoch=4)
    problem = classifier()
    problem = training.Problem(problem.network, problem.task, data)
    found = interrupted_is_whole(problem, short_settings(), tmp_path, (1, 3))
    assert found["finished"]


@pytest.mark.usefixtures("no_figures")
def test_a_task_with_samples_and_devices_that_divide_the_endpoints(tmp_path):
    settings = short_settings()
    settings.num_devices, settings.shard_endpoints, settings.subspace.num_samples = 2, True, 2
    found = training.train(classifier(), settings, tmp_path / "run")
    assert found["finished"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def command(*arguments):
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, cwd=REPOSITORY)
    return done.returncode, done.stdout, done.stderr


def test_the_command_line(file, tmp_path):
    run = tmp_path / "run"
    changed = ("--config.problem.width=3", "--config.optimizer.num_epochs=2")
    code, shown, error = command("jsubspace.main", f"--config={file}", f"--workdir={run}", *changed)
    assert code == 0, error
    assert "midpoint" in shown
    assert endpoints_in(run)["hidden"]["kernel"].shape == (2, 1, 3)
    code, _, error = command(
        "jsubspace.export", f"--workdir={run}", f"--to={tmp_path / 'n.safetensors'}", f"--config={file}"
    )
    assert code == 0, error


@pytest.mark.usefixtures("no_figures")
def test_problems_with_other_test_targets_are_not_compared(tmp_path):
    """The settings say nothing about a user's data."""
    x, y = classes()
    problems = {
        "a": classifier(), "sizes": classifier(eval_batch_size=7, test=(x, y.astype(np.uint8)), train=(x, y.astype(np.uint8))),
        "other": classifier(test=(x, 1 - y)),
    }  # fmt: skip
    for seed, (name, problem) in enumerate(problems.items()):
        settings = short_settings()
        settings.seed = seed
        training.train(problem, settings, tmp_path / name)
    (entry, *_) = compare.compare([tmp_path / "a", tmp_path / "sizes"])
    assert len(entry.runs) == 2
    with pytest.raises(UsageError, match=r"a and .*other were tested on different examples"):
        compare.compare([tmp_path / "a", tmp_path / "other"])


def test_the_seed_of_the_settings_determines_the_order_of_the_data():
    problem, settings = classifier(), short_settings()
    orders = []
    for seed in (0, 1):
        settings.seed = seed
        run = build.build(settings, problem)
        x, _ = next(run.problem.data.train_batches(0, run.shard))
        np.testing.assert_array_equal(x, classes()[0][np.random.default_rng([seed, 0]).permutation(60)[:20]])
        block = next(run.problem.data.resident.blocks(0, run.shard))
        orders.append(block.rows[0][:, 0].tolist())
    assert orders[0] != orders[1]
    assert problem.data.of_run(0) is not problem.data
    own = classifier(seed=0)
    assert build.build(settings, own).problem.data is own.data


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_is_shorter_than_a_window_logs_its_loss(tmp_path):
    settings, seen = short_settings(), []
    settings.log_every_steps = 100

    class Seen:
        def log_scalar(self, name, value, step):
            seen.append((name, step))

        def close(self):
            pass

    training.train(classifier(), settings, tmp_path / "run", sinks=(Seen(),))
    (row,) = read_rows(tmp_path / "run", "train")
    assert row["step"] == 3
    assert np.isfinite(row["loss"])
    assert ("train/loss", 3) in seen
