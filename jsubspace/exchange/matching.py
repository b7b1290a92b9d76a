"""Which array of a file is which leaf of a network: by name, with one message for everything that does not fit."""

import difflib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import shown
from jsubspace.errors import UsageError

PARAMS = "params/"
"""The collection in which Flax keeps the trained arrays. Other collections of a file are not a network's leaves."""

VALUE = "/value"
"""How names end if Orbax has written a state of Flax nnx."""


class Owner(NamedTuple):
    """What the leaves belong to that a file must fit, in words for the message.

    Attributes:
      words: its name.
      remedy: what to do instead of renaming arrays.
    """

    words: str
    remedy: str


RUN = Owner("the network of this run", "train the network that it holds")
LIKE = Owner("the network of like=", "pass the network that it holds")

_MOST = 3


def matched(
    stored: Mapping[str, jax.ShapeDtypeStruct],
    expected: Mapping[str, jax.ShapeDtypeStruct],
    place: str,
    most: int = _MOST,
    of: Owner = RUN,
) -> dict[str, str]:
    """The array of the file for each leaf of the network.

    If the file has the collection ``params``, its other collections are ignored, such as ``batch_stats`` or the state of an
    optimizer, unless the network has leaves outside of ``params`` too, as the state of a training loop. All arrays that are left must be leaves of the network, and the other way round. The file may have a narrower
    float than the network, such as bfloat16 for float32, because the wider one holds it exactly.

    Args:
      stored: the shapes and dtypes of the file's arrays, by name.
      expected: the shapes and dtypes of the network's leaves, by name.
      place: where the file is, for the message.
      most: how many differences the message lists.
      of: what the leaves belong to.

    Returns:
      The name in the file by the name of the leaf, in the order of ``expected``.

    Raises:
      UsageError: if they do not fit. The message lists the first differences.
    """
    found = _leaves(stored, expected)
    wrong = [name for name, leaf in expected.items() if name not in found or not _fits(stored[found[name]], leaf)]
    wrong += [name for name in found if name not in expected]
    if wrong:
        lines = [_difference(name, found, stored, expected) for name in wrong[:most]]
        more = [f"and {len(wrong) - most} more"] if len(wrong) > most else []
        raise UsageError(
            f"the network in {place} is not {of.words}:\n  " + "\n  ".join([*lines, *more]) + "\n"
            f"Rename or remove arrays of the file, or {of.remedy}."
        )
    return {name: found[name] for name in expected}


def _difference(
    name: str,
    found: Mapping[str, str],
    stored: Mapping[str, jax.ShapeDtypeStruct],
    expected: Mapping[str, jax.ShapeDtypeStruct],
) -> str:
    if name not in found:
        return f"it has no {name}, which is {_text(expected[name])} here{_similar(name, found, expected)}"
    if name in expected:
        return f"{name} is {_text(stored[found[name]])} there and {_text(expected[name])} here"
    plain = shown.escaped(name[:200], lines=False)
    return f"it has {plain}, {_text(stored[found[name]])}, which the network lacks{_similar(name, expected, found)}"


def _leaves(stored: Mapping[str, object], expected: Mapping[str, object]) -> dict[str, str]:
    """The names of the network's leaves in the file, by the names that they would have in the network."""
    inside = {name.removeprefix(PARAMS): name for name in stored if name.startswith(PARAMS)}
    keeps_collection = all(name.startswith(PARAMS) for name in expected)
    if any(name.startswith(PARAMS) for name in expected) and not keeps_collection and not set(expected) <= set(inside):
        return {name: name for name in stored}
    is_whole = not inside or (keeps_collection and not set(expected) <= set(inside))
    found = {name: name for name in (inside.values() if inside and is_whole else stored)} if is_whole else inside
    if expected and not set(expected) & set(found):
        return {name.removesuffix(VALUE): theirs for name, theirs in found.items()}
    return found


def _fits(found: jax.ShapeDtypeStruct, leaf: jax.ShapeDtypeStruct) -> bool:
    if found.shape != leaf.shape:
        return False
    is_float = jnp.issubdtype(found.dtype, jnp.floating)
    return found.dtype == leaf.dtype or (is_float and np.can_cast(found.dtype, leaf.dtype))


def _similar(name: str, others: Mapping[str, object], taken: Mapping[str, object]) -> str:
    """The names that look like ``name`` and have no partner of their own."""
    free = [other for other in others if other not in taken]
    nearest = [shown.escaped(other[:200], lines=False) for other in difflib.get_close_matches(name, free, n=2)]
    return f" (similar: {', '.join(nearest)})" if nearest else ""


def _text(leaf: jax.ShapeDtypeStruct) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
