"""Runs whose folder is in a bucket: trained, killed, resumed, evaluated, compared and exported there."""

import os
import random
import signal

import pytest
from bucket_worker import Bucket
from places import CONFIGS, REPOSITORY

RUN = "gs://bucket/runs/line"

SETTINGS = {
    "model.name": "mlp",
    "model.depth": 1,
    "model.width": 8,
    "data.batch_size": 479,  # three steps an epoch
    "optimizer.num_epochs": 3,
    "optimizer.warmup_epochs": 1,
    "checkpoint_every_epochs": 1,
    "log_every_steps": 5,
    "evaluation.num_points": 3,
    "evaluation.num_resamples": 100,
    "num_devices": 1,
}


@pytest.fixture(scope="module")
def train(data_dir):
    settings = [f"--config.{field}={value}" for field, value in (SETTINGS | {"data.dir": data_dir}).items()]
    return "jsubspace.main", f"--config={CONFIGS / 'digits_cresnet8_line.py'}", *settings


@pytest.fixture(scope="module")
def cwd(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def bucket(cwd):
    bucket = Bucket(REPOSITORY, cwd)
    yield bucket
    bucket.end()


@pytest.fixture(scope="module")
def on_disk(bucket, train, tmp_path_factory):
    """The end of the same run, undisturbed and on the disk."""
    folder = tmp_path_factory.mktemp("runs") / "line"
    code, log = bucket.run(*train, f"--workdir={folder}")
    assert code == 0, log
    return bucket.ask("end_of", str(folder))


@pytest.fixture(scope="module")
def trained(bucket, train, on_disk):
    """A run in the bucket that was killed at one change after the other, each time a later one."""
    kills = [
        ("after", "config.json", 1),
        ("before", "metrics.jsonl", 2),  # between the two uploads before a checkpoint
        ("after", "MD5SUMS", 1),  # all arrays and their sums are there, but not the file that says so
        ("before", "results.json", 1),
    ]
    for kill in kills:
        code, log = bucket.run(*train, f"--workdir={RUN}", die=kill)
        assert code == -signal.SIGKILL, (kill, log)
    code, log = bucket.run(*train, f"--workdir={RUN}")
    assert code == 0, log
    return log


def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_run_on_the_disk(bucket, trained, on_disk, cwd):
    assert bucket.ask("end_of", RUN) == on_disk
    assert "a bucket has no locks" in trained
    assert f"results, checkpoints and figures are in {RUN}" in trained
    assert os.listdir(cwd) == []
    names = bucket.ask("names", RUN)
    assert {name for name in names if "/" not in name and "events" not in name} == {
        "config.json", "metrics.jsonl", "per_example.npz", "results.json"
    }  # fmt: skip
    assert "figures/accuracy.png" in names
    assert {name.split("/")[1] for name in names if name.startswith("checkpoints/")} == {"6", "9"}


def test_the_same_command_finds_the_run_finished(bucket, train, trained):
    before = bucket.ask("names", RUN)
    code, log = bucket.run(*train, f"--workdir={RUN}")
    assert code == 0
    assert "holds the finished run" in log
    assert bucket.ask("names", RUN) == before
    code, log = bucket.run(*train, f"--workdir={RUN}", "--config.seed=1")
    assert code == 2
    assert "holds another run" in log


def test_programs_read_and_write_the_bucket(bucket, trained, cwd):
    code, log = bucket.run("jsubspace.evaluate", f"--workdir={RUN}", "--config.evaluation.num_points=5")
    assert code == 0, log
    assert "0.25" in log
    code, log = bucket.run("jsubspace.compare", RUN, "--out=gs://bucket/comparison")
    assert code == 0, log
    assert bucket.ask("names", "gs://bucket/comparison") == ["comparison.json", "comparison.png", "table.md"]
    code, log = bucket.run("jsubspace.compare", RUN, f"{RUN}/")
    assert code == 2
    assert "given twice" in log
    assert os.listdir(cwd) == []


def test_an_export_is_complete_or_refused(bucket, trained, cwd):
    """A kill leaves half a folder. It is not read, and the same command writes it again. Whatever else is there, is kept."""
    export = "jsubspace.export", f"--workdir={RUN}"
    code, log = bucket.run(*export, "--to=gs://bucket/net.safetensors")
    assert code == 0, log
    code, log = bucket.run(*export, "--to=gs://bucket/net", die=("before", "facts.json", 1))
    assert code == -signal.SIGKILL, log
    assert "is not complete" in bucket.ask("refusal", "gs://bucket/net")
    code, log = bucket.run(*export, "--to=gs://bucket/net")
    assert code == 0, log
    assert bucket.ask("network", "gs://bucket/net") == bucket.ask("network", "gs://bucket/net.safetensors")
    code, log = bucket.run(*export, "--to=gs://bucket/net")
    assert code == 2
    assert "gs://bucket/net exists" in log
    assert os.listdir(cwd) == []


def test_a_damaged_checkpoint_is_set_aside(bucket, trained):
    """The folder is copied and deleted, for a bucket cannot rename it. A kill in the middle changes nothing."""
    copy = "gs://bucket/runs/damaged"
    bucket.ask("unevaluated", RUN, copy)
    whole = [name for name in bucket.ask("names", copy) if name.startswith("checkpoints/9/")]
    assert bucket.ask("restored", copy, die=("before", "checkpoints/9/state/d", 2)) is None
    left = bucket.ask("names", copy)
    assert {name.replace("checkpoints/9/", "checkpoints/9.damaged/") for name in whole} <= set(left)
    assert "checkpoints/9/unfinished.partial" in left
    assert bucket.ask("restored", copy) == 6
    left = bucket.ask("names", copy)
    assert "checkpoints/9/commit_success.txt" not in left
    assert any(name.startswith("checkpoints/9.damaged/state") for name in left)


@pytest.mark.slow
def test_runs_start_from_runs_in_buckets(bucket, train, trained, cwd):
    stack = [
        f"--config.start.runs={RUN}, {RUN}",
        "--config.optimizer.num_epochs=0",
        "--config.optimizer.warmup_epochs=0",
    ]
    code, log = bucket.run(*train, *stack, "--workdir=gs://bucket/runs/stacked")
    assert code == 0, log
    assert os.listdir(cwd) == []


@pytest.mark.slow
def test_a_run_resumes_behind_a_damaged_checkpoint(bucket, train, trained, on_disk):
    copy = "gs://bucket/runs/continued"
    bucket.ask("unevaluated", RUN, copy)
    code, log = bucket.run(*train, f"--workdir={copy}")
    assert code == 0, log
    assert "resuming from step 6" in log
    assert bucket.ask("end_of", copy) == on_disk


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gs:/bucket/run", "gs://")]


@pytest.mark.parametrize("workdir", ["gs://nosuch/run", "s3://bucket/run", "gs://bucket", *SLOW])
def test_a_bucket_that_does_not_work_is_one_message(bucket, train, cwd, workdir):
    code, log = bucket.run(*train, f"--workdir={workdir}")
    assert code == 2, log
    assert log.count("error: ") == 1
    assert "Traceback" not in log
    assert os.listdir(cwd) == []


@pytest.mark.slow
def test_random_kills_in_a_bucket(bucket, train, on_disk):
    """The moments are drawn from a whole life. Saves of Orbax are a large part of it."""
    rng, kills = random.Random(0), 0
    for number in range(6):
        workdir, code = f"gs://bucket/runs/random_{number}", 1
        while code:
            after = rng.uniform(0.5, 5) if rng.random() < 0.9 else 0.0
            code, log = bucket.run(*train, f"--workdir={workdir}", after=after)
            assert code in (0, -signal.SIGKILL), log
            kills += code != 0
        assert bucket.ask("end_of", workdir) == on_disk
    assert kills > 20


@pytest.mark.slow
def test_a_kill_at_every_change_of_the_bucket(bucket, train, on_disk):
    workdir, number, code = "gs://bucket/runs/every", 0, 1
    while code:
        number += 1
        code, log = bucket.run(*train, f"--workdir={workdir}", die=("before", workdir, number))
        assert code in (0, -signal.SIGKILL), log
    assert number > 10
    assert bucket.ask("end_of", workdir) == on_disk
