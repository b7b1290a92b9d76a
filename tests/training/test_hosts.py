"""Several processes are one program: the same result, one that writes, and messages instead of waiting for ever."""

import json

import numpy as np
import pytest
from several_hosts import free_port, run, started

from jsubspace.data.batching import Batching
from jsubspace.data.memory import InMemory
from jsubspace.data.shards import Shard
from jsubspace.storage.writer import read_rows

# More points than examples in a batch: the work is spread by points at the end, and by data in the test on the way.
# The validation digits leave 1,309 for training: three batches and a last one of 109.
BY_POINTS = {
    "evaluation.num_points": "41",
    "evaluation.batch_size": "40",
    "evaluation.every_epochs": "1",
    "data.num_validation": "128",
    "data.batch_size": "400",
    "log_every_steps": "2",
    "model.depth": "1",
}


@pytest.fixture(scope="module")
def one_process(data_dir, tmp_path_factory):
    """The folder of a run of one process with four devices."""
    folder = tmp_path_factory.mktemp("one") / "run"
    ((code, output),) = run(1, 4, folder, data_dir, **BY_POINTS)
    assert code == 0, output
    return folder


@pytest.mark.parametrize(
    "fields",
    [
        {"shard_endpoints": "False", "steps_per_dispatch": "2"},
        {"shard_endpoints": "True"},
        pytest.param({"parallel": "jit"}, marks=pytest.mark.slow),
        pytest.param({"parallel": "jit", "shard_endpoints": "True"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_two_processes_give_the_result_of_one(one_process, data_dir, tmp_path, fields):
    """Two with two devices each; the last batch, 109 digits, divides among none of them."""
    for code, output in run(2, 2, tmp_path / "run", data_dir, **fields, **BY_POINTS):
        assert code == 0, output
    for kind in ("train", "validation"):
        one, two = (read_rows(folder, kind) for folder in (one_process, tmp_path / "run"))
        assert (
            [row["step"] for row in two] == [row["step"] for row in one] == {"train": [2, 4], "validation": [4]}[kind]
        )
        for row_of_two, row in zip(two, one, strict=True):
            name = {"train": "loss", "validation": "nll"}[kind]
            np.testing.assert_allclose(row_of_two[name], row[name], rtol=1e-5)
    one, two = (json.loads((folder / "results.json").read_text()) for folder in (one_process, tmp_path / "run"))
    assert len(one["points"]) == 41
    assert one["test_digest"] == two["test_digest"]
    for rows_of_two, rows in ((two, one), (two["validation"], one["validation"])):
        for row_of_two, row in zip(rows_of_two["points"], rows["points"], strict=True):
            np.testing.assert_allclose(row_of_two["nll"], row["nll"], rtol=1e-4)
    for row_of_two, row in zip(two["ensembles"], one["ensembles"], strict=True):
        np.testing.assert_allclose(row_of_two["mean_probability"]["nll"], row["mean_probability"]["nll"], rtol=1e-4)


def test_hosts_with_other_configs_are_refused(data_dir, tmp_path):
    (code, error), (other_code, other_error) = run(
        2, 1, tmp_path / "run", data_dir, ({}, {"penalty.beta": "3.0", "data.num_workers": "0"})
    )
    assert code == other_code == 2
    assert "host 1 has other settings than this one" in error
    assert "penalty.beta: 1.0 on the first host, 3.0 here" in other_error
    assert "num_workers" not in other_error
    assert not (tmp_path / "run").exists()


def test_a_host_that_never_comes(tmp_path):
    process = started(f"localhost:{free_port()}", 0, 2, 1, tmp_path / "run", {}, timeout=3)
    _, error = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "not all 2 hosts connected within 3 seconds" in error


@pytest.mark.parametrize(("count", "size", "expected"), [(2, 8, [4, 4]), (2, 5, [5, 5]), (4, 8, [2] * 4), (1, 5, [5])])
def test_shares_of_a_batch(count, size, expected):
    shares = [Shard(i, count).places(size) for i in range(count)]
    assert [len(share) for share in shares] == expected
    assert set().union(*shares) == set(range(size))
    assert len(Shard(0, count, multiple=3).places(size)) == size  # 8 / 2 is no multiple of 3


def test_a_host_reads_its_part_of_data_in_memory(data_dir):
    from jsubspace.data import memory, sets

    whole = memory.load(sets.find("digits"), data_dir, Batching(128, 128, seed=0))
    parts = [InMemory(whole.data_set, whole.train, whole.test, whole.batching, Shard(i, 2)) for i in range(2)]
    for batch, *shares in zip(whole.test_batches(), *(part.test_batches() for part in parts), strict=True):
        for name, array in batch.items():
            np.testing.assert_array_equal(np.concatenate([share[name] for share in shares]), array)
    batch, *shares = (next(data.train_batches(0)) for data in (whole, *parts))
    np.testing.assert_array_equal(np.concatenate([share["image"] for share in shares]), batch["image"])
    np.testing.assert_array_equal(np.concatenate([share["index"] for share in shares]), np.arange(128))
