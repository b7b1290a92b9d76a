"""Checks of the arguments that several functions take, with one message for each mistake.

A check looks at kinds, shapes and dtypes. It reads no number of an array, so that it costs nothing in a compiled step.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

_MEMBERS = ("num_endpoints", "alpha_shape", "center", "ends", "coefficients", "sample", "grid")


def integer(name: str, value: Any) -> int:
    """``value`` as an int.

    Raises:
      ValueError: if it is neither an int nor a numpy integer. A bool and a float are refused, whatever their value.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} is {value!r}, but it must be an integer.")
    return int(value)


def count(name: str, value: Any, least: int, why: str = "") -> int:
    """`integer` of at least ``least``. Other values raise a ValueError. ``why`` is a sentence that ends the message."""
    number = integer(name, value)
    if number < least:
        raise ValueError(f"{name} is {number}, but it must be at least {least}.{why and ' '}{why}")
    return number


def truth(name: str, value: Any) -> bool:
    """``value`` as a bool.

    Raises:
      ValueError: if it is neither a bool nor a numpy bool.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value!r}, but it must be True or False.")
    return bool(value)


def key(name: str, value: Any, call: str = "") -> Any:
    """``value``, if it is one PRNG key, typed or raw. ``call`` shows the order of the arguments in the message.

    Raises:
      ValueError: if it is anything else.
    """
    if is_key(value) and np.shape(value) == ():
        return value
    if getattr(value, "dtype", None) == np.uint32 and np.ndim(value) == 1:
        # The function is a new one in every call, because jax_default_prng_impl may change.
        (length,) = jax.eval_shape(lambda: jax.random.PRNGKey(0)).shape
        if np.shape(value) == (length,):
            return value
        hint = f" A raw key has {length} numbers here."
    else:
        hint = " For many keys, use jax.vmap." if is_key(value) else ""
    raise ValueError(
        f"{name} is {described(value)}, but it must be one PRNG key, as from jax.random.key(seed).{hint}{order(call)}"
    )


def function(name: str, value: Any, signature: str, call: str = "") -> Callable[..., Any]:
    """``value``, if it is a function. ``signature`` says in the message what it takes and returns.

    Raises:
      ValueError: if it cannot be called, or is a subspace or a class of subspaces.
    """
    if not callable(value) or hasattr(value, "num_endpoints"):
        raise ValueError(f"{name} is {described(value)}, but it must be a function {signature}.{order(call)}")
    made: Callable[..., Any] = value
    return made


def subspace(value: Any, call: str = "") -> Any:
    """``value``, if it has the members of `jsubspace.Subspace`.

    Raises:
      ValueError: if it is a class, or no subspace, or lacks a member.
    """
    if isinstance(value, type):
        name = value.__name__
        raise ValueError(f"{name} is a class, and a subspace is an instance of it. Write {name}(), with parentheses.")
    if not hasattr(value, "num_endpoints"):
        raise ValueError(f"{described(value)} is not a subspace. Pass jsubspace.Line(), for example.{order(call)}")
    lacking = [name for name in _MEMBERS if not hasattr(type(value), name) and not hasattr(value, name)]
    if lacking:
        raise ValueError(
            f"{described(value)} is no whole subspace: it lacks {', '.join(lacking)}. A subspace has the seven members of "
            "jsubspace.Subspace."
        )
    return value


def check_arrays(name: str, value: Any, must: str, call: str = "") -> None:
    """Raises a ValueError if ``value`` is no tree of arrays, or is one PRNG key. ``must`` says in the message what it must be.

    Example:
      >>> check_arrays("origin", {"w": "text"}, "one network")
      Traceback (most recent call last):
      ValueError: leaf ['w'] of origin is 'text', but origin must be one network.
    """
    leaves = jax.tree_util.tree_leaves_with_path(value)
    wrong = [(path, leaf) for path, leaf in leaves if not _is_array(leaf)]
    if leaves and not wrong and not is_key(value):
        return
    path, leaf = wrong[0] if wrong else ((), value)
    place = f"leaf {jax.tree_util.keystr(path)} of {name}" if path else name
    raise ValueError(f"{place} is {described(leaf)}, but {name} must be {must}.{order(call)}")


def check_batches(name: str, value: Any, call: str = "") -> None:
    """Raises a ValueError if ``value`` is no list or other iterable. Each batch is checked when its turn comes."""
    if not isinstance(value, Iterable) or isinstance(value, str | Mapping) or hasattr(value, "shape"):
        raise ValueError(
            f"{name} is {described(value)}, but it must be a list of batches, each a tuple of arrays, as in [(x, y)]."
            f"{order(call)}"
        )


def described(value: Any) -> str:
    """What a value is, in a few words for a message.

    Example:
      >>> described({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
      "a dict with leaf ['bias'], an array float32[3], and 1 more"
      >>> described(jax.random.key(0)), described(len), described(None)
      ('a PRNG key', 'the function len', 'None')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, str | bool | int | float | complex | np.generic | None):
        return _short(repr(value))
    if is_key(value):
        return f"an array of keys, of shape {list(value.shape)}" if value.shape else "a PRNG key"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array {value.dtype}{list(value.shape)}"
    if hasattr(value, "num_endpoints"):
        return f"the subspace {_short(repr(value))}"
    if callable(getattr(value, "init", None)) and callable(getattr(value, "update", None)):
        return "an optimizer"
    kind = f"a {type(value).__name__}"
    if isinstance(value, Iterator):  # No tree, says jax.
        return kind
    leaves = jax.tree_util.tree_leaves_with_path(value)
    if not leaves:
        return f"{kind} without leaves"
    path, leaf = leaves[0]
    if path:
        more = f", and {len(leaves) - 1} more" if len(leaves) > 1 else ""
        return f"{kind} with leaf {_short(jax.tree_util.keystr(path))}, {described(leaf)}{more}"
    return f"the function {getattr(value, '__name__', kind)}" if callable(value) else kind


def order(call: str) -> str:
    """The end of a message that shows the order of the arguments, or nothing for an empty text.

    Example:
      >>> order("midpoint(endpoints, subspace)")
      ' The order is midpoint(endpoints, subspace).'
    """
    return f" The order is {call}." if call else ""


def are_real_numbers(value: Any) -> bool:
    """Whether this is a real number, an array of real numbers, or a list of them. A bool is no number here.

    Example:
      >>> are_real_numbers(0.5), are_real_numbers([0.25, 0.75]), are_real_numbers(True), are_real_numbers("0.5")
      (True, True, False, False)
    """
    if isinstance(value, list | tuple):
        return all(map(are_real_numbers, value)) and len(set(map(_shape, value))) == 1
    dtype = None if isinstance(value, type) else getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return bool(jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))


def _shape(numbers: Any) -> tuple[int, ...]:
    if isinstance(numbers, list | tuple):
        return (len(numbers), *_shape(numbers[0]))
    return np.shape(numbers)


def is_key(value: Any) -> bool:
    """Whether this is a typed PRNG key, or an array of them."""
    return jnp.issubdtype(getattr(value, "dtype", np.dtype(object)), jax.dtypes.prng_key)


def _is_array(leaf: Any) -> bool:
    """Whether this is an array, or its shape and dtype, or a Python number."""
    if isinstance(leaf, int | float | complex):
        return not isinstance(leaf, bool)
    return hasattr(leaf, "shape") and getattr(leaf, "dtype", np.dtype(object)) != np.dtype(object)


def _short(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def one_of(name: str, value: Any, words: Sequence[str]) -> None:
    """Raises a ValueError if ``value`` is not one of the words."""
    if not isinstance(value, str) or value not in words:
        choices = " or ".join(f'"{word}"' for word in words)
        raise ValueError(f"{name} is {described(value)}, but it must be {choices}.")


def strength(name: str, value: Any, meaning: str) -> Any:
    """A number of at least 0, as a float. A traced scalar cannot be checked and is returned as it is.

    Raises:
      ValueError: if it is no number, if it is negative, or if it is not finite. ``meaning`` says in the message what must
        be finite.
    """
    is_traced = isinstance(value, jax.core.Tracer)
    is_number = (isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, np.generic | np.ndarray | jax.Array)
        and value.shape == ()
        and (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer))
    )
    if is_number and (is_traced or 0 <= float(value) < float("inf")):
        return value if is_traced else float(value)
    shown = f"an array of shape {list(value.shape)} and dtype {value.dtype}" if is_traced else str(value)
    hint = f" If it changes from step to step, pass its value, as in {name}=schedule(step)." if callable(value) else ""
    raise ValueError(f"{name} is {shown}, but {meaning} is finite and at least 0. The value 0 switches it off.{hint}")


def row(name: str, value: Any, m: int) -> Any:
    """The row of one of m endpoints, as an int. A traced row cannot be checked and is returned as it is.

    Raises:
      ValueError: if it is no integer, or if there is no such endpoint. Negative rows do not exist.
    """
    is_number = not isinstance(value, list | tuple) and are_real_numbers(value)
    if not is_number or not jnp.issubdtype(jnp.result_type(value), jnp.integer) or np.shape(value) != ():
        raise ValueError(f"{name} is {described(value)}, but the row of an endpoint must be one integer.")
    if isinstance(value, jax.core.Tracer):
        return value
    number = int(value)
    if not 0 <= number < m:
        raise ValueError(f"there is no endpoint {number}. The {m} endpoints are 0 to {m - 1}.")
    return number


def different_rows(name: str, values: Sequence[Any], m: int) -> tuple[Any, ...]:
    """`row` of each value.

    Raises:
      ValueError: if a value is no row, or if an endpoint is named twice.
    """
    if np.ndim(values) == 0 if hasattr(values, "ndim") else not isinstance(values, Sequence):
        raise ValueError(f"{name} is {values!r}, but it must hold the rows of two or more endpoints, as in (0, 1).")
    rows = tuple(row(name, value, m) for value in values)
    known = [value for value in rows if isinstance(value, int)]
    if len(set(known)) < len(known):
        raise ValueError(
            f"{name} is {rows}. The same endpoint stands in it twice, and no endpoint has a pair with itself."
        )
    return rows


def rows_of_pairs(name: str, values: Sequence[Any], m: int) -> tuple[Any, ...]:
    """`different_rows` that form at least one pair.

    Raises:
      ValueError: as `different_rows` does, and if there are fewer than two rows.
    """
    rows = different_rows(name, values, m)
    return rows if len(rows) > 1 else no_pair()


def no_pair() -> NoReturn:
    """Raises the ValueError for one endpoint where a pair is needed."""
    raise ValueError("one endpoint has no pair, and the penalty needs two endpoints.")


def words(text: str) -> tuple[str, ...]:
    """The words of a text that lists words with commas between. An empty text lists none.

    Raises:
      ValueError: if there is nothing before, between or behind the commas. A shell leaves such a gap for a variable that is
        not set.

    Example:
      >>> words("snow, fog_3"), words(" ")
      (('snow', 'fog_3'), ())
    """
    if not text.strip():
        return ()
    found = tuple(word.strip() for word in text.split(","))
    if not all(found):
        raise ValueError(f"{text!r} has an empty word. Write words with single commas between, or nothing at all.")
    return found
