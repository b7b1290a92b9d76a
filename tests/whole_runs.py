"""What several tests of whole runs share: the state at the end, the rows without the speed, and signals on demand."""

import gc
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsubspace.errors import Preempted
from jsubspace.preemption import Preemption
from jsubspace.runs import build, config
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.training import optim, schedules
from jsubspace.training.train_state import init_train_state


def tiny_settings(data_dir):
    """The settings of a run of seconds on digits: see the fixture ``tiny_config``."""
    settings = config.default()
    settings.data.name = "digits"
    settings.data.dir = data_dir
    settings.model.depth = 8
    settings.model.width = 4
    settings.optimizer.num_epochs = 3
    settings.optimizer.warmup_epochs = 1
    settings.evaluation.num_points = 3
    settings.evaluation.num_resamples = 100
    settings.evaluation.batch_size = 128
    settings.log_every_steps = 5
    settings.checkpoint_every_epochs = 1
    settings.num_devices = 2
    return settings


def final_state(settings, workdir):
    """The state in the newest checkpoint of a run, on the host."""
    return newest_state(build.build(settings), workdir)


def newest_state(run, workdir):
    """The same of a run that has been built."""
    with Checkpoints(pathlib.Path(workdir) / "checkpoints", read_only=True) as checkpoints:
        state, _ = checkpoints.restore(run.state_shape, run.devices.replicated)
    return jax.tree.map(np.asarray, state)


def without_speed(rows):
    """Rows of metrics.jsonl without the number that differs between two runs."""
    return [{name: value for name, value in row.items() if not name.endswith("_per_second")} for row in rows]


class StopAt(Preemption):
    """Acts as if a signal came during the ``step``-th step of this process. The first step is 1; for 0 none comes."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def received(self):
        self.left -= 1
        return None if self.left else "SIGTERM"


def whole_and_interrupted(train, folder, interruptions):
    """What ``train(workdir, preemption)`` returns in the folder ``whole``, and after interruptions after these steps in ``interrupted``."""
    whole, before = train(folder / "whole", StopAt(0)), 0
    for step in interruptions:
        with pytest.raises(Preempted, match=rf"saved after step {step}\."):
            train(folder / "interrupted", StopAt(step - before))
        before = step
    return whole, train(folder / "interrupted", StopAt(0))


def make_state(seed=0, m=2, step=None):
    """A small train state with random endpoints, after as many steps as its seed unless told otherwise."""
    endpoints = {"w": jax.random.normal(jax.random.key(seed), (m, 5, 3)), "b": jnp.full((m, 3), 1 / 3)}
    state = init_train_state(endpoints, optim.sgd(schedules.warmup_cosine(0.1, 1, 9), 0.9, 1e-4))
    return state._replace(step=jnp.int32(seed if step is None else step))


def same(a, b):
    """Asserts that two trees are equal to the bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def results_of(settings, predictors):
    """The content of a finished run's results.json, with as little as its layout allows."""
    name = predictors[0]["name"]
    scores = dict.fromkeys(("accuracy", "nll", "brier", "ece"), 0.5)
    return {
        "schema": 3, "config": settings, "finished": True, "early_stopping": None, "predictors": predictors,
        "points": [{"name": name, "kind": "grid", "roles": ["center"], "alpha": 0.5} | scores],
        "ensembles": [], "midpoint": name, "endpoints": {"all_leaves": {"l2": [[0.0]], "cosine_squared": [[1.0]]}},
        "reliability": {"count": [1], "confidence": [0.5], "accuracy": [0.5]},
        "connector": None, "sharpness": None, "plane": None, "shifted": {},
    }  # fmt: skip


def dropped_by_orbax():
    """Collects the threads and coroutines that Orbax has dropped where it gave up. Otherwise a later test would find them."""
    time.sleep(1)
    gc.collect()
