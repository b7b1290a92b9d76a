"""Checkpoints: what is saved comes back to the bit, on any devices."""

import jax
import numpy as np
import pytest
from whole_runs import make_state, same

from jsubspace.errors import UsageError
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.training.parallel import DataParallel


@pytest.mark.parametrize("count", [1, 8])
def test_round_trip_to_other_devices(tmp_path, count):
    saved_on, restored_on = (DataParallel(tuple(jax.devices()[:n])) for n in (2, count))
    state, notes = make_state(step=7), {"seconds": 0.1, "journal": {"count": 3, "sums": {"loss": 1 / 3}}}
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(saved_on.put(state), 7, notes)
    with Checkpoints(tmp_path / "c") as checkpoints:
        restored, restored_notes = checkpoints.restore(jax.eval_shape(make_state), restored_on.replicated)
    same(restored, state)
    assert restored_notes == notes
    assert restored.endpoints["w"].sharding == restored_on.replicated


def test_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert checkpoints.latest_step() is None
        for step in (1, 2, 3):
            checkpoints.save(make_state(step), step, {})
    assert sorted(int(path.name) for path in (tmp_path / "c").iterdir() if path.name.isdigit()) == [2, 3]
    with Checkpoints(tmp_path / "c") as checkpoints:
        restored, _ = checkpoints.restore(jax.eval_shape(make_state), DataParallel((jax.devices()[0],)).replicated)
    same(restored, make_state(3))


def test_a_state_may_be_donated_while_it_is_saved(tmp_path):
    advance = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = jax.device_put(make_state(1))
    expected = jax.tree.map(np.asarray, make_state(1))
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 1, {})
        for _ in range(5):
            state = advance(state)
    with Checkpoints(tmp_path / "c") as checkpoints:
        restored, _ = checkpoints.restore(jax.eval_shape(make_state), DataParallel((jax.devices()[0],)).replicated)
    same(restored, expected)


def test_no_checkpoint_is_a_clear_error(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(UsageError, match=r"no checkpoint in .*Train first"):
        checkpoints.restore(jax.eval_shape(make_state), DataParallel((jax.devices()[0],)).replicated)
