"""Which leaves are the factors of a product: pairs of names in the order of the product."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jsubspace import leaf_kinds, tree
from jsubspace.types import Endpoints, Params

Pairs = tuple[str, str] | Sequence[tuple[str, str]]
"""The names of two leaves in the order of their product, or several such pairs."""


def checked(pairs: Pairs) -> tuple[tuple[str, str], ...]:
    """The pairs as a tuple of pairs of names.

    Raises:
      ValueError: if it is neither a pair of names nor a sequence of pairs.
    """
    one = isinstance(pairs, Sequence) and all(isinstance(name, str) for name in pairs)
    several: Any = (pairs,) if one else pairs
    if isinstance(several, Sequence) and len(several) and all(map(_is_pair, several)):
        return tuple((first, second) for first, second in several)
    raise ValueError(
        f'products are {pairs!r}, but they must be the names of two factors in the order of their product, as in ("lora_a", '
        '"lora_b"), or a list of such pairs.'
    )


def _is_pair(names: Any) -> bool:
    is_sequence = isinstance(names, Sequence) and not isinstance(names, str) and len(names) == 2
    return is_sequence and all(isinstance(name, str) and name for name in names)


def found(endpoints: Endpoints, pairs: Pairs) -> list[tuple[int, int]]:
    """The factors of every product, as places among the leaves.

    Raises:
      ValueError: as `as_products` does. The message names the leaf.
    """
    m, paths = tree.num_endpoints(endpoints), names_of_leaves(endpoints)
    shapes, products = [jnp.shape(leaf) for leaf in jax.tree.leaves(endpoints)], named(endpoints, pairs)
    for first, second in products:
        _check_factors(("/".join(paths[first]), shapes[first]), ("/".join(paths[second]), shapes[second]), m)
    used = list(itertools.chain(*products))
    for i in used:
        if used.count(i) > 1:
            raise ValueError(f"leaf {'/'.join(paths[i])} is a factor of two products. Name every factor once.")
    return products


def named(network: Params, pairs: Pairs) -> list[tuple[int, int]]:
    """`found` for any tree with the leaves of a network, by names alone."""
    paths = names_of_leaves(network)
    products: list[tuple[int, int]] = []
    for names in checked(pairs):
        ends = [tuple(name.split("/")) for name in names]
        modules = [{path[: -len(end)]: i for i, path in enumerate(paths) if path[-len(end) :] == end} for end in ends]
        for name, of_name, other, of_other in zip(names, modules, names[::-1], modules[::-1], strict=True):
            if not of_name:
                last = ", ".join(sorted({path[-1] for path in paths if path}))
                raise ValueError(
                    f"products name a factor {name!r}, but no leaf has this name. The leaves are called {last}."
                )
            for module in sorted(of_name.keys() - of_other.keys()):
                raise ValueError(f"leaf {'/'.join((*module, name))} is a factor, but there is no {other} beside it.")
        products += [(place, modules[1][module]) for module, place in modules[0].items()]
    return products


def names_of_leaves(network: Params) -> list[tuple[str, ...]]:
    """The names on the path of every leaf, without the boxes that Flax puts around arrays.

    Example:
      >>> names_of_leaves({"dense": {"kernel": 0.0, "bias": 0.0}})
      [('dense', 'bias'), ('dense', 'kernel')]
    """
    unboxed = leaf_kinds.without_boxes(network)
    return [leaf_kinds.names_of(unboxed(path)) for path, _ in jax.tree_util.tree_leaves_with_path(network)]


def _check_factors(first: tuple[str, tuple[int, ...]], second: tuple[str, tuple[int, ...]], m: int) -> None:
    for name, shape in (first, second):
        if shape[0] != m:
            raise ValueError(
                f"leaf {name} is a factor that all endpoints share. Then the product is linear in the other factor, and ordinary "
                "positions are positions on the product. Leave this pair out."
            )
        if len(shape) < 3:
            raise ValueError(f"leaf {name} has shape {list(shape[1:])} in one network, but a factor is a matrix.")
    (name, left), (other, right) = first, second
    if left[-1] != right[-2] or left[1:-2] != right[1:-2]:
        raise ValueError(
            f"leaf {name} of shape {list(left[1:])} cannot be multiplied by leaf {other} of shape {list(right[1:])}. Name the two "
            'factors in the order of their product, as in ("lora_B", "lora_A") for B A.'
        )
