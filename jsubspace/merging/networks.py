"""Networks that exist already: checked against each other and stacked.

Everything that merges or compares networks begins here. Every mistake has one message, which names the network and the leaf.
"""

import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, axis_names, leaf_kinds, parameters, tree
from jsubspace.errors import UsageError
from jsubspace.types import Endpoints, Params

_STATISTICS = frozenset({
    "batch_stats", "running_mean", "running_var", "num_batches_tracked", "moving_mean", "moving_variance", "moving_var",
})  # fmt: skip
"""Names on the path of a leaf that holds running statistics: linen's, PyTorch's and Keras'."""

_MAY_BE_TIED = re.compile(r"embed|head|wte|vocab|unembed|logits", re.IGNORECASE)
"""The names of leaves that some networks keep once, for the embedding and for the outputs."""

_STATISTICS_REMEDY = (
    "Running statistics belong to one network and are not averaged. Give the parameters alone, and estimate the statistics of "
    "the merged network again with jsubspace.reestimate_batch_stats."
)


class Networks(NamedTuple):
    """Networks of one architecture.

    Attributes:
      names: one name per network, for messages and reports: the key in a dictionary, or the place in a list.
      points: the networks, leaves ``[*s]``, all in the structure of the first.
    """

    names: tuple[str, ...]
    points: tuple[Params, ...]

    def stacked(self) -> Endpoints:
        """The networks as endpoints, leaves ``[m, *s]``. They are divided among devices as the networks are."""
        return tree.stack(self.points)


def checked(networks: Any, caller: str, call: str = "", fewest: int = 2) -> Networks:
    """The networks that a user gave, if they fit each other.

    The numbers are read once, to find a NaN. The function belongs outside of a compiled program.

    Args:
      networks: a list or tuple of networks, leaves ``[*s]``, or a dictionary of them by name.
      caller: the function that a message names.
      call: shows the order of its arguments in a message.
      fewest: the smallest number of networks.

    Returns:
      The networks with their names.

    Raises:
      UsageError: for fewer networks, another structure, shape or dtype, running statistics among the leaves, a leaf that is no
        parameter of a floating-point dtype, or a number that is not finite. The message names the network and the leaf.

    Warns:
      UserWarning: if one network is given twice.

    Example:
      >>> found = checked({"a": {"w": jnp.zeros(3)}, "b": {"w": jnp.ones(3)}}, "soup")
      >>> found.names, found.stacked()["w"].shape
      (('a', 'b'), (2, 3))
    """
    names, points = _listed(networks, caller, call)
    if len(points) < fewest:
        given = f"{len(points)} network{'s were' if len(points) != 1 else ' was'} given"
        raise UsageError(
            f"{caller}: {given}, but at least {fewest} are needed. Stacked endpoints are taken apart by "
            f"jsubspace.unstack(endpoints).{arguments.order(call)}"
        )
    places = tuple(f"{caller}: {name}" for name in names)
    _check_statistics(places, points)
    for place, point in zip(places, points, strict=True):
        _check_one(point, place, call)
    for place, point in zip(places[1:], points[1:], strict=True):
        _check_alike(point, points[0], place, names[0])
    for place, point in zip(places, points, strict=True):
        _check_numbers(point, place)
    _warn_of_copies(names, points, caller)
    return Networks(names, tuple(tree.conformed(point, points[0]) for point in points))


def checked_one(network: Params, like: Networks, name: str, caller: str) -> Params:
    """One more network that must fit the others, such as the origin of fine-tuned networks, in the structure of the first.

    Args:
      network: leaves ``[*s]``.
      like: the others, from `checked`.
      name: what the network is called in a message.
      caller: the function that a message names.

    Raises:
      UsageError: as `checked` does.
    """
    place = f"{caller}: {name}"
    _check_statistics((f"{caller}: {like.names[0]}", place), (like.points[0], network))
    _check_one(network, place, "")
    _check_alike(network, like.points[0], place, like.names[0])
    _check_numbers(network, place)
    return tree.conformed(network, like.points[0])


def _check_alike(network: Params, other: Params, place: str, other_name: str) -> None:
    """Raises a UsageError if two networks differ in their structure, or in the shape or dtype of a leaf."""
    if not tree.same_structure(network, other):
        raise UsageError(
            f"{place} has the structure of another network than {other_name}: {tree.difference(network, other)}. "
            f"{_structure_hint(network, other)}"
        )
    leaves = zip(jax.tree_util.tree_leaves_with_path(other), jax.tree.leaves(network), strict=True)
    for (path, b), a in leaves:
        leaf = f"leaf {tree.leaf_name(path)} of {place}"
        if jnp.shape(a) != jnp.shape(b):
            raise UsageError(
                f"{leaf} has the shape {list(jnp.shape(a))}, but in {other_name} it is {list(jnp.shape(b))}. "
                f"{_shape_hint(jnp.shape(a), jnp.shape(b))}"
            )
        if _dtype(a) != _dtype(b):
            raise UsageError(
                f"{leaf} is {_dtype(a)}, but in {other_name} it is {_dtype(b)}. Cast the networks to one dtype, for example by "
                f"jax.tree.map(lambda leaf: leaf.astype({_dtype(b).name!r}), network)."
            )


def _check_numbers(network: Params, place: str) -> None:
    """Raises a UsageError if jax would round a leaf, or if a number is NaN or infinite. The message names the leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(network)
    for path, leaf in leaves:
        if jax.dtypes.canonicalize_dtype(_dtype(leaf)) != _dtype(leaf):
            raise UsageError(
                f"leaf {tree.leaf_name(path)} of {place} is float64, but jax computes in float32 here. Switch float64 on by the "
                "environment variable JAX_ENABLE_X64=1, or cast the network to float32."
            )
    finite = parameters.are_finite([leaf for _, leaf in leaves])
    for (path, _), is_finite in zip(leaves, finite, strict=True):
        if not is_finite:
            raise UsageError(
                f"leaf {tree.leaf_name(path)} of {place} holds NaN or an infinity. A merged network would hold it, too. Leave this "
                "network out, or take an earlier checkpoint of it."
            )


def _listed(networks: Any, caller: str, call: str) -> tuple[tuple[str, ...], tuple[Params, ...]]:
    """The names and the networks of a list, a tuple or a dictionary."""
    must = "it must be a list of networks, or a dictionary of networks by name"
    if isinstance(networks, Mapping):
        bare = [name for name, value in networks.items() if not _is_tree(value)]
        if bare:
            raise UsageError(
                f"{caller}: networks is a dictionary in which {bare[0]!r} is {arguments.described(networks[bare[0]])}, but {must}. "
                f"If it is a single network, write [network, another]. If it holds stacked endpoints, write "
                f"jsubspace.unstack(endpoints).{arguments.order(call)}"
            )
        names = tuple(str(name) for name in networks)
        if equal := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(
                f"{caller}: two keys of networks are {equal!r} as text, and the result names networks by text. Rename one of them."
                f"{arguments.order(call)}"
            )
        return names, tuple(networks.values())
    if not isinstance(networks, list | tuple) or hasattr(networks, "_fields"):
        raise UsageError(f"{caller}: networks is {arguments.described(networks)}, but {must}.{arguments.order(call)}")
    return tuple(f"network {i}" for i in range(len(networks))), tuple(networks)


def _is_tree(value: Any) -> bool:
    """Whether this may be a network inside of a dictionary: a node with leaves. A bare array there is a leaf of one network."""
    return not jax.tree_util.all_leaves([value]) and bool(jax.tree.leaves(value))


def _check_statistics(places: tuple[str, ...], points: tuple[Params, ...]) -> None:
    """Raises a UsageError if a network holds running statistics, and says so if another network does not."""
    found = [_statistics(point) for point in points]
    having = [place for place, leaves in zip(places, found, strict=True) if leaves]
    lacking = [place for place, leaves in zip(places, found, strict=True) if not leaves]
    if having:
        leaf = next(leaves[0] for leaves in found if leaves)
        without = f", and {lacking[0].rpartition(': ')[2]} has no running statistics" if lacking else ""
        raise UsageError(f"{having[0]} has the running statistics {leaf}{without}. {_STATISTICS_REMEDY}")


def _check_one(network: Params, place: str, call: str) -> None:
    """Raises a UsageError if this is no network with floating-point leaves alone."""
    try:
        arguments.check_arrays(place, network, "a network, a tree of arrays", call)
        parameters.check_network(network)
        parameters.check_endpoints(network)
    except ValueError as error:
        message = str(error)
        raise UsageError(message if place in message else f"{place}: {message}") from None
    for path, leaf in jax.tree_util.tree_leaves_with_path(network):
        dtype = _dtype(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise UsageError(
                f"leaf {tree.leaf_name(path)} of {place} has dtype {dtype}, and only floating-point leaves have points between "
                f"them. Keep counters, keys and other state apart from the parameters. {parameters.REMEDY}"
            )


def _statistics(network: Params) -> list[str]:
    """The leaves that hold running statistics, by name."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(network)]
    words = [{word for name in leaf_kinds.names_of(path) for word in name.split(".")} for path in paths]
    return [tree.leaf_name(path) for path, found in zip(paths, words, strict=True) if found & _STATISTICS]


def _structure_hint(network: Params, other: Params) -> str:
    """What to do if two networks have different leaves. An embedding may be tied to the outputs in one of them."""
    of_each = [
        {tree.leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(axis_names.bare(each))}
        for each in (network, other)
    ]
    if any(_MAY_BE_TIED.search(leaf) for leaf in of_each[0] ^ of_each[1]):
        return (
            "One network may tie this weight to its embedding, and the other may not. Copy the embedding into the leaf that is "
            "missing, or leave the leaf out of both."
        )
    return "Give networks of one architecture."


def _shape_hint(shape: tuple[int, ...], other: tuple[int, ...]) -> str:
    """What to do if two shapes differ. A vocabulary that was resized changes one axis alone."""
    same_rank = len(shape) == len(other)
    differing = [axis for axis, (a, b) in enumerate(zip(shape, other, strict=False)) if a != b]
    if same_rank and len(shape) > 1 and differing == [0]:
        return (
            "Only the first axis differs, as in an embedding that was resized for another vocabulary. Cut or extend its rows so "
            "that row i belongs to one token in all networks."
        )
    if same_rank and len(shape) > 1 and differing == [len(shape) - 1]:
        return (
            "Only the last axis differs, as in a head for other classes or tokens. Merge the leaves without the head, or train one "
            "head for all networks."
        )
    return "Give networks of one architecture and width."


def _dtype(leaf: Any) -> Any:
    """The dtype of an array as it is, or what jax makes of a Python number."""
    return np.dtype(leaf.dtype) if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def _warn_of_copies(names: tuple[str, ...], points: tuple[Params, ...], caller: str) -> None:
    leaves = [jax.tree.leaves(point) for point in points]
    for j in range(len(points)):
        for i in range(j):
            if all(a is b for a, b in zip(leaves[i], leaves[j], strict=True)):
                warnings.warn(
                    f"{caller}: {names[i]} and {names[j]} are the same arrays. The network counts twice.", stacklevel=4
                )
