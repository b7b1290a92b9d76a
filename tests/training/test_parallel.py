"""Devices: batches are split, moved and added up; what does not fit is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsubspace.errors import UsageError
from jsubspace.evaluation.devices import SAME, SPLIT
from jsubspace.training import device_choice
from jsubspace.training.parallel import AXIS, DataParallel


def on(count):
    return DataParallel(tuple(jax.devices()[:count]))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_every_device_gets_its_part_in_order(count):
    batch = {"x": np.arange(16.0, dtype=np.float32)}

    def gathered(batch, offset):
        return jax.lax.all_gather(batch["x"] + offset, AXIS, tiled=True)

    devices = on(count)
    (put,) = devices.put_batches([batch])
    result = devices.compile(gathered, (SPLIT, SAME))(put, devices.put(jnp.float32(1)))
    np.testing.assert_array_equal(result, batch["x"] + 1)


def test_a_batch_that_does_not_divide_goes_whole_to_every_device():
    devices = on(4)
    (put,) = devices.put_batches([np.arange(7.0, dtype=np.float32)])
    mean = devices.compile(lambda batch: jax.lax.pmean(jnp.mean(batch), AXIS), (SPLIT,))(put)
    assert float(mean) == pytest.approx(3.0)


def test_parts_of_a_share():
    devices = on(2)
    whole, short, odd = devices.put_batches([np.arange(12), np.arange(9), np.arange(6)], parts=3)
    assert whole.shape == (2, 6)
    assert short.shape == (2, 9)  # a multiple of 3, not of 2 x 3: whole to each
    assert odd.shape == (2, 3)
    (cut,) = devices.put_batches([np.arange(8)], parts=3)
    assert cut.shape == (2, 3)  # two are left out


def test_order_is_kept_and_reading_ahead_is_bounded():
    read = []

    def batches():
        for i in range(10):
            read.append(i)
            yield np.full(2, i)

    moved = on(1).put_batches(batches(), ahead=2)
    assert int(next(moved)[0, 0]) == 0
    assert read == [0, 1, 2]
    assert [int(batch[0, 0]) for batch in moved] == list(range(1, 10))


def test_sum_over_many_batches():
    devices = on(2)
    total = devices.sum_over(
        devices.compile(lambda batch: {"sum": jax.lax.psum(jnp.sum(batch), AXIS)}, (SPLIT,)),
        (np.full(4, i) for i in range(50)),
    )
    assert int(total["sum"]) == 4 * sum(range(50))


def test_donated_state_keeps_its_place_and_is_not_traced_again():
    traces = []

    def step(state, batch):
        traces.append(0)
        return state + jax.lax.pmean(jnp.mean(batch), AXIS)

    devices = on(2)
    compiled, state = devices.compile(step, (SAME, SPLIT), donate=(0,)), devices.put(jnp.zeros(()))
    for batch in devices.put_batches(np.ones(4, np.float32) for _ in range(3)):
        before, state = state, compiled(state, batch)
        assert before.is_deleted()
    assert float(state) == 3
    assert len(traces) == 1


def test_cpu_devices_are_as_many_as_divide_the_batches():
    assert len(device_choice.data_parallel({"a": 128, "b": 512}).devices) == 8
    assert len(device_choice.data_parallel({"a": 12, "b": 18}).devices) == 6
    assert len(device_choice.data_parallel({"a": 7}).devices) == 7
    assert len(device_choice.data_parallel({"a": 11}).devices) == 1


def test_a_number_of_devices_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match=r"config\.data\.batch_size is 10, which 4 devices do not divide"):
        device_choice.data_parallel({"config.data.batch_size": 10}, num_devices=4)
    with pytest.raises(UsageError, match="num_devices is 9 but this machine has 8"):
        device_choice.data_parallel({"config.data.batch_size": 9}, num_devices=9)
