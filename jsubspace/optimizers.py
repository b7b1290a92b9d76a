"""Optimizers of stacked endpoints, with each endpoint as a network of its own.

Given the stacked leaves ``[m, *s]``, an optimizer takes the endpoint axis for an axis of the parameters. Elementwise
transforms do not mind. But a norm over the tree would mix the endpoints, and a rule about the number of axes (Muon, or a
mask that leaves biases out of the weight decay) would take a bias ``[m, n]`` for a matrix.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jsubspace import arguments, axis_names, state_places, tree
from jsubspace.types import Endpoints


class Optimizer(NamedTuple):
    """An optimizer as optax writes them, for an object that is no named tuple itself.

    Attributes:
      init: ``params -> state``.
      update: ``(updates, state, params=None, **extra) -> (updates, state)``.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]


class StateWithShared(NamedTuple):
    """The state of `per_endpoint` if some leaves are shared by all endpoints.

    Attributes:
      endpoints: the state of the leaves ``[m, *s]``, each array with the leading axis m.
      shared: the state of the leaves ``[1, *s]``, each array with a leading axis of one.
    """

    endpoints: Any
    shared: Any


_UPDATE = "update(gradients, state, endpoints)"


def per_endpoint(optimizer: Any) -> Any:  # Any object with init and update. The core does not import optax.
    """``optimizer``, which then treats every endpoint as a network of its own.

    It is a vmap of ``init`` and ``update`` over the endpoint axis. The state holds a row per endpoint in every array: the
    count of steps, too, is ``[m]``. Put the whole optimizer through it. For elementwise transforms such as SGD and Adam it
    changes nothing but the shape of the counts.

    ``optax.MultiSteps`` works inside and outside. Outside, as in ``optax.MultiSteps(per_endpoint(tx), 4)``, it is cheaper:
    inside, the optimizer is computed at every step, because a vmapped condition computes both of its branches.

    Leaves with one row, among others with m rows, are shared by all endpoints. They form a tree of their own with a state of
    its own, so that no norm mixes the shared leaves and an endpoint. A transform that looks into a static tree (a mask, labels)
    finds None in the place of the leaves of the other tree.

    Outside jit, ``init`` divides an array of the state among devices as the endpoints' leaf with its name and shape.

    Args:
      optimizer: any object with ``init(params)`` and ``update(updates, state, params, **extra)``, as from optax.

    Returns:
      An optimizer of the endpoints, of the same type if that is a named tuple: `optax.chain` and its like pass extra
      arguments only to their own types. Its ``update`` passes all extra arguments on. A tree like the parameters, with their
      shapes (``grad=``), is given out row by row. ``value=`` is given out if it is ``[m]``, and the shared leaves get its mean. Everything else goes to every
      endpoint as it is. A function (``value_fn=``) is therefore called with one network. A state of rank 0, which a user may
      put in the place of a hyperparameter, goes to every endpoint.

    Raises:
      ValueError: if ``optimizer`` has no ``init`` and ``update``. ``init`` and ``update`` raise it if a leaf has neither m
        rows nor one, or if the trees and the state do not fit together.

    Example:
      >>> import optax
      >>> optimizer = per_endpoint(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)))
      >>> endpoints = {"kernel": jnp.zeros((2, 3))}
      >>> grads = {"kernel": jnp.array([[0.0, 4.0, 0.0], [0.0, 0.5, 0.0]])}
      >>> updates, state = optimizer.update(grads, optimizer.init(endpoints), endpoints)
      >>> abs(updates["kernel"]).tolist()
      [[0.0, 1.0, 0.0], [0.0, 0.5, 0.0]]
    """
    if callable(getattr(optimizer, "gradient_transformation", None)):  # MultiSteps
        optimizer = optimizer.gradient_transformation()
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
        raise ValueError(
            f"per_endpoint takes an optimizer with init and update, such as optax.adam(1e-3), and not "
            f"{arguments.described(optimizer)}."
        )

    @functools.lru_cache(maxsize=16)
    def state_like(structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> Any:
        """The shapes of the state of a part. They are kept, because an update that is not compiled needs them every time."""
        return jax.eval_shape(jax.vmap(optimizer.init), jax.tree.unflatten(structure, leaves))

    def init(params: Endpoints) -> Any:
        parts = _parts_of("endpoints", params, "init(endpoints)")
        if not parts:
            return optimizer.init(params)
        return _joined(
            [axis_names.added(state_places.initial(jax.vmap(optimizer.init), part.of(params))) for part in parts]
        )

    def update(updates: Endpoints, state: Any, params: Endpoints | None = None, **extra: Any) -> tuple[Any, Any]:
        if params is not None:
            _check_alike(params, updates)
        parts = _parts_of("gradients", updates, _UPDATE)
        if not parts:
            return optimizer.update(updates, state, params, **extra)
        given_out = {name: value for name, value in extra.items() if _are_alike(value, updates)}
        states = [state] if len(parts) == 1 else _two_states(state)
        leaves, new_states = [], []
        for part, of_part in zip(parts, states, strict=True):
            of_params, structure = jax.tree.flatten(part.of(updates if params is None else params))
            shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in of_params)
            doubt = _check_state(of_part, state_like(structure, shapes), part.num_rows, params is not None)
            rows = {name: part.of(value) for name, value in given_out.items()}
            same = {name: value for name, value in extra.items() if name not in given_out}
            if getattr(same.get("value"), "shape", None) == (parts[0].num_rows,):
                value = same.pop("value")
                rows["value"] = value if part is parts[0] else jnp.mean(value, keepdims=True)
            try:
                change, new_state = _update_rows(optimizer, part, updates, of_part, params, rows, same)
            except Exception as error:
                if doubt:
                    raise ValueError(doubt) from error
                raise
            leaves.append(jax.tree.leaves(change))
            new_states.append(axis_names.added(new_state))
        return _merged(updates, parts, leaves), _joined(new_states)

    if getattr(optimizer, "_fields", None) == Optimizer._fields:
        return optimizer._replace(init=init, update=update)
    return Optimizer(init, update)


class _Part(NamedTuple):
    """The leaves with the same number of rows. ``is_in`` has one bool per leaf of the whole tree."""

    num_rows: int
    is_in: tuple[bool, ...]

    def of(self, whole: Any) -> Any:
        """The part of a tree, with None in the place of the other leaves, as one network per row."""
        leaves, structure = jax.tree.flatten(whole)
        kept = [leaf if is_in else None for leaf, is_in in zip(leaves, self.is_in, strict=True)]
        return axis_names.removed(jax.tree.unflatten(structure, kept), before_the_axis=True)


def _parts_of(name: str, endpoints: Endpoints, call: str) -> list[_Part]:
    """The endpoints' own leaves, then the shared ones if there are any. No part for a tree without leaves.

    Args:
      name: what the tree is called in a message.
      endpoints: leaves ``[m, *s]`` or ``[1, *s]``, or their gradients.
      call: shows the order of the arguments in a message.
    """
    leaves = jax.tree_util.tree_leaves_with_path(endpoints)
    if leaves or endpoints is None:
        arguments.check_arrays(f"per_endpoint: {name}", endpoints, "a tree with leaves [m, *s]", call)
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise ValueError(
                f"per_endpoint: leaf {tree.leaf_name(path)} of the {name} has dtype {jnp.result_type(leaf)}, and only floating-point "
                f"leaves are trained. Keep counters, keys and other state apart from the parameters.{arguments.order(call)}"
            )
        if jnp.ndim(leaf) == 0:
            raise ValueError(
                f"per_endpoint: leaf {tree.leaf_name(path)} of the {name} is a scalar without an endpoint axis. Stack networks with "
                f"jsubspace.init_endpoints.{arguments.order(call)}"
            )
    rows = [jnp.shape(leaf)[0] for _, leaf in leaves]
    most = max(rows, default=1)
    for (path, _), n in zip(leaves, rows, strict=True):
        if n not in (1, most):
            raise ValueError(
                f"per_endpoint: leaf {jax.tree_util.keystr(path)} has {n} rows, and other leaves have {most}. A leaf has a "
                "row per endpoint, or one row that all endpoints share."
            )
    return [_Part(m, tuple(n == m for n in rows)) for m in sorted(set(rows), reverse=True)]


def _are_alike(a: Any, b: Any) -> bool:
    """Whether the trees agree in structure and shapes. A scalar is no tree like an array."""
    return tree.same_structure(a, b) and [*map(jnp.shape, jax.tree.leaves(a))] == [*map(jnp.shape, jax.tree.leaves(b))]


def _update_rows(
    optimizer: Any, part: _Part, updates: Any, state: Any, params: Any, rows: dict[str, Any], same: dict[str, Any]
) -> tuple[Any, Any]:
    def update_row(updates: Any, state: Any, params: Any, rows: dict[str, Any]) -> tuple[Any, Any]:
        return optimizer.update(updates, state, params, **rows, **same)

    of_rows = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (part.num_rows,)) if jnp.ndim(leaf) == 0 else leaf, state
    )
    of_params = None if params is None else part.of(params)
    return jax.vmap(update_row)(part.of(updates), axis_names.removed(of_rows, before_the_axis=True), of_params, rows)


def _check_alike(params: Endpoints, updates: Endpoints) -> None:
    """Raises a ValueError if the gradients do not belong to the endpoints ``params``."""
    order = arguments.order(_UPDATE)
    if not tree.same_structure(params, updates):
        raise ValueError(
            f"per_endpoint: the endpoints have the structure of another tree than the gradients: {tree.difference(params, updates)}."
            f"{order}"
        )
    _parts_of("endpoints", params, _UPDATE)
    for (path, leaf), update in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(updates), strict=True):
        shape, of_update = jnp.shape(leaf), jnp.shape(update)
        # Differentially private SGD takes a gradient per example, with the examples behind the endpoint axis.
        if shape != of_update and shape != of_update[:1] + of_update[2:]:
            raise ValueError(
                f"per_endpoint: leaf {tree.leaf_name(path)} of the endpoints has the shape {list(shape)}, but its gradient "
                f"has {list(of_update)}.{order}"
            )


def _check_state(state: Any, expected: Any, num_rows: int, all_axes: bool) -> str:
    """What is said if the update fails, because the state has another structure than a new state. Else an empty text.

    Such a state need not be wrong, because an optimizer may add entries to its state (``optax.measure_with_ema``).

    Args:
      state: the state of a part.
      expected: a new state with the right shapes.
      num_rows: the length of the first axis.
      all_axes: whether the other axes of ``expected`` are known too.

    Raises:
      ValueError: if the state was made for other endpoints, or is no state of this optimizer.
    """
    remedy = f"Make the state of these endpoints with init(endpoints).{arguments.order(_UPDATE)}"
    leaves, shapes = jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(expected)
    message = ""
    if leaves:
        arguments.check_arrays("per_endpoint: the state", state, "the state from init(endpoints)", _UPDATE)
    if not tree.same_structure(state, expected):
        message = (
            "per_endpoint: the state was made by another optimizer or for another tree than these endpoints: "
            f"{tree.difference(state, expected)}. {remedy}"
        )
        are_sequences = isinstance(state, list | tuple) and isinstance(expected, list | tuple)
        if type(state) is not type(expected) and not are_sequences:
            raise ValueError(message)
        shapes = [None] * len(leaves)
    for (path, leaf), shape in zip(leaves, shapes, strict=True):
        if jnp.ndim(leaf) == 0:  # A user may put a number in the place of a hyperparameter.
            continue
        if jnp.shape(leaf)[0] != num_rows:
            raise ValueError(
                f"per_endpoint: {jax.tree_util.keystr(path)} of the optimizer's state has {jnp.shape(leaf)[0]} rows, but the "
                f"gradients have {num_rows}. {remedy}"
            )
        if all_axes and shape is not None and jnp.shape(leaf) != shape.shape:
            raise ValueError(
                f"per_endpoint: {jax.tree_util.keystr(path)} of the optimizer's state has the shape {list(jnp.shape(leaf))}, but "
                f"these endpoints have {list(shape.shape)} there. {remedy}"
            )
    return message


def _two_states(state: Any) -> StateWithShared:
    if not isinstance(state, StateWithShared):
        raise ValueError(
            "per_endpoint: some leaves have one row, which all endpoints share, but the state was made without shared leaves. Make "
            "it with init(endpoints)."
        )
    return state


def _joined(states: list[Any]) -> Any:
    return states[0] if len(states) == 1 else StateWithShared(*states)


def _merged(updates: Endpoints, parts: list[_Part], leaves: list[list[Any]]) -> Endpoints:
    """A tree like ``updates`` from the leaves of its parts."""
    rests = [iter(own) for own in leaves]
    order = [next(n for n, part in enumerate(parts) if part.is_in[i]) for i in range(len(parts[0].is_in))]
    return jax.tree.unflatten(jax.tree.structure(updates), [next(rests[n]) for n in order])
