"""The arrays of any tree by their names, and the tree again.

A file of arrays knows names and no trees. A name is the path of an array, with slashes between its parts. Where the names alone
would not give the same dictionaries, lists and tuples again, the paths are written beside the arrays. Modules of Flax nnx and
Equinox hold functions too. Their arrays come back in the place of the arrays of a tree like them.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jsubspace import arguments, axis_names, shown
from jsubspace.storage import documents
from jsubspace.storage.schema import Listed, Mismatch, OneOf, Record, Text

ARRAY, KEY, NUMBER, EMPTY, OTHER = "array", "key", "number", "empty", "other"
"""What stands at a path. A number is Python's, and something else is a function, a text or a part of a module."""

ROOT = "array"
"""The name of a tree that is one array."""

_EMPTY: Mapping[str, Any] = {"{}": dict, "[]": list, "()": tuple, "None": lambda: None}

_NUMBERS: Mapping[str, Any] = {"bool": "True".__eq__, "int": int, "float": float, "complex": complex}

_LONGEST = 2**16

_RECORD = Listed(
    Record(
        {
            "path": Listed(Text(r"[:#\[(.?].*", _LONGEST), most=documents.DEPTH),
            "kind": OneOf((ARRAY, KEY, NUMBER, EMPTY, OTHER)),
            "text": Text(longest=_LONGEST),
        }
    )
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What stands at one path of a tree.

    Attributes:
      steps: the path. The first character of a step says what holds the rest of it: ``:`` a dictionary with text as keys, ``#``
        a dictionary with integers, ``[`` a list, ``(`` a tuple, ``.`` attributes, ``?`` a dictionary with other keys.
      kind: `ARRAY`, `KEY`, `NUMBER`, `EMPTY` or `OTHER`.
      text: the name of the array, or what else is written of the leaf.
      value: the leaf.
    """

    steps: tuple[str, ...]
    kind: str
    text: str
    value: Any = None

    @property
    def name(self) -> str:
        """The name of the array of an `ARRAY` or a `KEY`."""
        return self.text.partition(" ")[2] if self.kind == KEY else self.text

    @property
    def array(self) -> Any:
        """The array of an `ARRAY`, or the numbers of a `KEY`."""
        return jax.random.key_data(self.value) if self.kind == KEY else self.value

    @property
    def place(self) -> str:
        """The path, for a message."""
        return "/".join(step[1:] for step in self.steps) or "the top"


def entries(tree: Any) -> list[Entry]:
    """Everything in a tree, in the order of jax. Two arrays of one name are told apart by a number.

    Raises:
      ValueError: if the tree is nested deeper than `documents.DEPTH`, or a key is no line of plain text.

    Example:
      >>> [(entry.name, entry.steps) for entry in entries({"mlp": [jnp.ones(2), jnp.ones(3)]})]
      [('mlp/0', (':mlp', '[0')), ('mlp/1', (':mlp', '[1'))]
    """
    found, taken = [], {"__metadata__", ""}
    for steps, node in _walk(tree, ()):
        kind, text = _kind(node)
        if kind in (ARRAY, KEY):
            path = name = "/".join(step[1:] for step in steps) if steps else ROOT
            number = 1
            while name in taken:
                number += 1
                name = f"{path}#{number}"
            taken.add(name)
            text = f"{text} {name}" if kind == KEY else name
        found.append(Entry(steps, kind, text, node))
    return found


def record(found: Sequence[Entry]) -> str:
    """The paths of a tree as JSON, for `read_record`, or "" if the names of the arrays say everything."""
    if all(entry.kind == ARRAY and entry.steps and all(map(_is_plain, entry.steps)) for entry in found):
        return ""
    return documents.to_json([{"path": list(entry.steps), "kind": entry.kind, "text": entry.text} for entry in found])


def read_record(text: str) -> list[Entry]:
    """The entries that `record` has written, without their leaves.

    Raises:
      ValueError: if the text is something else.
    """
    rows = documents.from_json(text)
    _RECORD.check(rows, "its tree")
    return [Entry(tuple(row["path"]), row["kind"], row["text"]) for row in rows]


def rebuilt(found: Sequence[Entry], arrays: Mapping[str, Any]) -> Any:
    """Dictionaries, lists and tuples with the arrays at their paths. Attributes become keys of a dictionary.

    Raises:
      ValueError: if the paths do not fit together, or an array is missing.
      LookupError: if something else than arrays and numbers stood in a dictionary, a list or a tuple. The message names it.
    """
    root: dict[str, Any] = {}
    for entry in found:
        if entry.kind == OTHER and entry.steps and entry.steps[-1][0] == ".":
            continue  # A function or a setting of a module, which a dictionary does without.
        place, steps = root, ("", *entry.steps)
        for step in steps[:-1]:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise Mismatch(f"its tree has an array above {entry.place[:200]!r}")
        if steps[-1] in place:
            raise Mismatch(f"its tree has the path {entry.place[:200]!r} twice")
        place[steps[-1]] = _Leaf(_value(entry, arrays))
    return _container(root.get("", {}))


def with_arrays(like: Any, found: Sequence[Entry], arrays: Mapping[str, Any], numbers: Mapping[Any, Any]) -> Any:
    """The tree ``like`` with other arrays and numbers.

    Args:
      like: any tree.
      found: its `entries`.
      arrays: the arrays by the names of the entries.
      numbers: Python's numbers by steps. The tree keeps a number that is missing here.
    """
    leaves = []
    for entry in found:
        if entry.kind == KEY:
            leaves.append(jax.random.wrap_key_data(arrays[entry.name], impl=jax.random.key_impl(entry.value)))
        elif entry.kind == ARRAY:
            leaves.append(arrays[entry.name])
        elif jax.tree_util.all_leaves([entry.value]):
            leaves.append(numbers.get(entry.steps, entry.value))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def number_of(entry: Entry) -> Any:
    """The number of a `NUMBER` that was read from a file.

    Raises:
      ValueError: if its text is no number.
    """
    kind, _, text = entry.text.partition(" ")
    if kind not in _NUMBERS:
        raise Mismatch(f"its tree has a number of the type {kind[:50]!r}")
    return _NUMBERS[kind](text)


@dataclasses.dataclass(frozen=True)
class _Leaf:
    value: Any


def _walk(node: Any, steps: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    def is_child(other: Any) -> bool:
        return other is not node

    if len(steps) > documents.DEPTH:
        raise ValueError(f"the tree is nested deeper than {documents.DEPTH}.")
    try:
        children = jax.tree_util.tree_leaves_with_path(node, is_leaf=is_child)
    except ValueError as error:  # Keys of several types cannot be sorted.
        raise ValueError(f"{arguments.described(type(node))} is no tree of jax: {error}") from error
    if not children or not children[0][0]:
        yield steps, node
    elif axis_names.is_box(node) and len(children) == 1:
        yield from _walk(children[0][1], steps)
    else:
        for (key, *_), child in children:
            yield from _walk(child, (*steps, _step(node, key)))


def _step(node: Any, key: Any) -> str:
    if isinstance(key, jax.tree_util.SequenceKey):
        return f"{'(' if isinstance(node, tuple) else '['}{key.idx}"
    if isinstance(key, jax.tree_util.DictKey):
        is_integer = isinstance(key.key, int) and not isinstance(key.key, bool)
        step = f"{':' if isinstance(key.key, str) else '#' if is_integer else '?'}{key.key}"
        if not shown.is_plain(step) or len(step) > _LONGEST:
            raise ValueError(f"the key {arguments.described(key.key)} is no line of plain text. Rename it.")
        return step
    return f".{getattr(key, 'name', getattr(key, 'key', key))}"


def _is_plain(step: str) -> bool:
    return step[0] == ":" and len(step) > 1 and not set(step) & set("/.")


def _kind(node: Any) -> tuple[str, str]:
    """The kind of an entry, and its text without a name."""
    if arguments.is_key(node):
        return KEY, str(jax.random.key_impl(node))
    if hasattr(node, "shape") and hasattr(node, "dtype"):
        return ARRAY, ""
    if type(node).__name__ in _NUMBERS and isinstance(node, bool | int | float | complex):
        return NUMBER, f"{type(node).__name__} {node!r}"
    if node is None:
        return EMPTY, "None"
    for text, kind in (("{}", Mapping), ("[]", list), ("()", tuple)):
        if isinstance(node, kind):
            return EMPTY, text
    return OTHER, type(node).__name__


def _value(entry: Entry, arrays: Mapping[str, Any]) -> Any:
    if entry.kind == NUMBER:
        return number_of(entry)
    if entry.kind == OTHER:
        raise LookupError(f"a {entry.text[:100]} at {entry.place[:200]}")
    if entry.kind == EMPTY:
        if entry.text not in _EMPTY:
            raise Mismatch(f"its tree has an empty {entry.text[:50]!r}")
        return _EMPTY[entry.text]()
    if entry.name not in arrays:
        raise Mismatch(f"its tree has the array {entry.name[:200]!r}, which is missing")
    array = arrays[entry.name]
    return (
        jax.random.wrap_key_data(jnp.asarray(array), impl=entry.text.partition(" ")[0]) if entry.kind == KEY else array
    )


def _container(node: Any) -> Any:
    if isinstance(node, _Leaf):
        return node.value
    kinds = {step[0] for step in node}
    inside = {step: _container(child) for step, child in node.items()}
    if kinds <= {":", "#"}:
        return {int(step[1:]) if step[0] == "#" else step[1:]: child for step, child in inside.items()}
    if kinds in ({"."}, {"?"}):
        return {step[1:]: child for step, child in inside.items()}
    first = next(iter(kinds))
    if len(kinds) > 1 or set(inside) != {f"{first}{i}" for i in range(len(inside))}:
        raise Mismatch("a list in its tree lacks an element")
    in_order = [inside[f"{first}{i}"] for i in range(len(inside))]
    return tuple(in_order) if first == "(" else in_order
