"""Which leaves of a network are kernels. Trees carry this in names, shapes and classes.

The penalty compares kernels, the weights that multiply inputs. Biases and the parameters of normalisation start alike in
every endpoint and stay alike. If the penalty saw them, it could be met by turning kernels against them.

Shape alone does not tell a kernel. Where layers are stacked for a scan, a bias has two axes and a kernel has three. So a leaf
is judged by its name, by the name of its module, and, in Equinox and Flax nnx, by the module's class.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, axis_names
from jsubspace.tree import conformed, difference, leaf_name, same_structure, shared_leaves
from jsubspace.types import Endpoints, LeafMask

_NOT_KERNELS = {"bias", "scale", "offset", "shift", "gamma", "beta", "gain"}
"""Words in the name of a parameter that adds to activations, or multiplies each activation by a number of its own."""

_NORMS = {"ln", "bn", "gn", "rms", "norms", "normalization", "normalisation"}
"""Words, besides every word that ends with "norm", in the name of a layer of normalisation or of its parameter."""

_NORM_CLASS = re.compile(r".*norm(\d+d)?", re.IGNORECASE)
"""The names of classes of normalisation: LayerNorm, BatchNorm2d. A PreNormBlock is no such class."""

_OF_INPUTS = {"kernel", "weight", "w", "embedding"}
"""Names of kernels, also of those that have a single input or a single output."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""The words in ``attention_norm``, ``LayerNorm_0``, ``ln1`` and ``qkvBias``, without their numbers."""


def kernels(endpoints: Endpoints) -> LeafMask:
    """True for the weights that multiply inputs. This is the default mask of the penalty.

    Convolutions, dense layers, embeddings and the factors of LoRA count. What does not count is a leaf ``[m, *s]``

    - with fewer than two axes in s,
    - with a word like bias, scale, offset or gamma in its name, or called b (bq, b1) beside a w (wq, w1) of more axes,
    - of normalisation: its name or its module's name has a word like norm, ln or bn, or its module's class does,
    - with at most one axis in s that is longer than 1 (a class token, a scale for each channel), unless its name is kernel,
      weight, w or embedding.

    The rule holds for layers that are stacked for a scan, and for the trees of Flax linen, Flax nnx, Equinox and Haiku.
    `jsubspace.describe` shows what it finds, and the argument ``mask`` of every function overrules it.

    Example:
      >>> kernels({"conv": {"kernel": jnp.zeros([2, 3, 3, 1, 8]), "bias": jnp.zeros([2, 8])}})
      {'conv': {'bias': False, 'kernel': True}}
      >>> kernels({"blocks": {"attention_norm": jnp.zeros([2, 12, 64]), "wq": jnp.zeros([2, 12, 64, 64])}})
      {'blocks': {'attention_norm': False, 'wq': True}}
    """
    arguments.check_arrays("endpoints", endpoints, "stacked networks", "kernels(endpoints)")
    unboxed = without_boxes(endpoints)
    ranks = {
        names_of(unboxed(path)): jnp.ndim(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(endpoints)
    }  # A leaf b is judged by the w beside it.

    def is_kernel(path: tuple[Any, ...], leaf: Any, in_norm: bool) -> bool:
        names = names_of(path)
        own, module = names[-1:], names[-2:-1]
        words = {word.lower() for name in own for word in _WORDS.findall(name)}
        if jnp.ndim(leaf) - 1 < 2 or words & _NOT_KERNELS or in_norm or any(map(_is_norm, (*own, *module))):
            return False
        if names and names[-1].startswith("b") and ranks.get((*names[:-1], "w" + names[-1][1:]), 0) > jnp.ndim(leaf):
            return False
        long = sum(length > 1 for length in jnp.shape(leaf)[1:])
        return long > 1 or not names or bool(words & _OF_INPUTS)

    return _judged(endpoints, is_kernel, unboxed)


def all_leaves(endpoints: Endpoints) -> LeafMask:
    """True for every leaf: the penalty over the whole parameter vector, as equation 5 is written."""
    arguments.check_arrays("endpoints", endpoints, "stacked networks", "all_leaves(endpoints)")
    return jax.tree.map(lambda _: True, endpoints)


def resolve_mask(mask: LeafMask | Callable[[Endpoints], LeafMask] | None, endpoints: Endpoints) -> LeafMask:
    """The leaves that the penalty sees, as a tree of bools: the leaves of ``mask`` (`tree_of_bools`), without shared leaves.

    None stands for `kernels`. A leaf that all endpoints share is the same in all of them and is never compared.

    Raises:
      ValueError: if the mask is no tree of bools like the endpoints, or no leaf counts.
    """
    chosen = tree_of_bools("mask", kernels if mask is None else mask, endpoints)
    counts = jax.tree.map(lambda counts, shared: bool(counts) and not shared, chosen, shared_leaves(endpoints))
    if not any(jax.tree.leaves(counts)):
        only_shared = (
            " counts leaves that all endpoints share, and no other leaf,"
            if any(jax.tree.leaves(chosen))
            else " leaves out every leaf,"
        )
        raise ValueError(f"the mask{only_shared} so there is nothing to compare. Pass mask=jsubspace.all_leaves.")
    return counts


def tree_of_bools(name: str, mask: LeafMask | Callable[[Endpoints], LeafMask], endpoints: Endpoints) -> LeafMask:
    """The tree that a mask stands for, in the structure of the endpoints.

    A tree of bools stands for itself, and a function for the tree that it returns. A tree of bools that can also be called,
    as a module of Equinox can, is a tree.

    Args:
      name: what the argument is called, for a message.
      mask: a tree of bools, or a function ``endpoints -> tree``.
      endpoints: leaves ``[m, *s]``.

    Raises:
      ValueError: if the structures of the mask and of the endpoints differ, or a leaf of the mask is no bool.
    """
    is_tree = any(isinstance(leaf, bool | np.bool_) for leaf in jax.tree.leaves(mask))
    if isinstance(mask, type):
        raise ValueError(
            f"the {name} is {arguments.described(mask)}, but it must be a tree of bools or a function endpoints -> tree."
        )
    tree = mask(endpoints) if callable(mask) and not is_tree else mask
    if not same_structure(tree, endpoints):
        raise ValueError(
            f"the {name} has the structure of another tree than the endpoints: {difference(tree, endpoints)}. Give one bool per "
            "leaf."
        )
    for path, chosen in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(chosen, bool | np.bool_):
            raise ValueError(
                f"leaf {leaf_name(path)} of the {name} is {arguments.described(chosen)}. It must be a Python bool, which is known before the "
                "program runs."
            )
    return conformed(tree, endpoints)


def _judged(
    tree: Any,
    judge: Callable[[tuple[Any, ...], Any, bool], bool],
    unboxed: Callable[..., Any],
    place: tuple[Any, ...] = (),
) -> LeafMask:
    """``judge(path, leaf, in_norm)`` of every leaf. ``in_norm`` says whether the leaf's own module is of a class of norms.

    Args:
      tree: a node of the whole tree.
      judge: is given the path without boxes.
      unboxed: of `without_boxes`, for the whole tree.
      place: the path of the node.
    """
    is_norm = _is_norm_module(tree)

    def of_node(path: tuple[Any, ...], node: Any) -> Any:
        whole = (*place, *path)
        if path and _is_norm_module(node):
            return _judged(node, judge, unboxed, whole)
        return judge(unboxed(whole), node, is_norm and len(unboxed(whole)) == len(place) + 1)

    return jax.tree_util.tree_map_with_path(
        of_node, tree, is_leaf=lambda node: node is not tree and _is_norm_module(node)
    )


def _is_norm_module(node: Any) -> bool:
    return not hasattr(node, "dtype") and _NORM_CLASS.fullmatch(type(node).__name__) is not None


def _is_norm(name: str) -> bool:
    """Whether the name belongs to a layer of normalisation.

    Example:
      >>> [name for name in ("ffn_norm", "LayerNorm_0", "ln_f", "RMSNorm", "bn1", "normal", "linear") if _is_norm(name)]
      ['ffn_norm', 'LayerNorm_0', 'ln_f', 'RMSNorm', 'bn1']
    """
    return any(word.lower() in _NORMS or word.lower().endswith("norm") for word in _WORDS.findall(name))


def names_of(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The names on a path. A key of Haiku is a path itself, with slashes."""
    return tuple(name for key in path for name in jax.tree_util.keystr((key,), simple=True).split("/"))


def without_boxes(tree: Any) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Takes from the path of a leaf the ``.value`` that Flax puts around an array. A parameter may have this name, too."""
    nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=axis_names.is_box)
    boxes = {path for path, node in nodes if axis_names.is_box(node)}
    return lambda path: path[:-1] if path[:-1] in boxes else path
