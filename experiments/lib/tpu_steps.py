"""The steps that `bench_tpu` compiles: networks of images, a GPT, and low-rank factors of the GPT. No data and no chip is needed."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jsubspace
from experiments import bench_step
from jsubspace import training
from jsubspace.data import imagenet, memory, sets
from jsubspace.data.arrays import ArrayData
from jsubspace.examples import gpt
from jsubspace.models import adapters
from jsubspace.runs import build, images, recipes
from jsubspace.runs.problem import Problem
from jsubspace.subspaces import Subspace
from jsubspace.training.parallel import DataParallel

MODES = ("replicated", "sharded")
GPT = gpt.Shape(vocabulary=32768, length=512, width=768, heads=12, blocks=12)
RANK = 8
FACTORS = ("lora_a", "lora_b")
_LORA: dict[str, tuple[Subspace, Any]] = {
    "standard": (jsubspace.Point(), None),
    "line": (jsubspace.Line(), None),
    "line_products": (jsubspace.Line(), FACTORS),
}
METHODS = (*bench_step.METHODS, "line_products")


class Step(NamedTuple):
    """A step that is ready to be compiled.

    Attributes:
      lowered: the program.
      besides: the bytes per device of the arguments that are neither endpoints nor the optimizer's.
    """

    lowered: Any
    besides: int


class Network(NamedTuple):
    """A network of `NETWORKS`.

    Attributes:
      step: ``(method, mode, devices, batch_size) -> Step``, with the batch size per device.
      batch_size: the default.
      unit: what a batch consists of.
      methods: the methods besides standard that are compiled by default.
      possible: the methods that exist.
      modes: how the endpoints may lie on the devices.
    """

    step: Callable[[str, str, tuple[Any, ...], int], Step]
    batch_size: int
    unit: str = "images"
    methods: tuple[str, ...] = ("line", "simplex6")
    possible: tuple[str, ...] = tuple(bench_step.METHODS)
    modes: tuple[str, ...] = MODES


class ShapesOnly:
    """A pipeline without data, which has all that compiling a step needs."""

    steps_per_epoch = 1000
    num_train = num_test = num_validation = num_bytes = 0
    resident = None

    def __init__(self, data_set: str, kind: Any) -> None:
        self.data_set = sets.find(data_set)
        self._kind = kind

    def augment(self, *args: Any) -> jax.Array:
        """The pipeline's own."""
        return self._kind.augment(self, *args)

    def preprocess(self, images: jax.Array) -> jax.Array:
        """The pipeline's own."""
        return self._kind.preprocess(self, images)


def _of_images(recipe: Any, data_set: str, kind: Any, dtype: str = "bfloat16", **model: Any) -> Callable[..., Step]:
    def step(method: str, mode: str, devices: tuple[Any, ...], batch_size: int) -> Step:
        config = recipe(**bench_step.METHODS[method])
        config.model.update(dtype=dtype, **model)
        source = ShapesOnly(data_set, kind)
        image, number = (
            jax.ShapeDtypeStruct((batch_size, *shape), dtype)
            for shape, dtype in ((source.data_set.image_shape, np.uint8), ((), np.int32))
        )
        return _of_run(config, images.problem_of(config, source), mode, devices, (image, number, number))

    return step


def dense(dtype: str) -> Callable[..., Step]:
    """The network 784-256-256-10, which computes in ``dtype``."""
    return _of_images(
        recipes.cifar10_cresnet20, "fashion_mnist", memory.InMemory, dtype, name="mlp", depth=2, width=256
    )


def _gpt(shape: gpt.Shape) -> Callable[..., Step]:
    """The GPT with AdamW. It computes in bfloat16, and the loss in float32."""

    def step(method: str, mode: str, devices: tuple[Any, ...], batch_size: int) -> Step:
        model, settings = gpt.GPT(shape), training.default_settings()
        fields = dict(bench_step.METHODS[method])
        settings.subspace.name = fields.pop("subspace")
        settings.subspace.update(fields)
        settings.optimizer.name = "adamw"
        tokens = np.zeros((len(devices) * batch_size, shape.length), np.int32)
        split = (tokens, tokens)
        network = adapters.from_functions(model.init_fn, lambda point, tokens: _logits(model.predict_fn, point, tokens))
        network = dataclasses.replace(network, compute_dtype=jnp.bfloat16)
        data = ArrayData(train=split, test=split, batch_size=len(tokens))
        problem = Problem(network, jsubspace.Tokens(), data)
        return _of_run(settings, problem, mode, devices, None)

    return step


def _of_run(settings: Any, problem: Problem, mode: str, devices: tuple[Any, ...], batch: Any) -> Step:
    """The step of `training`, compiled as a run compiles it."""
    settings.shard_endpoints = mode == "sharded"
    run = build.assemble(settings, problem, DataParallel(devices))
    n = len(devices)
    if batch is None:
        whole = next(iter(problem.data.train_batches(0, run.shard)))
        batch = tuple(jax.ShapeDtypeStruct((len(array) // n, *array.shape[1:]), array.dtype) for array in whole)
    shapes = tuple(jax.ShapeDtypeStruct((n, *array.shape), array.dtype) for array in batch)
    key = jax.eval_shape(lambda: run.key)
    return Step(run.compiled_step().lower(run.state_shape, shapes, key), _bytes(batch))


def low_rank(shape: gpt.Shape, rank: int) -> tuple[Callable[..., Any], Callable[..., jax.Array], Any]:
    """A GPT with factors beside the four linear layers of every block (LoRA).

    Returns:
      ``key -> factors``, ``(factors, base, tokens) -> loss``, and the shapes of the base, which is frozen and of bfloat16.
    """

    def module(key: jax.Array) -> gpt.Module:
        rngs = nnx.Rngs(key)
        whole = gpt.Module(shape, rngs)
        for block in whole.blocks:
            for name in ("attention", "project", "widen", "narrow"):
                layer = getattr(block, name)
                sizes = layer.in_features, rank, layer.out_features
                setattr(block, name, nnx.LoRA(*sizes, base_module=layer, rngs=rngs))
        return whole

    def split(key: jax.Array) -> tuple[Any, Any, Any]:
        parts: Any = nnx.split(module(key), nnx.LoRAParam, ...)
        return parts

    graph, _, base = nnx.split(nnx.eval_shape(lambda: module(jax.random.key(0))), nnx.LoRAParam, ...)

    def loss_fn(factors: Any, base: Any, tokens: jax.Array) -> jax.Array:
        logits = _logits(lambda factors, tokens: nnx.merge(graph, factors, base)(tokens), factors, tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    return (
        lambda key: split(key)[1],
        loss_fn,
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), base),
    )


def _factors(shape: gpt.Shape) -> Callable[..., Step]:
    """The factors with AdamW, in a step of a user's own under jax.jit. The base lies whole on every device."""

    def lower(method: str, mode: str, devices: tuple[Any, ...], batch_size: int) -> Step:
        subspace, pair = _LORA[method]
        init_fn, loss_fn, base = low_rank(shape, RANK)
        grad_fn = jsubspace.value_and_grad(loss_fn, subspace, products=pair)
        optimizer = jsubspace.per_endpoint(optax.adamw(1e-3))

        def init(key: jax.Array) -> Any:
            endpoints = jsubspace.init_endpoints(key, init_fn, subspace)
            return endpoints, optimizer.init(endpoints)

        def step(state: Any, key: jax.Array, base: Any, tokens: jax.Array) -> Any:
            endpoints, opt_state = state
            (_, info), grads = grad_fn(key, endpoints, base, tokens)
            updates, opt_state = optimizer.update(grads, opt_state, endpoints)
            return (optax.apply_updates(endpoints, updates), opt_state), info.loss

        mesh = Mesh(np.array(devices), ("data",))
        same, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
        key = jax.eval_shape(lambda: jax.random.key(0))
        tokens = jax.ShapeDtypeStruct((len(devices) * batch_size, shape.length + 1), np.int32)
        compiled: Any = jax.jit(step, in_shardings=(same, same, same, split), out_shardings=same, donate_argnums=0)
        besides = _bytes(base) + _bytes(tokens) // len(devices)
        return Step(compiled.lower(jax.eval_shape(init, key), key, base, tokens), besides)

    return lower


def _logits(predict_fn: Callable[..., jax.Array], point: Any, tokens: jax.Array) -> jax.Array:
    """Logits of float32, computed in bfloat16."""
    return predict_fn(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), point), tokens).astype(jnp.float32)


def _bytes(arrays: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))


NETWORKS = {
    "resnet50": Network(_of_images(recipes.imagenet_resnet50, "imagenet2012", imagenet.ImageNet), 128),
    "cresnet20": Network(_of_images(recipes.cifar10_cresnet20, "cifar10", memory.InMemory), 128),
    "dense": Network(dense("bfloat16"), 128),
    "gpt": Network(_gpt(GPT), 8, f"sequences of {GPT.length} tokens"),
    "gpt_lora": Network(
        *(_factors(GPT), 8, f"sequences of {GPT.length} tokens"),
        *(("line", "line_products"), tuple(_LORA), ("replicated",)),
    ),
}
