"""Ideas that may make a line better, each with its reason, and the training that tries them.

The training is a short loop with `jsubspace.value_and_grad_at`. The position of every step is therefore given, and the rate, the
decay and beta are numbers that compile nothing again.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jsubspace
from experiments.lib.study_record import measured
from jsubspace import points
from jsubspace.evaluation import measure
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.survey import Survey
from jsubspace.runs import adapters, results
from jsubspace.runs.build import Run
from jsubspace.training import schedules
from jsubspace.training.train_step import task_loss
from jsubspace.types import Endpoints

RATE, DECAY, MOMENTUM, EMA, STRATA = 0.1, 1e-4, 0.9, 0.99, 8
LINE = jsubspace.Line()


def uniform(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Independent positions, as in the paper."""
    return rng.random(steps)


def sequence(rng: np.random.Generator, steps: int) -> np.ndarray:
    """The sequence of van der Corput, which fills the line evenly at every length, after a random shift."""
    bits = (np.arange(steps)[:, None] >> np.arange(32)) & 1
    return (bits @ 0.5 ** np.arange(1, 33) + rng.random()) % 1


def stratified(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Eight steps in a row have one position in each eighth of the line, in a random order."""
    blocks = -(-steps // STRATA)
    order = rng.permuted(np.tile(np.arange(STRATA), (blocks, 1)), axis=1)
    return ((order + rng.random(order.shape)) / STRATA).ravel()[:steps]


def antithetic(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Every second position is the mirror image of the position before it."""
    first = rng.random(-(-steps // 2))
    return np.stack([first, 1 - first], axis=1).ravel()[:steps]


@dataclasses.dataclass(frozen=True)
class Idea:
    """Something to try.

    Attributes:
      name: the name of its row.
      reason: why it may help. It was written before any result.
      rate_times, decay_times: the rate 0.1 and the decay 1e-4 are multiplied by them.
      positions: how alpha is drawn.
      growth: the fraction of the run in which the spread of alpha grows from 0.
      trunk_epochs: before this epoch, both ends are one network that is trained as standard training trains it.
      pull_back, sam_rho: options of `jsubspace.value_and_grad`.
      ema: whether the average of the endpoints over the last 100 steps is also measured.
    """

    name: str
    reason: str
    rate_times: float = 1.0
    decay_times: float = 1.0
    positions: Callable[[np.random.Generator, int], np.ndarray] = uniform
    growth: float = 0.0
    trunk_epochs: int = 0
    pull_back: str = "plain"
    sam_rho: float = 0.0
    ema: bool = False


STANDARD, PLAIN = "standard", "line"
ALWAYS = 1000
"""A trunk of more epochs than any run has: standard training."""

IDEAS = (
    Idea(STANDARD, "The reference: one network.", trunk_epochs=ALWAYS),
    Idea(PLAIN, "The paper's line at the rate and decay of standard training.", ema=True),
    Idea(
        "rate · 2", "The midpoint moves at half the rate, and twice the rate gives it one network's rate.", rate_times=2
    ),
    Idea(
        "rate · 2, decay / 2",
        "The midpoint's decay is doubled relative to its gradient. This gives it one network's rate and one network's decay.",
        rate_times=2,
        decay_times=1 / 2,
    ),
    Idea(
        "rate · 4, decay / 4",
        "The differences of the ends learn at a sixth of the rate. A rate beyond one network's is nearer to it, if it stays stable.",
        rate_times=4,
        decay_times=1 / 4,
    ),
    Idea(
        "decay · 2",
        "Larger decay was better for standard training at small budgets, so the line may gain from still more.",
        decay_times=2,
    ),
    Idea(
        "sequence",
        "Positions that fill the line evenly have less variance over a few steps than independent ones.",
        positions=sequence,
    ),
    Idea(
        "stratified",
        "The same as the sequence, but still random within each eighth.",
        positions=stratified,
    ),
    Idea(
        "antithetic",
        "The noise of the difference of the ends is odd in alpha - 1/2. Mirrored steps cancel most of it under momentum.",
        positions=antithetic,
    ),
    Idea(
        "trunk of 5 epochs",
        "Noise hurts most while the network knows nothing. Both ends share the warm-up and part afterwards.",
        trunk_epochs=5,
    ),
    Idea(
        "trunk of 15 epochs",
        "The same with half of the run. The ends may then stay too close to be two networks.",
        trunk_epochs=15,
    ),
    Idea(
        "sharpness-aware, 0.05",
        "A step uphill at the point looks for flat networks, and a line needs flat directions between its ends.",
        sam_rho=0.05,
    ),
    Idea(
        "center and growing spread",
        "Both options of docs/center.md: one network's rate for the midpoint, and noise that grows.",
        pull_back="center",
        growth=0.5,
        ema=True,
    ),
    Idea(
        "center, growing spread, stratified",
        "If less variance of the positions helps, it should help here too.",
        pull_back="center",
        growth=0.5,
        positions=stratified,
    ),
)
OF_AVERAGE = "{}, average of 100 steps"
REASON_OF_AVERAGE = (
    "At every rate the ends still move, and an average of steps is nearer to the middle of their valley."
)


class Carry(NamedTuple):
    """What a step passes on: the endpoints, their momentum and their average."""

    endpoints: Endpoints
    momentum: Endpoints
    average: Endpoints


class Trial:
    """One problem on which ideas are tried. Every program is compiled once.

    Args:
      run: data, network and budget, with validation images.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._steps_per_epoch = run, run.problem.data.steps_per_epoch
        self._plan: Survey = results.plan_of(run)
        self._evaluator: Evaluator = adapters.evaluator(run, run.problem.task, self._plan)
        self._steps: dict[tuple[str, bool], Any] = {}

    def __call__(self, idea: Idea, seed: int) -> dict[str, dict[str, Any]]:
        """Trains with one seed. Returns what `measure` returns, for the idea and for its average if the idea has one."""
        epochs = self._run.settings.optimizer.num_epochs
        steps, unit = epochs * self._steps_per_epoch, self._steps_per_epoch
        schedule = schedules.make_schedule(
            schedules.COSINE,
            RATE * idea.rate_times,
            warmup_epochs=self._run.settings.optimizer.warmup_epochs,
            num_epochs=epochs,
            unit=unit,
        )
        rates = np.asarray(jax.vmap(schedule)(jnp.arange(steps)), np.float32)
        alphas = spread_out(idea.positions(np.random.default_rng(seed), steps), idea.growth)
        trunk = min(steps, idea.trunk_epochs * unit)
        key = jax.random.key(seed)
        network = self._run.problem.network
        endpoints = points.init_endpoints(
            jax.random.fold_in(key, 2**32 - 1), network.init, LINE, common_start=trunk > 0
        )
        carry = Carry(endpoints, jax.tree.map(jnp.zeros_like, endpoints), jax.tree.map(jnp.copy, endpoints))
        for i, arrays in zip(range(steps), self._batches(seed), strict=False):
            parted = i >= trunk
            step = self._step(idea.pull_back if parted else "center", idea.sam_rho if parted else 0.0)
            numbers = (
                np.float32(alphas[i] if parted else 0.5),
                rates[i],
                np.float32(DECAY * idea.decay_times),
                np.float32(parted),
            )
            carry = step(carry, arrays, numbers, jax.random.fold_in(key, i))
        found = {idea.name: self.measure(carry.endpoints)}
        return found | ({OF_AVERAGE.format(idea.name): self.measure(carry.average)} if idea.ema else {})

    def measure(self, endpoints: Endpoints) -> dict[str, Any]:
        """What `study_record.measured` keeps, of the validation images alone."""
        run, evaluator = self._run, self._evaluator
        rows = evaluator.rows(endpoints, run.evaluated, run.evaluation_key)
        outcomes = adapters.on_validation_data(run, evaluator, rows, adapters.batch_stats(run, evaluator, rows))
        report = measure.report_of(endpoints, run.evaluated, self._plan, outcomes, run.problem.task, 2)
        found = measured(report.to_json() | {"validation": None})
        return {"validation": found.pop("test")} | {
            name: value for name, value in found.items() if name != "validation"
        }

    def _batches(self, seed: int) -> Iterator[Any]:
        """The batches of a seed, which start at an epoch of their own."""
        start = seed * 10_000 * self._steps_per_epoch
        return iter(self._run.problem.data.train_batches(start, self._run.shard))

    def _step(self, pull_back: str, sam_rho: float) -> Callable[..., Carry]:
        if (pull_back, sam_rho > 0) not in self._steps:
            loss_fn = task_loss(self._run.problem.network.on_one_device, self._run.problem.task)
            augment = self._run.problem.data.augment

            @functools.partial(jax.jit, donate_argnums=0)
            def step(carry: Carry, arrays: Any, numbers: Any, key: jax.Array) -> Carry:
                alpha, rate, decay, beta = numbers
                augment_key, dropout_key = jax.random.split(key)
                batch = augment(augment_key, *arrays)
                grad_fn = jsubspace.value_and_grad_at(
                    loss_fn, LINE, beta=beta, pull_back=pull_back, sam_rho=sam_rho, has_aux=True
                )
                _, grads = grad_fn(alpha, (0, 1), carry.endpoints, batch, dropout_key)
                momentum = jax.tree.map(
                    lambda m, g, w: MOMENTUM * m + g + decay * w, carry.momentum, grads, carry.endpoints
                )
                endpoints = jax.tree.map(lambda w, m: w - rate * m, carry.endpoints, momentum)
                average = jax.tree.map(lambda a, w: EMA * a + (1 - EMA) * w, carry.average, endpoints)
                return Carry(endpoints, momentum, average)

            self._steps[pull_back, sam_rho > 0] = step
        made: Callable[..., Carry] = self._steps[pull_back, sam_rho > 0]
        return made


def spread_out(alphas: np.ndarray, growth: float) -> np.ndarray:
    """Positions with a spread around 1/2 that grows from 0 to 1 over this fraction of the steps.

    Example:
      >>> spread_out(np.array([0.0, 0.0, 1.0, 1.0]), 0.5).tolist()
      [0.5, 0.25, 1.0, 1.0]
    """
    steps = len(alphas)
    spread = np.minimum(1.0, np.arange(steps) / (growth * steps)) if growth else np.ones(steps)
    grown: np.ndarray = 0.5 + spread * (alphas - 0.5)
    return grown
