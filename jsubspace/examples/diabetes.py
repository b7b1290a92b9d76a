"""Regression with uncertainty: networks that return a Gaussian, on scikit-learn's diabetes data, against independent networks."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jsubspace
from jsubspace.examples import fitting, intervals, mlp
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints, Params

MIDDLE, UNIT = 150.0, 75.0
"""Targets are (disease progression - MIDDLE) / UNIT. The constants are the same for every split, and not fitted."""

TASK = jsubspace.Regression(levels=(0.5, 0.9))

MEMBERS = 5
"""The number of independent networks."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a network or a subspace is trained.

    Attributes:
      num_steps: of Adam, with a rate that falls to zero along a cosine.
      decay: the weight decay, as in AdamW.
      rate: the first learning rate.
      beta: the weight of the penalty.
      width: of the two hidden layers.
      batch_size: the number of patients of a step.
    """

    num_steps: int
    decay: float
    rate: float = 1e-3
    beta: float = 1.0
    width: int = 64
    batch_size: int = 64


GRID = tuple(
    Settings(num_steps, decay) for num_steps, decay in itertools.product((400, 800, 1600), (0.1, 1.0, 5.0, 10.0))
)
"""The settings among which validation data choose, for every predictor on its own."""

Found: TypeAlias = dict[str, dict[str, dict[str, np.ndarray]]]
"""Numbers ``[num_splits]`` by part of the data, predictor and score."""


def init_fn(key: jax.Array, width: int) -> Params:
    """One network of two hidden layers: ten inputs, and two outputs."""
    return mlp.init(key, (10, width, width, 2))


def predict_fn(point: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean and the log-variance of every patient's target, both ``[n]``."""
    outputs = mlp.apply(point, x)
    return outputs[:, 0], outputs[:, 1]


def loss_fn(point: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean negative log-density of the targets."""
    mean, log_variance = predict_fn(point, x)
    return 0.5 * jnp.mean(log_variance + (y - mean) ** 2 * jnp.exp(-log_variance) + jnp.log(2 * jnp.pi))


def splits(num_splits: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random splits of the 442 patients into 264 for training, 89 for validation and 89 for the test.

    Returns:
      ``(x [num_splits, n, 10], y [num_splits, n])`` by the names "train", "validation" and "test".
    """
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    x = np.asarray(data.data * len(data.data) ** 0.5, np.float32)  # scikit-learn's columns have the length 1.
    y = np.asarray((data.target - MIDDLE) / UNIT, np.float32)
    orders = np.stack([np.random.default_rng(seed).permutation(len(x)) for seed in range(num_splits)])
    parts = zip(("train", "validation", "test"), np.split(orders, [264, 353], axis=1), strict=True)
    return {name: (x[rows], y[rows]) for name, rows in parts}


@functools.partial(jax.jit, static_argnames=("subspace", "settings"))
def train(keys: jax.Array, data: tuple[Any, Any], subspace: Subspace, settings: Settings) -> Endpoints:
    """Trains a subspace for every key ``[n]`` with the rows of data ``[n, ...]``, all at once. Leaves are ``[n, m, *s]``."""
    schedule = optax.cosine_decay_schedule(settings.rate, settings.num_steps)
    optimizer = jsubspace.per_endpoint(optax.adamw(schedule, weight_decay=settings.decay))
    run = fitting.steps(
        loss_fn, subspace, optimizer, fitting.rows(settings.batch_size), settings.num_steps, beta=settings.beta
    )

    def trained(key: jax.Array, data: tuple[jax.Array, jax.Array]) -> Endpoints:
        init_key, key = jax.random.split(key)
        endpoints = jsubspace.init_endpoints(init_key, lambda key: init_fn(key, settings.width), subspace)
        return run(key, fitting.start(endpoints, optimizer), data)[0].endpoints

    return jax.vmap(trained)(keys, data)


@jax.jit
@jax.vmap
def _means(members: Endpoints, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    outputs = jax.vmap(lambda point: TASK.reduce(predict_fn(point, x), y))(members)
    return {name: jnp.mean(values) for name, values in TASK.per_example(outputs, y).items()}


def scores(members: Endpoints, data: tuple[Any, Any]) -> dict[str, np.ndarray]:
    """The scores of one mixture of networks per split, ``[num_splits]`` by name, as `jsubspace.measure` computes them.

    Args:
      members: leaves ``[num_splits, e, *s]``, e members for each split.
      data: ``(x, y)`` of one part of `splits`.
    """
    return TASK.summary({name: np.asarray(mean) for name, mean in _means(members, *data).items()})


def compare(settings: Settings, num_splits: int = 10) -> Found:
    """Scores of a line and of `MEMBERS` independent networks that are trained by the same settings, on several splits.

    Every split has seeds of its own. The line costs as many steps as one of the networks.

    Returns:
      By part of the data ("validation" to choose by, and "test"), predictor and score, one number per split.
    """
    data = splits(num_splits)
    line_key, network_key = jax.random.split(jax.random.key(0))
    lines = train(jax.random.split(line_key, num_splits), data["train"], jsubspace.Line(), settings)
    keys = jax.random.split(network_key, num_splits * MEMBERS)
    for_each = jax.tree.map(lambda array: np.repeat(array, MEMBERS, axis=0), data["train"])
    networks = train(keys, for_each, jsubspace.Point(), settings)
    networks = jax.tree.map(lambda leaf: leaf.reshape(num_splits, MEMBERS, *leaf.shape[2:]), networks)
    predictors = {
        "one network": jax.tree.map(lambda leaf: leaf[:, :1], networks),
        "midpoint of the line": jax.vmap(lambda ends: jsubspace.stack([jsubspace.midpoint(ends)]))(lines),
        "ensemble of its ends": lines,
        "2 independent networks": jax.tree.map(lambda leaf: leaf[:, :2], networks),
        f"{MEMBERS} independent networks": networks,
    }
    return {
        part: {name: scores(members, data[part]) for name, members in predictors.items()}
        for part in ("validation", "test")
    }


def chosen(found: Mapping[Settings, Found]) -> dict[str, Settings]:
    """For every predictor, the settings with the lowest mean NLL on validation data."""

    def nll(settings: Settings, name: str) -> float:
        return float(found[settings]["validation"][name]["nll"].mean())

    predictors = next(iter(found.values()))["validation"]
    return {name: min(found, key=functools.partial(nll, name=name)) for name in predictors}


def table(found: Mapping[Settings, Found], of: Mapping[str, Settings]) -> str:
    """The test scores of every predictor, as Markdown: means over splits, with half of the 95 % t interval.

    The last column compares the NLL with the last predictor's, split by split.

    Args:
      found: what `compare` returned for some settings.
      of: the settings of each predictor.
    """
    names = ("rmse", "nll", "crps", "coverage_50", "coverage_90")
    lines = [
        f"| predictor | steps, decay | {' | '.join(_TITLES[name] for name in names)} | NLL, difference |",
        f"|{' --- |' * (len(names) + 3)}",
    ]
    rows = {predictor: found[settings]["test"][predictor] for predictor, settings in of.items()}
    last = list(rows)[-1]
    for predictor, row in rows.items():
        settings = of[predictor]
        difference = "" if predictor == last else intervals.of_seeds(row["nll"] - rows[last]["nll"])
        cells = [
            predictor,
            f"{settings.num_steps}, {settings.decay:g}",
            *(intervals.of_seeds(row[name]) for name in names),
        ]
        lines.append(f"| {' | '.join([*cells, difference])} |")
    return "\n".join(lines)


_TITLES = {"rmse": "RMSE", "nll": "NLL", "crps": "CRPS", "coverage_50": "in 50 %", "coverage_90": "in 90 %"}
