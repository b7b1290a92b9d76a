"""Runs with validation data: choices are made on it, and the test set is read once."""

import json

import jax
import numpy as np
import pytest
from whole_runs import StopAt, newest_state, without_speed

from jsubspace import compare, evaluate, runs
from jsubspace.data import memory
from jsubspace.errors import Preempted, UsageError
from jsubspace.runs import build, limits, results, stacks
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.writer import read_rows

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def config(tiny_mlp):
    """A run that tests after every epoch and keeps 300 of 1,437 digits for validation."""
    tiny_mlp.data.num_validation, tiny_mlp.evaluation.every_epochs, tiny_mlp.keep_checkpoints = 300, 1, 1
    tiny_mlp.data.batch_size, tiny_mlp.num_devices = 379, 1  # three equal steps an epoch
    return tiny_mlp


@pytest.fixture
def passes(monkeypatch):
    """How often each kind of data was read from its beginning, by the method's name."""
    count = {}

    def counted(name, batches):
        def read(self):
            count[name] = count.get(name, 0) + 1
            return batches(self)

        return read

    for name in ("test_batches", "validation_batches"):
        monkeypatch.setattr(memory.InMemory, name, counted(name, getattr(memory.InMemory, name)))
    return count


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "whole"


def test_one_pass_over_the_test_set_in_a_whole_run(config, passes, whole):
    measured = runs.train(config, whole)
    assert passes == {"test_batches": 1, "validation_batches": config.optimizer.num_epochs + 1}
    rows = read_rows(whole)
    assert not [row for row in rows if row["kind"] == "test"]
    tests = [row for row in rows if row["kind"] == "validation"]
    best = max(tests, key=lambda row: row["accuracy"])
    stopped = measured["early_stopping"]
    assert (stopped["tested_on"], stopped["step"], stopped["nll"]) == ("validation", best["step"], best["nll"])
    with Checkpoints(whole / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.best_step() == best["step"]
    validation = measured["validation"]
    center = next(row for row in validation["points"] if "center" in row["roles"])
    assert center["nll"] == pytest.approx(tests[-1]["nll"], rel=1e-5)
    assert len(validation["points"]) == len(measured["points"])
    assert sum(validation["reliability"]["count"]) == 300
    assert validation["best"] == min(validation["points"], key=lambda row: row["nll"])["name"]
    text = results.table(measured)
    assert f"chosen on the validation data, by NLL: {validation['best']}, with accuracy" in text
    assert "early stopping of the midpoint, chosen on the validation data" in text
    assert compare.BEST_EPOCH not in {entry.predictor for entry in compare.compare([whole])}


def test_the_papers_early_stopping_is_asked_for_by_name(config, passes, tmp_path):
    config.evaluation.early_stopping, config.optimizer.num_epochs = "test", 2
    measured = runs.train(config, tmp_path / "run")
    assert passes == {"test_batches": config.optimizer.num_epochs + 1, "validation_batches": 1}
    assert measured["early_stopping"]["tested_on"] == "test"
    assert "optimal early stopping of the midpoint, chosen on the test set" in results.table(measured)
    assert compare.BEST_EPOCH in {entry.predictor for entry in compare.compare([tmp_path / "run"])}


def test_without_validation_data_it_is_the_test_set(config, passes, tmp_path):
    config.data.num_validation, config.optimizer.num_epochs, config.data.batch_size = 0, 2, 479
    measured = runs.train(config, tmp_path / "run")
    assert passes["test_batches"] == config.optimizer.num_epochs + 1
    assert (measured["validation"], measured["early_stopping"]["tested_on"]) == (None, "test")


def test_it_resumes_to_the_same_bits(config, whole, tmp_path):
    expected, run = runs.train(config, whole), build.build(config)  # The run of the test above, if it came before.
    with pytest.raises(Preempted):
        runs.train(config, tmp_path, StopAt(4))
    resumed = runs.train(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, newest_state(run, whole), newest_state(run, tmp_path))
    names = ("points", "validation", "early_stopping")
    assert [resumed[name] for name in names] == [expected[name] for name in names]
    rows = [without_speed(read_rows(folder)) for folder in (whole, tmp_path)]
    assert rows[0] == rows[1]
    assert evaluate.evaluate(tmp_path)["validation"] == expected["validation"]


def test_the_split_does_not_depend_on_the_seed_or_the_devices(config):
    kept, config.data.batch_size = [], 128
    for seed, devices in ((0, 1), (5, 4)):
        config.seed, config.num_devices = seed, devices
        data = build.build(config).problem.pipeline
        kept.append(data.validation.images)
        assert len(data.train) == 1437 - 300
    np.testing.assert_array_equal(*kept)


def test_validation_without_images_is_refused(config):
    config.evaluation.early_stopping = "validation"
    limits.validate(config)
    config.data.num_validation = 0
    with pytest.raises(UsageError, match=r"early_stopping is 'validation'. It must be auto or test unless"):
        limits.validate(config)
    config.evaluation.early_stopping, config.data.num_validation = "auto", 1437
    with pytest.raises(UsageError, match="num_validation=1437 was asked for but the training split has 1437 examples"):
        build.build(config)


def test_networks_that_saw_the_images_are_not_stacked(config, tmp_path):
    config.subspace.name, config.evaluation.every_epochs = "point", 0
    config.optimizer.num_epochs, config.optimizer.warmup_epochs, config.data.batch_size = 1, 0, 479
    for name, count in (("saw", 0), ("fewer", 479), ("more", 2 * 479)):
        config.data.num_validation = count
        runs.train(config, tmp_path / name)
    config.data.num_validation, config.subspace.name, config.optimizer.num_epochs = 600, "line", 0
    for name in ("saw", "fewer"):
        config.start.runs = f"{tmp_path / 'more'},{tmp_path / name}"
        with pytest.raises(UsageError, match=rf"num_validation is 600 here, but .*{name} .* may have been trained"):
            stacks.start_runs(config)
    config.start.runs = f"{tmp_path / 'more'},{tmp_path / 'more'}"
    assert runs.train(config, tmp_path / "stacked")["validation"]["best"]
    json.loads((tmp_path / "stacked" / "results.json").read_text())
