"""What several tests of whole runs share: the state at the end, the rows without the speed, and signals on demand."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.preemption import Preemption
from jsubspace.runs import build
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.training import optim, schedules
from jsubspace.training.train_state import init_train_state


def final_state(settings, workdir):
    """The state in the newest checkpoint of a run, on the host."""
    run = build.build(settings)
    with Checkpoints(pathlib.Path(workdir) / "checkpoints", read_only=True) as checkpoints:
        state, _ = checkpoints.restore(jax.eval_shape(run.init_state), run.devices.replicated)
    return jax.tree.map(np.asarray, state)


def without_speed(rows):
    """Rows of metrics.jsonl without the number that differs between two runs."""
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in rows]


class StopAt(Preemption):
    """Acts as if a signal came during the ``step``-th step of this process. The first step is 1; for 0 none comes."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def received(self):
        self.left -= 1
        return None if self.left else "SIGTERM"


def make_state(seed=0, m=2):
    """A small train state with random endpoints."""
    endpoints = {"w": jax.random.normal(jax.random.key(seed), (m, 5, 3)), "b": jnp.full((m, 3), 1 / 3)}
    return init_train_state(endpoints, optim.sgd(schedules.warmup_cosine(0.1, 1, 9), 0.9, 1e-4))


def same(a, b):
    """Asserts that two trees are equal to the bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)
