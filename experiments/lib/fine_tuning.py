"""The shifted digits: a network of upright digits is fine-tuned on mirrored ones, in each of several ways."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jsubspace
from jsubspace.data import examples, sets
from jsubspace.types import Endpoints, Params

NUM_TRAIN = NUM_VALIDATION = 200
"""Mirrored images to train on, and others to choose the learning rate on. The base network does not see them."""

BATCH_SIZE = 50
WIDTHS = (64, 64, 64, 10)
"""Pixels, two hidden layers, classes."""

RANK = 4
BASE_STEPS = 1000
RATES = {"Adam": (1e-3, 3e-3, 1e-2, 3e-2), "SGD": (0.003, 0.01, 0.03, 0.1)}
"""The learning rates to choose from. SGD has a momentum of 0.9. There is no weight decay."""

ALPHAS = np.linspace(0, 1, 11)
PAIRS = ("lora_a", "lora_b")


class Data(NamedTuple):
    """The images of one seed, flat and standardised, and their labels. Stacked over seeds, leaves are ``[seeds, ...]``."""

    base: tuple[np.ndarray, np.ndarray]
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    mirrored: tuple[np.ndarray, np.ndarray]
    original: tuple[np.ndarray, np.ndarray]


class Measured(NamedTuple):
    """What is measured of one way, with a leading axis over seeds.

    Attributes:
      validation, mirrored, original: right answers ``[points, n]`` on the images of this name.
      moved: L2 distances of the points from the base ``[points]``.
      cosine: cos² of the task vectors of the two ends, over kernels. NaN for a single network.
    """

    validation: np.ndarray
    mirrored: np.ndarray
    original: np.ndarray
    moved: np.ndarray
    cosine: np.ndarray


@dataclasses.dataclass(frozen=True)
class Way:
    """A way of fine-tuning.

    Attributes:
      label: its name in tables.
      start: ``(key, base) -> endpoints``.
      network: ``(base, point) -> network``. The loss is the loss of this network.
      subspace: what is trained.
      options: ``base -> options`` of `jsubspace.value_and_grad`.
      evaluated: what the points are taken from after training.
      like: the label of the way that trains a single network of this kind. Its learning rate is taken.
    """

    label: str
    start: Callable[[jax.Array, Params], Endpoints]
    network: Callable[[Params, Params], Params]
    subspace: Any = dataclasses.field(default_factory=jsubspace.Line)
    options: Callable[[Params], dict[str, Any]] = lambda base: {}
    evaluated: Callable[[Endpoints], Endpoints] = lambda endpoints: endpoints
    like: str = "one network"

    @property
    def is_single(self) -> bool:
        """Whether one network is trained."""
        return self.subspace.num_endpoints == 1


def ways() -> list[Way]:
    """All ways: whole weights, then low-rank factors. The single network of a kind comes first."""

    def copies(key: jax.Array, base: Params) -> Endpoints:
        return jsubspace.init_endpoints(key, lambda _: base, jsubspace.Line(), common_start=True)

    def zeros(key: jax.Array, base: Params) -> Endpoints:
        return jsubspace.deltas(base, jsubspace.Line())

    def factors(subspace: jsubspace.Subspace) -> Callable[[jax.Array, Params], Endpoints]:
        return lambda key, base: jsubspace.init_endpoints(key, lambda k: low_rank(k, base), subspace)

    def itself(base: Params, point: Params) -> Params:
        return point

    def of(**options: Any) -> Callable[[Params], dict[str, Any]]:
        return lambda base: options

    line, point = jsubspace.Line(), jsubspace.Point()
    return [
        Way("one network", lambda key, base: jsubspace.stack([base]), itself, point),
        Way("common start, β = 0", copies, itself, options=of(beta=0.0)),
        Way("common start, β = 1", copies, itself, options=of(beta=1.0)),
        Way("origin, β = 1", copies, itself, options=lambda base: {"beta": 1.0, "origin": base}),
        Way("deltas, β = 0", zeros, added, options=of(beta=0.0)),
        Way("deltas, β = 1", zeros, added, options=of(beta=1.0)),
        Way("one LoRA", factors(point), adapted, point, like="one LoRA"),
        Way("LoRA, factors, β = 1", factors(line), adapted, options=of(beta=1.0), like="one LoRA"),
        Way(
            "LoRA, products, β = 1",
            factors(line),
            adapted,
            options=of(beta=1.0, products=PAIRS),
            evaluated=lambda endpoints: jsubspace.as_products(endpoints, PAIRS),
            like="one LoRA",
        ),
    ]


def load(seed: int, data_dir: str = "") -> Data:
    """The images of one seed. The test images are the same for all seeds."""
    digits = sets.find("digits")
    train, test = (examples.read(digits, data_dir, split) for split in ("train", "test"))
    order = np.random.default_rng(seed).permutation(len(train))
    parts = np.split(order, [NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION])
    tuned, validation, base = (train.chosen(rows) for rows in parts)

    def flat(images: np.ndarray) -> np.ndarray:
        pixels = images.reshape(len(images), -1).astype(np.float32) / 255
        return (pixels - digits.mean[0]) / digits.std[0]

    def mirrored(some: examples.Examples) -> tuple[np.ndarray, np.ndarray]:
        return flat(some.images[:, :, ::-1]), some.labels

    return Data(
        (flat(base.images), base.labels), mirrored(tuned), mirrored(validation), mirrored(test),
        (flat(test.images), test.labels),
    )  # fmt: skip


def layer(i: int) -> str:
    """The name of layer i in the tree of a network."""
    return f"layer{i}"


def pretrained(key: jax.Array, data: Data) -> Params:
    """The base: a multilayer perceptron that Adam trained on upright digits."""
    init_key, train_key = jax.random.split(key)
    keys = jax.random.split(init_key, len(WIDTHS) - 1)
    start = {
        layer(i): {"kernel": jax.random.normal(k, (d, e)) * (2 / d) ** 0.5, "bias": jnp.zeros(e)}
        for i, (k, d, e) in enumerate(zip(keys, WIDTHS[:-1], WIDTHS[1:], strict=True))
    }
    grad_fn = jax.value_and_grad(loss)
    return _trained(
        start, optax.adam(1e-3), BASE_STEPS, lambda k, point, batch: grad_fn(point, *batch)[1], train_key, data.base
    )


def low_rank(key: jax.Array, base: Params) -> Params:
    """Factors of rank `RANK` for every kernel of the base: lora_a is random, and lora_b is zero."""
    keys = jax.random.split(key, len(base))
    return {
        name: {
            "lora_a": jax.random.normal(k, (leaves["kernel"].shape[0], RANK)) / leaves["kernel"].shape[0] ** 0.5,
            "lora_b": jnp.zeros((RANK, leaves["kernel"].shape[1])),
        }
        for k, (name, leaves) in zip(keys, base.items(), strict=True)
    }


def added(base: Params, delta: Params) -> Params:
    """The network base + delta."""
    return jax.tree.map(jnp.add, base, delta)


def adapted(base: Params, factors: Params) -> Params:
    """The network with ``kernel + lora_a lora_b`` in every layer. The factors may have any rank."""
    return {
        name: {"kernel": leaves["kernel"] + factors[name]["lora_a"] @ factors[name]["lora_b"], "bias": leaves["bias"]}
        for name, leaves in base.items()
    }


def logits(network: Params, x: jax.Array) -> jax.Array:
    """``[n, 64] -> [n, 10]``."""
    for i in range(len(network)):
        leaves = network[layer(i)]
        x = (jax.nn.relu(x) if i else x) @ leaves["kernel"] + leaves["bias"]
    return x


def loss(network: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(network, x), y).mean()


def fine_tuned(way: Way, optimizer: str, steps: int) -> Callable[[jax.Array, jax.Array, Params, Data], Measured]:
    """A function ``(key, learning rate, base, data) -> measured`` that trains and measures one seed."""

    def loss_fn(point: Params, base: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return loss(way.network(base, point), x, y)

    def run(key: jax.Array, rate: jax.Array, base: Params, data: Data) -> Measured:
        init_key, train_key = jax.random.split(key)
        direction = {"Adam": optax.scale_by_adam(), "SGD": optax.trace(decay=0.9)}[optimizer]
        tx = optax.chain(direction, optax.scale_by_learning_rate(rate))
        grad_fn = jsubspace.value_and_grad(loss_fn, way.subspace, **way.options(base))
        endpoints = _trained(
            way.start(init_key, base),
            tx,
            steps,
            lambda k, e, batch: grad_fn(k, e, base, *batch)[1],
            train_key,
            data.train,
        )
        return measured(way, endpoints, base, data)

    return run


def measured(way: Way, endpoints: Endpoints, base: Params, data: Data) -> Measured:
    """The points at `ALPHAS`, or the single network."""
    endpoints = way.evaluated(endpoints)
    alphas = jnp.zeros(1) if way.is_single else jnp.asarray(ALPHAS, jnp.float32)
    points = jax.vmap(lambda alpha: way.network(base, jsubspace.interpolate(endpoints, alpha, way.subspace)))(alphas)

    def right(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.vmap(lambda point: jnp.argmax(logits(point, x), axis=-1) == y)(points)

    change = jax.tree.map(lambda leaf, start: leaf - start, points, base)
    moved = jnp.sqrt(sum(jnp.sum(leaf**2, axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(change)))
    cosine = jnp.nan if way.is_single else jsubspace.cosine_squared(points, 0, len(ALPHAS) - 1, origin=base)
    return Measured(*(right(*of) for of in (data.validation, data.mirrored, data.original)), moved, jnp.asarray(cosine))


def _trained(
    start: Any,
    tx: optax.GradientTransformation,
    steps: int,
    grad_fn: Callable[[jax.Array, Any, Any], Any],
    key: jax.Array,
    data: tuple[Any, Any],
) -> Any:
    """``start`` after ``steps`` steps on random batches. ``grad_fn`` takes a key, the parameters and a batch."""

    def step(carry: Any, i: jax.Array) -> tuple[Any, None]:
        params, state = carry
        rows_key, grad_key = jax.random.split(jax.random.fold_in(key, i))
        rows = jax.random.choice(rows_key, len(data[1]), (BATCH_SIZE,), replace=False)
        updates, state = tx.update(grad_fn(grad_key, params, tuple(part[rows] for part in data)), state, params)
        return (optax.apply_updates(params, updates), state), None

    data = (jnp.asarray(data[0]), jnp.asarray(data[1]))  # A traced row of a numpy array does not exist.
    (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), jnp.arange(steps))
    return params
