"""Networks that exist already: a base, three fine-tunings of it, two independent networks, and a permuted copy."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jsubspace.data import examples, sets
from jsubspace.errors import UsageError
from jsubspace.merging.units import Symmetries, permuted, symmetries
from jsubspace.models import adapters
from jsubspace.models.cresnet import CResNet
from jsubspace.models.mlp import MLP
from jsubspace.network import Network
from jsubspace.types import Params

Arrays = tuple[np.ndarray, np.ndarray]

KINDS = ("MLP", "cResNet8")
TUNINGS = (("tuned slowly", 0.3), ("tuned", 1.0), ("tuned fast", 3.0))
"""The fine-tunings, and their learning rates as multiples of the usual one. Each has an order of its own."""

RATES = {"MLP": 0.05, "cResNet8": 0.05}
BATCH = 32
STATISTICS = 256
"""How many training images BatchNorm statistics come from."""


class Data(NamedTuple):
    """Images of 14 x 14 pixels ``[n, 14, 14, 1]`` with labels ``[n]`` for each use."""

    base: Arrays
    train: Arrays
    validation: Arrays
    test: Arrays


def load(data_dir: str, sizes: Sequence[int]) -> Data:
    """Fashion-MNIST: the first training images for the base, the next for fine-tuning, the next for validation, and test images.

    Raises:
      UsageError: if Fashion-MNIST is not prepared, or has too few images.
    """
    data_set = sets.find("fashion_mnist")
    parts = [examples.read(data_set, data_dir, split).pooled(2) for split in ("train", "test")]
    images = [((part.images / np.float32(255) - np.float32(0.286)) / np.float32(0.353)) for part in parts]
    ends = np.cumsum(sizes[:3])
    if len(images[0]) < ends[-1] or len(images[1]) < sizes[3]:
        raise UsageError(f"there are {len(images[0])} training and {len(images[1])} test images, fewer than {sizes}.")
    cut = [(images[0][end - n : end], parts[0].labels[end - n : end]) for n, end in zip(sizes, ends, strict=False)]
    return Data(cut[0], cut[1], cut[2], (images[1][: sizes[3]], parts[1].labels[: sizes[3]]))


def make(kind: str) -> Network:
    """A small network for these images. The cResNet has BatchNorm."""
    module: Any = MLP(10, (256, 256)) if kind == "MLP" else CResNet(10, depth=8, width=8)
    return adapters.from_linen(module, jnp.zeros((1, 14, 14, 1)), outputs=lambda outputs: outputs.logits)


def log_prob(network: Network) -> Callable[..., jax.Array]:
    """``(point, images, labels, stats=None) -> [n]``."""

    def of(point: Params, images: Any, labels: Any, stats: Any = None) -> jax.Array:
        logits = network.apply(point, images, stats=stats)
        return -optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    return of


def alone(network: Network, train: Arrays) -> Callable[..., jax.Array]:
    """``(point, images, labels) -> [n]``. BatchNorm statistics of every point are computed again inside, from training images."""
    scored, stats_fn, images = log_prob(network), network.stats, train[0][:STATISTICS]
    if stats_fn is None:
        return scored
    return lambda point, x, y: scored(point, x, y, stats=stats_fn(point, images))


def trainer(network: Network, num_steps: int) -> Callable[..., Params]:
    """``(key, point, data, rate) -> point``: SGD with momentum and a cosine schedule. The key is the order of the images.

    The loop is Python's, because convolutions inside of a compiled loop take ten times as long on the CPU.
    """
    schedule = optax.cosine_decay_schedule(1.0, num_steps)

    def optimizer(rate: Any) -> optax.GradientTransformation:
        return optax.chain(optax.trace(0.9), optax.scale_by_schedule(lambda step: -rate * schedule(step)))

    def loss(point: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = network.apply(point, images, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(point: Params, state: Any, rate: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[Params, Any]:
        updates, state = optimizer(rate).update(jax.grad(loss)(point, images, labels), state)
        return optax.apply_updates(point, updates), state

    def train(key: jax.Array, point: Params, data: Arrays, rate: float) -> Params:
        state = optimizer(rate).init(point)
        order = np.asarray(jax.random.randint(key, (num_steps, BATCH), 0, len(data[1])))
        for i, rows in enumerate(order):
            point, state = step(point, state, rate, data[0][rows], data[1][rows])
            if i % 8 == 0:
                jax.block_until_ready(point)
        return point

    return train


class Existing(NamedTuple):
    """What one seed has.

    Attributes:
      base: where the fine-tunings started.
      networks: by name. "copy" is "tuned" with its units in a random order.
      symmetries: the units that the copy was permuted by.
    """

    base: Params
    networks: dict[str, Params]
    symmetries: Symmetries


def networks(kind: str, network: Network, train: Callable[..., Params], data: Data, seed: int) -> Existing:
    """The networks of a seed."""
    keys = jax.random.split(jax.random.key(seed), 10)
    rate = RATES[kind]
    base = train(keys[0], network.init(keys[1]), data.base, rate)
    made = {
        name: train(key, base, data.train, factor * rate / 5)
        for (name, factor), key in zip(TUNINGS, keys[2:], strict=False)
    }
    for i, name in enumerate(("alone A", "alone B")):
        made[name] = train(keys[5 + i], network.init(keys[7 + i]), data.train, rate)

    def outputs(point: Params, images: jax.Array) -> jax.Array:
        return network.apply(point, images, train=True)

    found = symmetries(outputs, base, data.train[0][:2])
    rng = np.random.default_rng(seed)
    order = {name: rng.permutation(length) for name, length in found.lengths.items()}
    return Existing(base, made | {"copy": permuted(made["tuned"], found, order)}, found)
