"""Several steps in one program, over examples that live on the devices: the same bits and rows as one step each."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import StopAt, newest_state, without_speed

from jsubspace.data.arrays import ArrayData
from jsubspace.data.resident import Resident
from jsubspace.data.shards import Shard
from jsubspace.errors import Preempted
from jsubspace.runs import build, config, feeding
from jsubspace.runs.run import training
from jsubspace.storage.steps import steps_in
from jsubspace.storage.writer import read_rows
from jsubspace.training.loop import Cadence, train_endpoints
from jsubspace.training.parallel import DataParallel

METHODS = {
    "everything random on one device, an average of two steps an update": {
        "subspace.num_samples": 2,
        "model.dropout_rate": 0.1,
        "optimizer.name": "adamw",
        "optimizer.accumulate_steps": 2,
        "optimizer.ema_decay": 0.9,
        "optimizer.learning_rate": 0.01,
        "num_devices": 1,
    },
    "divided endpoints on two devices": {"num_devices": 2, "shard_endpoints": True, "model.width": 16},
}


def small(settings, fields, steps_per_dispatch):
    """Seven steps an epoch, the last of which is smaller."""
    settings.model.name, settings.model.depth, settings.model.width = "mlp", 1, 8
    settings.data.batch_size = 230
    settings.optimizer.num_epochs, settings.optimizer.warmup_epochs = 2, 0
    settings.log_every_steps = 4
    for field, value in fields.items():
        config.change(settings, field, str(value))
    settings.steps_per_dispatch = steps_per_dispatch
    return settings


@pytest.mark.parametrize("name", METHODS)
def test_the_bits_and_rows_are_those_of_single_steps(tiny_config, tmp_path, name):
    """With checkpoints and rows at the same steps, also interrupted."""
    for folder in ("single", "several"):
        (tmp_path / folder).mkdir()
    train_endpoints(training(build.build(small(tiny_config, METHODS[name], 1))), tmp_path / "single", StopAt(0))
    run = build.build(small(tiny_config, METHODS[name], 3))
    of_run = training(run)
    with pytest.raises(Preempted, match=r"saved after step 3\."):  # The signal came during the first three steps.
        train_endpoints(of_run, tmp_path / "several", StopAt(1))
    train_endpoints(of_run, tmp_path / "several", StopAt(0))
    expected, found = (newest_state(run, tmp_path / folder) for folder in ("single", "several"))
    assert int(expected.step) == 14
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    rows, expected_rows = (without_speed(read_rows(tmp_path / folder)) for folder in ("several", "single"))
    assert rows == expected_rows
    assert [(row["kind"], row["step"]) for row in rows if row["kind"] == "train"] == [
        ("train", n) for n in (4, 8, 12, 14)
    ]
    assert steps_in(tmp_path / "several" / "checkpoints") == steps_in(tmp_path / "single" / "checkpoints") == [7, 14]


def test_steps_are_cut_where_the_loop_needs_the_state():
    cadence = Cadence(20, epoch_steps=8, log_steps=3, save_steps=16, kept_steps=(5,), profile_steps=(11, 12))
    found, step = [], 0
    while step < 20:
        found.append(list(cadence.next_steps(step, 3)))
        step = found[-1][-1]
    # After steps 5, 8, 10, 12 and 16 and at the end. The rows of the log cut nothing.
    assert found == [[1, 2, 3], [4], [5], [6, 7, 8], [9], [10], [11], [12], [13, 14, 15], [16], [17, 18, 19], [20]]


@pytest.mark.parametrize("network", ["mlp", "cresnet"])
def test_convolutions_on_the_cpu_take_single_steps(tiny_config, network, caplog):
    tiny_config.model.name, tiny_config.steps_per_dispatch = network, 3
    tiny_config.model.depth = {"mlp": 1, "cresnet": 8}[network]
    run = build.build(tiny_config)
    assert feeding.steps_per_dispatch(run) == {"mlp": 3, "cresnet": 1}[network]
    feeding.feed(run)
    assert caplog.text.count("steps_per_dispatch is 3, but the network may have convolutions") == (network == "cresnet")


@pytest.mark.parametrize(("count", "multiple"), [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("n", [24, 29, 12, 13])
def test_a_device_gathers_the_rows_that_the_host_would_send(monkeypatch, n, count, multiple):
    """For blocks that are shorter than an epoch, a last batch that the devices do not divide, and from any step on."""
    monkeypatch.setattr("jsubspace.data.resident.BLOCK_STEPS", 3)
    x = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
    data, devices = Resident((x, np.arange(n)), batch_size=6, seed=1), DataParallel(tuple(jax.devices()[:count]))
    shard, examples = Shard(0, 1, multiple), (jnp.asarray(x), jnp.arange(n))
    whole = list(itertools.islice(devices.put_batches(data.batches(0, shard), multiple), 12))
    for start in (0, 1, data.steps_per_epoch - 1, 7):
        step = start
        for block in data.blocks(start, shard):
            rows = np.asarray(devices.put_rows(block.rows, multiple))
            for step in range(max(start, block.first), min(block.first + block.num_steps, 12)):
                found = [data.gather(examples, of_device, step) for of_device in jnp.asarray(rows)]
                for i, device in enumerate(found):
                    for ours, theirs in zip(device, whole[step], strict=True):
                        np.testing.assert_array_equal(ours, theirs[i])
            if step == 11:
                break


def test_what_does_not_live_on_the_devices(tiny_config, monkeypatch):
    """Examples above the limit, and a subclass that yields other batches than its arrays."""
    run = build.build(small(tiny_config, {}, 1))
    assert feeding.resident(run) is run.problem.data.resident
    monkeypatch.setattr(feeding, "RESIDENT_BYTES", 2 * run.problem.data.resident.num_bytes - 1)
    assert run.devices.count == 2  # Two copies in the memory of one machine.
    assert feeding.resident(run) is None

    class Others(ArrayData):
        def train_batches(self, *args):
            return iter(())

    x = np.zeros((4, 2), np.float32)
    assert Others(train=(x, x), test=(x, x), batch_size=2).resident is None
    assert ArrayData(train=(x, x), test=(x, x), batch_size=2).resident is not None


def test_no_program_reaches_into_the_smaller_last_batch(tiny_config):
    """From step 5 on, three steps would end with the seventh, whose batch is smaller."""
    run = build.build(small(tiny_config, {"num_devices": 1}, 3))
    taken = [list(steps) for steps, _ in itertools.islice(feeding.feed(run).batches(1, None), 5)]
    assert taken == [[2, 3, 4], [5], [6], [7], [8, 9, 10]]
