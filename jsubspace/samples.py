"""What each of several positions sees of the arguments of a loss (appendix B of the paper).

The arguments that are the batch are cut into one part per position. PRNG keys are split, and everything else is given whole
to every position.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""The positional and the keyword arguments of a loss, after the point."""


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Which arguments of a loss are the batch.

    Attributes:
      argnums: the numbers of positional arguments. The first argument after the endpoints has the number 0.
      argnames: the names of keyword arguments. If both are None, all arguments are the batch. If one of them is given,
        only the arguments that are named are the batch.

    Raises:
      ValueError: if a number is no integer of at least 0, or a name is no string.
    """

    argnums: int | Sequence[int] | None = None
    argnames: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        for number in self.numbers():
            if arguments.integer("batch_argnums", number) < 0:
                raise ValueError(
                    f"batch_argnums is {self.argnums}, but arguments are counted from 0, the first after the endpoints."
                )
        for name in self.names():
            if not isinstance(name, str):
                raise ValueError(f"batch_argnames is {self.argnames!r}, but it must hold names of keyword arguments.")

    def is_everything(self) -> bool:
        """Whether all arguments are the batch."""
        return self.argnums is None and self.argnames is None

    def numbers(self) -> tuple[int, ...]:
        """The numbers of the positional arguments that are named."""
        return () if self.argnums is None else _several("batch_argnums", self.argnums)

    def names(self) -> tuple[str, ...]:
        """The names of the keyword arguments that are named."""
        return () if self.argnames is None else _several("batch_argnames", self.argnames)

    def includes(self, place: int | str) -> bool:
        """Whether the argument with this number or name is part of the batch."""
        return self.is_everything() or place in self.numbers() or place in self.names()

    def check(self, inputs: Inputs) -> None:
        """Raises a ValueError if an argument that is named was not given."""
        args, kwargs = inputs
        for number in self.numbers():
            if number >= len(args):
                raise ValueError(
                    f"batch_argnums names argument {number}, but {len(args)} positional arguments were given after the "
                    "endpoints. They are counted from 0. Name a keyword argument in batch_argnames."
                )
        for name in self.names():
            if name not in kwargs:
                raise ValueError(
                    f"batch_argnames names {name!r}, but the keyword arguments are {sorted(kwargs)}. Number a positional "
                    "argument in batch_argnums, or pass it by its name."
                )


def dealt(inputs: Inputs, num_samples: int, batch: Batch) -> tuple[dict[int, jax.Array], Callable[[Any], Inputs]]:
    """The parts of the arguments, and a function from one position's part to its arguments.

    The parts are arrays ``[n, ...] -> [S, n / S, ...]``, with example i in part i modulo S, and keys ``[] -> [S]``.
    Examples are dealt out, not sliced. A batch that is split over devices is then cut into the same parts as a whole
    batch, provided that the number of examples per device is a multiple of S.

    Raises:
      ValueError: if an array of the batch cannot be cut, if two arrays of the batch differ in length, or for a raw key.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(inputs)
    lengths: dict[str, int] = {}
    parts = {}
    for i, (path, leaf) in enumerate(leaves):
        name, place = jax.tree_util.keystr(path[1:]), _place(path[1])
        if arguments.is_key(leaf) and jnp.ndim(leaf) == 0:
            parts[i] = jax.random.split(leaf, num_samples)
            continue
        _check_not_raw(name, leaf, num_samples)
        if batch.includes(place):
            parts[i] = _cut(name, leaf, num_samples, lengths)

    def inputs_of(part: Any) -> Inputs:
        of_position: Inputs = jax.tree.unflatten(structure, [part.get(i, leaf) for i, (_, leaf) in enumerate(leaves)])
        return of_position

    return parts, inputs_of


def _cut(name: str, leaf: Any, num_samples: int, lengths: dict[str, int]) -> jax.Array:
    shape = np.shape(leaf)
    if shape:
        lengths[name] = shape[0]
    first, length = next(iter(lengths.items()), (name, 0))
    if shape and length != shape[0]:
        raise ValueError(
            f"argument {first} has {length} rows, but argument {name} of shape {list(shape)} has {shape[0]}. With "
            f"num_samples={num_samples} every array of the batch is cut into parts. {_NAME_THE_BATCH}"
        )
    n = shape[0] if shape else 0
    if n == 0 or n % num_samples:
        raise ValueError(
            f"argument {name} of shape {list(shape)} cannot be cut into num_samples={num_samples} equal parts. Make its "
            f"leading axis a multiple of it. {_NAME_THE_BATCH}"
        )
    return jnp.moveaxis(jnp.reshape(leaf, (n // num_samples, num_samples, *shape[1:])), 1, 0)


_NAME_THE_BATCH = (
    "If an argument is not part of the batch, say which arguments are, as in batch_argnums=(0,) for the first after the "
    "endpoints, or let the loss function close over it."
)


def _check_not_raw(name: str, leaf: Any, num_samples: int) -> None:
    if getattr(leaf, "dtype", None) == np.uint32 and np.shape(leaf) in ((2,), (4,)):
        raise ValueError(
            f"argument {name} of type uint32{list(np.shape(leaf))} looks like a raw PRNG key, which num_samples={num_samples} "
            "positions cannot tell from a batch. Pass a typed key, from jax.random.key or jax.random.wrap_key_data, and "
            "each position gets a key of its own. Numbers that are no key may be int32."
        )


def _place(entry: Any) -> int | str:
    """The number or the name of an argument, from its entry in the path of a leaf."""
    place: int | str = entry.key if isinstance(entry, jax.tree_util.DictKey) else entry.idx
    return place


def _several(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | int | np.integer):
        return (value,)
    if isinstance(value, Sequence):
        return tuple(value)
    raise ValueError(f"{name} is {value!r}, but it must be one argument or a tuple of arguments.")
