"""Converts weights from the layout of the authors' PyTorch program to endpoints, and back.

The authors' layers hold every endpoint under its own name: ``weight``, ``weight1``, ``weight2``, ... and likewise
``bias``. Convolutions are OIHW, and the classifier is a 1 x 1 convolution. The names of layers are taken from the
authors' classes: ``CIFARResNet`` for `models.cresnet`, and ``TinyImageNetResNet`` or ``ResNet`` for `models.resnet`.

The authors' checkpoints are pickles. A pickle can execute anything, so it is not read here. PyTorch turns it into data:

    state = torch.load("model.pt", weights_only=True)["state_dict"]
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, "model.safetensors")

Then call ``from_authors(safetensors.numpy.load_file("model.safetensors"))``. In the other direction,
``model.load_state_dict`` loads the result of `to_authors`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.errors import UsageError
from jsubspace.types import Endpoints

_LEAVES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
"""The leaves of a BatchNorm: the authors' name -> our name."""

_STATISTICS = ("mean", "var")

_STAGES = {"layer1": 0, "layer2": 1, "layer3": 2, "layer4": 3, "conv2_x": 0, "conv3_x": 1, "conv4_x": 2, "conv5_x": 3}

_STEMS = {
    "conv": "stem_conv", "bn": "stem_norm",  # CIFARResNet
    "conv1": "stem_conv", "bn1": "stem_norm",  # ResNet
    "conv1.0": "stem_conv", "conv1.1": "stem_norm",  # TinyImageNetResNet
    "fc": "classifier",
}  # fmt: skip

_PARTS = {
    **{f"conv{i}": f"conv{i}" for i in (1, 2, 3)},
    **{f"bn{i}": f"norm{i}" for i in (1, 2, 3)},
    **{f"residual_function.{3 * i}": f"conv{i + 1}" for i in range(3)},
    **{f"residual_function.{3 * i + 1}": f"norm{i + 1}" for i in range(3)},
    "shortcut.0": "shortcut_conv", "shortcut.1": "shortcut_norm",
    "downsample.0": "shortcut_conv", "downsample.1": "shortcut_norm",
}  # fmt: skip
"""The layers of a block: the authors' name -> our name."""


def from_authors(weights: Mapping[str, np.ndarray]) -> tuple[Endpoints, dict[str, Any]]:
    """Endpoints from the authors' names, and the BatchNorm statistics that were stored with them.

    Args:
      weights: numpy arrays by name. The prefix ``module.``, which PyTorch's DataParallel adds, is removed.

    Returns:
      First the endpoints with leaves ``[m, *s]``, where m is 1 for a network of standard training. Kernels are HWIO.
      Second the running statistics, or `{}` without any. They belong to the point that was evaluated last and not to
      an endpoint.

    Raises:
      UsageError: for a name that the authors' networks do not have, an array of another type or shape, or a layer that lacks
        an endpoint.
    """
    rows: dict[tuple[str, ...], dict[int, np.ndarray]] = {}
    statistics: dict[str, Any] = {}
    for name, array in weights.items():
        layer, _, leaf = name.removeprefix("module.").rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        match = re.fullmatch(r"(weight|bias)([1-9][0-9]{0,3})?|(running_mean|running_var)", leaf)
        place = _our_layer(layer)
        is_norm = place is not None and (place[-1].startswith("norm") or place[-1].endswith("_norm"))
        if match is None or place is None or not (is_norm or match[1] == "weight"):
            raise UsageError(
                f"{name} is not a name of the authors' networks. Their names are like blocks.0.conv1.weight1, "
                "layer1.0.bn1.bias, conv2_x.0.shortcut.0.weight or fc.weight."
            )
        if (plain := name.removeprefix("module.")) != name and plain in weights:
            raise UsageError(f"{plain} is there twice, with and without the prefix module. Leave one of them out.")
        array = _numbers(name, array)
        if match[3]:
            _put(statistics, (*place, _LEAVES[leaf]), _vector(name, array).copy())
            continue
        ours = _LEAVES[match[1]] if is_norm else "kernel"
        array = _vector(name, array) if is_norm else _kernel(place, name, array)
        rows.setdefault((*place, ours), {})[int(match[2] or 0)] = array
    m = max((len(row) for row in rows.values()), default=0)
    if not m:
        raise UsageError("there is no weight among the names. Pass the state_dict, name by name, as numpy arrays.")
    endpoints: dict[str, Any] = {}
    for path, row in rows.items():
        if sorted(row) != list(range(m)):
            raise UsageError(
                f"{'/'.join(path)} has the endpoints {sorted(row)} but others have {m}. Each needs 0 to {m - 1}."
            )
        if len({(leaf.shape, leaf.dtype) for leaf in row.values()}) > 1:
            kinds = sorted({f"{leaf.dtype}{list(leaf.shape)}" for leaf in row.values()})
            raise UsageError(
                f"{'/'.join(path)} is {' and '.join(kinds)} at different endpoints. All must have one shape."
            )
        _put(endpoints, path, np.stack([row[i] for i in range(m)]))
    return endpoints, statistics


def to_authors(
    endpoints: Endpoints, batch_stats: Mapping[str, Any] | None = None, tiny_imagenet: bool = False
) -> dict[str, np.ndarray]:
    """Arrays under the authors' names, from endpoints with leaves ``[m, *s]``.

    This is the inverse of `from_authors`, to the bit.

    Args:
      endpoints: the endpoints of a `models.cresnet.CResNet` or a `models.resnet.ResNet`.
      batch_stats: running statistics to store too. Without them, ``load_state_dict`` needs ``strict=False``.
      tiny_imagenet: whether a ResNet gets the names of ``TinyImageNetResNet`` instead of ``ResNet``.

    Raises:
      UsageError: for a layer that the authors' networks do not have.
    """
    weights: dict[str, np.ndarray] = {}
    for path, leaf in _leaves(endpoints):
        layer, name = _their_layer(path[:-1], endpoints, tiny_imagenet), "bias" if path[-1] == "bias" else "weight"
        for i, array in enumerate(leaf):
            if path[-1] == "kernel":
                array = array.T[:, :, None, None] if path[0] == "classifier" else array.transpose(3, 2, 0, 1)
            weights[f"{layer}.{name}{i or ''}"] = np.ascontiguousarray(array)
    for path, leaf in _leaves(batch_stats or {}):
        layer = _their_layer(path[:-1], endpoints, tiny_imagenet)
        weights[f"{layer}.running_{path[-1]}"] = leaf
        weights[f"{layer}.num_batches_tracked"] = np.zeros((), np.int64)
    return weights


def _our_layer(theirs: str) -> tuple[str, ...] | None:
    """``blocks.3.bn1`` -> ``("block3", "norm1")``, or None if the authors' networks have no such layer."""
    if theirs in _STEMS:
        return (_STEMS[theirs],)
    match = re.fullmatch(r"blocks\.(0|[1-9][0-9]*)\.(.+)", theirs)
    if match and match[2] in _PARTS:
        return f"block{match[1]}", _PARTS[match[2]]
    match = re.fullmatch(r"(\w+)\.(0|[1-9][0-9]*)\.(.+)", theirs)
    if match and match[1] in _STAGES and match[3] in _PARTS:
        return f"stage{_STAGES[match[1]]}_block{match[2]}", _PARTS[match[3]]
    return None


def _their_layer(ours: tuple[str, ...], endpoints: Endpoints, tiny_imagenet: bool) -> str:
    is_cresnet = "block0" in endpoints
    if ours == ("classifier",):
        return "fc"
    if len(ours) == 1 and ours[0] in ("stem_conv", "stem_norm"):
        if tiny_imagenet:
            return "conv1.0" if ours[0] == "stem_conv" else "conv1.1"
        return ours[0].removeprefix("stem_").replace("norm", "bn") + ("" if is_cresnet else "1")
    cresnet = re.fullmatch(r"block([0-9]+)", ours[0])
    resnet = re.fullmatch(r"stage([0-9])_block([0-9]+)", ours[0])
    part = re.fullmatch(r"(conv|norm)([123])|shortcut_(conv|norm)", ours[-1])
    if len(ours) != 2 or part is None or not (cresnet or resnet):
        raise UsageError(f"the authors' networks have no layer {'/'.join(ours)}. They are cresnets and resnets.")
    if part[3]:
        inner = f"{'shortcut' if cresnet or tiny_imagenet else 'downsample'}.{('conv', 'norm').index(part[3])}"
    elif tiny_imagenet:
        inner = f"residual_function.{3 * (int(part[2]) - 1) + ('conv', 'norm').index(part[1])}"
    else:
        inner = f"{part[1].replace('norm', 'bn')}{part[2]}"
    if cresnet:
        return f"blocks.{cresnet[1]}.{inner}"
    assert resnet is not None
    stage = f"conv{int(resnet[1]) + 2}_x" if tiny_imagenet else f"layer{int(resnet[1]) + 1}"
    return f"{stage}.{resnet[2]}.{inner}"


def _kernel(place: tuple[str, ...], name: str, array: np.ndarray) -> np.ndarray:
    """The kernel in our layout: HWIO from OIHW, or for the classifier ``[f, k]`` from ``[k, f, 1, 1]`` or ``[k, f]``."""
    if place == ("classifier",) and array.ndim in (2, 4):
        return array.reshape(array.shape[:2]).T
    if array.ndim != 4:
        raise UsageError(f"{name} has the shape {list(array.shape)}, but a convolution's weight has four axes, OIHW.")
    return array.transpose(2, 3, 1, 0)


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    """The array, if its elements are floats. Numpy does not know that jax's bfloat16 is one."""
    array = np.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UsageError(f"{name} has elements of type {array.dtype}, but a weight is an array of floats.")
    return array


def _vector(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 1:
        raise UsageError(f"{name} has the shape {list(array.shape)}, but an array of a BatchNorm has one axis.")
    return array


def _put(tree: dict[str, Any], path: tuple[str, ...], leaf: np.ndarray) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf


def _leaves(tree: Any) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield tuple(str(step.key) for step in path), np.asarray(leaf)
