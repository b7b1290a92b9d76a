"""Networks and steps that `bench_gpu` times: a bare step of Flax and optax, and the same network as a subspace."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jsubspace
from jsubspace.examples import gpt
from jsubspace.models.cresnet import CResNet
from jsubspace.models.mlp import MLP
from jsubspace.models.resnet import ResNet
from jsubspace.subspaces import Subspace
from jsubspace.training import optim

RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-4


class Size(NamedTuple):
    """The size of a batch and of a network.

    Attributes:
      batch_size: the number of images, or of sequences.
      shape: of an image ``(h, w, c)``, or the sizes of the GPT.
      classes: the number of classes.
    """

    batch_size: int
    shape: Any
    classes: int = 10


FULL = {
    "cresnet20": Size(128, (32, 32, 3)),
    "resnet50": Size(128, (224, 224, 3), 1000),
    "dense": Size(128, (28, 28, 1)),
    "gpt": Size(32, gpt.Shape(vocabulary=8192, length=256, width=512, heads=8, blocks=8)),
}
SMALL = {
    "cresnet20": Size(8, (8, 8, 3)),
    "resnet50": Size(2, (32, 32, 3)),
    "dense": Size(8, (28, 28, 1)),
    "gpt": Size(2, gpt.Shape(vocabulary=32, length=16, width=16, heads=2, blocks=1)),
}
"""For a test without an accelerator. The times of these sizes say nothing."""

SUBSPACES: dict[str, Subspace] = {
    "standard": jsubspace.Point(),
    "line": jsubspace.Line(),
    "simplex6": jsubspace.Simplex(6),
}


class Workload(NamedTuple):
    """A network with its loss and a batch.

    Attributes:
      init: ``key -> (point, stats)``. The statistics of BatchNorm are an empty dictionary if there is no BatchNorm.
      loss_fn: ``(point, stats, *batch) -> (loss, stats of the batch)``.
      batch: arrays of the host.
      unit: what a step learns from: images or tokens.
      per_step: the number of these in a step.
      optimizer, per_endpoint: the optimizer of the bare step, and the same optimizer of endpoints.
    """

    init: Callable[[jax.Array], Any]
    loss_fn: Callable[..., Any]
    batch: tuple[np.ndarray, ...]
    unit: str
    per_step: int
    optimizer: optax.GradientTransformation
    per_endpoint: optax.GradientTransformation


def workload(network: str, size: Size, dtype: str) -> Workload:
    """A network of `FULL` that computes in ``dtype``, on random images or tokens."""
    rng, compute = np.random.default_rng(0), jnp.dtype(dtype)
    if network == "gpt":
        model, shape = gpt.GPT(size.shape), size.shape
        tokens = rng.integers(shape.vocabulary, size=(size.batch_size, shape.length + 1), dtype=np.int32)

        def of_tokens(point: Any, stats: Any, tokens: jax.Array) -> Any:
            cast = jax.tree.map(lambda leaf: leaf.astype(compute), point)
            logits = model.predict_fn(cast, tokens[:, :-1]).astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean(), stats

        adamw = optax.adamw(RATE, b1=MOMENTUM, weight_decay=DECAY)
        per_step = size.batch_size * shape.length
        return Workload(
            *(lambda key: (model.init_fn(key), {}), of_tokens, (tokens,), "tokens", per_step),
            *(adamw, optim.adamw(RATE, MOMENTUM, DECAY)),
        )
    module = {
        "cresnet20": lambda: CResNet(size.classes, 20, dtype=compute),
        "resnet50": lambda: ResNet(size.classes, 50, dtype=compute),
        "dense": lambda: MLP(size.classes, (256, 256), dtype=compute),
    }[network]()
    images = rng.normal(size=(size.batch_size, *size.shape)).astype(np.float32)
    labels = rng.integers(size.classes, size=size.batch_size, dtype=np.int32)

    def init(key: jax.Array) -> Any:
        variables = module.init(key, jnp.zeros((1, *size.shape)), train=True)
        return variables["params"], variables.get("batch_stats", {})

    def of_images(point: Any, stats: Any, images: jax.Array, labels: jax.Array) -> Any:
        variables = {"params": point, "batch_stats": stats} if stats else {"params": point}
        outputs, new = module.apply(variables, images, train=True, mutable=["batch_stats"])
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels).mean()
        return loss, new.get("batch_stats", {})

    sgd = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(RATE, MOMENTUM))
    return Workload(
        *(init, of_images, (images, labels), "images", size.batch_size, sgd, optim.sgd(RATE, MOMENTUM, DECAY))
    )


def bare(of: Workload) -> tuple[Any, Callable[..., Any]]:
    """The first state and the step of one network in Flax and optax, without this library. BatchNorm keeps running averages."""

    def init() -> Any:
        point, stats = of.init(jax.random.key(0))
        return point, stats, of.optimizer.init(point)

    def step(state: Any, *batch: jax.Array) -> tuple[Any, jax.Array]:
        point, stats, opt_state = state
        (loss, new), grads = jax.value_and_grad(of.loss_fn, has_aux=True)(point, stats, *batch)
        updates, opt_state = of.optimizer.update(grads, opt_state, point)
        stats = jax.tree.map(lambda old, of_batch: 0.9 * old + 0.1 * of_batch, stats, new)
        return (optax.apply_updates(point, updates), stats, opt_state), loss

    return jax.jit(init)(), step


def subspace(of: Workload, kind: Subspace) -> tuple[Any, Callable[..., Any]]:
    """The first state and the step of a subspace, with the penalty of the paper."""
    key = jax.random.key(0)

    def loss_fn(point: Any, *batch: jax.Array) -> jax.Array:
        loss: jax.Array = of.loss_fn(point, {}, *batch)[0]
        return loss

    grad_fn = jsubspace.value_and_grad(loss_fn, kind, beta=1.0)

    def init() -> Any:
        endpoints = jsubspace.init_endpoints(key, lambda key: of.init(key)[0], kind)
        return endpoints, of.per_endpoint.init(endpoints), jnp.int32(0)

    def step(state: Any, *batch: jax.Array) -> tuple[Any, jax.Array]:
        endpoints, opt_state, number = state
        (_, info), grads = grad_fn(jax.random.fold_in(key, number), endpoints, *batch)
        updates, opt_state = of.per_endpoint.update(grads, opt_state, endpoints)
        return (optax.apply_updates(endpoints, updates), opt_state, number + 1), info.loss

    return jax.jit(init)(), step


def model_flops(of: Workload) -> float | None:
    """The operations of loss and gradient of one network on the batch, before the compiler changes them. None if jax does not say."""
    point, stats = jax.eval_shape(of.init, jax.random.key(0))
    gradient = jax.jit(jax.value_and_grad(of.loss_fn, has_aux=True))
    try:
        cost = gradient.lower(point, stats, *of.batch).cost_analysis()
    except RuntimeError:  # A platform need not be able to count.
        return None
    return cost.get("flops") if isinstance(cost, dict) else None


class Timed:
    """A compiled step, ready to be timed: ``count`` steps are one program.

    Attributes:
      memory: the bytes of the program's arguments, results and temporary arrays on the device, as the compiler plans them, or
        None if it does not say.
    """

    def __init__(self, of: Workload, state: Any, step: Callable[..., Any], count: int) -> None:
        self._state, self._count, self._batch = state, count, jax.device_put(of.batch)

        def steps(state: Any, batch: Any) -> tuple[Any, jax.Array]:
            if count == 1:
                return step(state, *batch)
            state, losses = jax.lax.scan(lambda state, _: step(state, *batch), state, length=count)
            return state, losses[-1]

        self._program = jax.jit(steps, donate_argnums=0).lower(self._state, self._batch).compile()
        planned = self._program.memory_analysis()
        self.memory: int | None = None
        if planned is not None:
            whole = planned.argument_size_in_bytes + planned.output_size_in_bytes + planned.temp_size_in_bytes
            self.memory = whole - planned.alias_size_in_bytes
        self.seconds(count)  # The first call loads the program.

    def seconds(self, steps: int) -> float:
        """The seconds per step of at least so many steps, started one after the other, with a wait at the end."""
        calls = -(-steps // self._count)
        start = time.perf_counter()
        for _ in range(calls):
            self._state, loss = self._program(self._state, self._batch)
        jax.block_until_ready((self._state, loss))
        return (time.perf_counter() - start) / (calls * self._count)
