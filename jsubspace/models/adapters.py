"""A `jsubspace.network.Network` from a module of Flax (linen or nnx) or Equinox, or from plain functions.

A framework is imported when one of its modules is adapted, and not before.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jsubspace.models import batch_alone, calls, leaf_names
from jsubspace.network import Network
from jsubspace.types import Params


def from_functions(
    init_fn: Callable[[jax.Array], Params],
    apply_fn: Callable[..., Any],
    stats_fn: Callable[..., Any] | None = None,
) -> Network:
    """A `Network` from plain functions, which take only the keywords that they need.

    Args:
      init_fn: ``key -> point``.
      apply_fn: ``(point, *inputs) -> outputs``. It may also take the keywords ``stats``, ``key`` and ``train``. The last one may
        have the other names that `from_linen` knows.
      stats_fn: ``(point, *inputs) -> statistics`` of one training batch in train mode (`jsubspace.reestimate_batch_stats`),
        or None. It may also take the keyword ``key``.

    Raises:
      ValueError: if apply_fn takes no ``stats`` although there is a stats_fn, or takes a mode or a key by another name.

    Example:
      >>> network = from_functions(lambda key: {"w": jnp.ones(3)}, lambda point, x: x @ point["w"])
      >>> network.apply(network.init(jax.random.key(0)), jnp.ones((2, 3)), train=True).tolist()
      [3.0, 3.0]
    """
    calls.check_names(apply_fn, calls.name(apply_fn), takes_key=True)
    apply = calls.with_its_keywords(apply_fn, ("stats", "key", "train"))
    if stats_fn is not None and not calls.takes(apply_fn, "stats"):
        raise ValueError(
            f"{calls.name(apply_fn)} does not take the keyword stats, but a stats_fn was given. Let it take the statistics of the "
            "point, as in apply_fn(point, x, stats=None)."
        )
    return Network(init_fn, apply, None if stats_fn is None else calls.with_its_keywords(stats_fn, ("key",)))


def from_linen(
    module: Any,
    *inputs: Any,
    outputs: Callable[[Any], Any] = lambda outputs: outputs,
    momentum: float | None = None,
) -> Network:
    """A `Network` from a Flax linen module.

    The module is called in train mode and in evaluation mode through its argument ``train``, ``training``, ``is_training``,
    ``is_train``, ``deterministic``, ``inference`` or ``eval_mode``. A module without such an argument is the same in both modes. Dropout
    gets a key under the name ``dropout``.

    The parameters are the collection ``params``. The collection ``batch_stats`` holds BatchNorm statistics. The
    network's statistics are of one batch alone, whatever the momentum of BatchNorm is. BatchNorm that averages over devices has the axis name
    "batch" (`training.parallel.AXIS`), and the module then has a field ``axis_name``.

    Args:
      module: the module.
      inputs: the inputs of a batch, or arrays of the same shapes. Their content does not count.
      outputs: from what the module returns to the outputs of the network, for example to logits.
      momentum: the momentum of all BatchNorm layers, if it is known. Otherwise it follows from two further updates, which
        the compiler merges with the first.

    Raises:
      ValueError: if the module has variables of another collection, or takes the mode by another name.

    Example:
      >>> import flax.linen as nn
      >>> network = from_linen(nn.Dense(2), jnp.zeros((1, 3)))
      >>> network.apply(network.init(jax.random.key(0)), jnp.ones((4, 3))).shape
      (4, 2)
      >>> network.stats is None
      True
    """
    zeros = tuple(jnp.zeros(jnp.shape(array), jnp.result_type(array)) for array in inputs)
    calls.check_names(module.__call__, type(module).__name__)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), *zeros, **calls.mode(module.__call__, True)))
    if others := sorted(set(variables) - {"params", "batch_stats"}):
        raise ValueError(
            f"the module {type(module).__name__} has variables of the collections {', '.join(others)}. A network of a subspace "
            "has params, and batch_stats if it has BatchNorm. Pass the others as inputs, or leave them out."
        )
    shapes = variables.get("batch_stats")
    alone = None
    if getattr(module, "axis_name", None) is not None:
        alone = _linen(module.clone(axis_name=None), zeros, shapes, outputs, momentum)
    return _linen(module, zeros, shapes, outputs, momentum, alone)


def _linen(
    module: Any, zeros: Any, shapes: Any, outputs: Callable[[Any], Any], momentum: float | None, alone: Any = None
) -> Network:
    from flax.core import meta

    mode = {train: calls.mode(module.__call__, train) for train in (False, True)}

    def init(key: jax.Array) -> Params:
        # A run divides arrays by itself. The names of axes in boxes of flax are of another mesh.
        return meta.unbox(module.init(key, *zeros, **mode[True])["params"])

    def updated(point: Params, start: Any, inputs: Any, key: jax.Array | None) -> Any:
        variables = {"params": point} if start is None else {"params": point, "batch_stats": start}
        rngs = {} if key is None else {"dropout": key}
        return module.apply(variables, *inputs, rngs=rngs, mutable=["batch_stats"], **mode[True])

    def apply(point: Params, *inputs: Any, stats: Any = None, key: jax.Array | None = None, train: bool = False) -> Any:
        if train:
            return outputs(updated(point, None, inputs, key)[0])
        return outputs(module.apply({"params": point, "batch_stats": stats or {}}, *inputs, **mode[False]))

    def stats(point: Params, *inputs: Any, key: jax.Array | None = None) -> Any:
        if momentum == 0:
            return updated(point, None, inputs, key)[1]["batch_stats"]
        return batch_alone.statistics(
            lambda start: updated(point, start, inputs, key)[1]["batch_stats"], shapes, momentum
        )

    return Network(init, apply, None if shapes is None else stats, alone)


def from_nnx(make: Callable[[Any], Any], outputs: Callable[[Any], Any] = lambda outputs: outputs) -> Network:
    """A `Network` from a Flax nnx module.

    The point is a dictionary of the ``nnx.Param`` variables. Statistics are the ``nnx.BatchStat`` variables after one
    batch alone, whatever the momentum is. Dropout draws with the key of the step.

    Args:
      make: ``rngs -> module``, called as ``make(nnx.Rngs(key))``. It must draw everything from ``rngs``.
      outputs: from what the module returns to the outputs of the network.

    Raises:
      ValueError: if ``make`` is no function of ``rngs``, or the module has variables of another type, such as a cache, or takes the
        mode by another name.

    Example:
      >>> from flax import nnx
      >>> network = from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
      >>> point = network.init(jax.random.key(0))
      >>> sorted(point), network.apply(point, jnp.ones((4, 3))).shape
      (['bias', 'kernel'], (4, 2))
    """
    from flax import nnx

    def split(module: Any) -> tuple[Any, Any, Any]:
        parts: Any = nnx.split(module, nnx.Param, nnx.BatchStat, nnx.RngState, ...)
        _, params, stats, _, rest = parts
        return params, stats, rest

    def named(state: Any) -> dict[str, Any]:
        return leaf_names.as_dictionary(nnx.to_pure_dict(state))

    if isinstance(make, nnx.Module):
        raise ValueError(
            f"from_nnx got a module, a {type(make).__name__}. It takes a function that makes one, as in "
            f"from_nnx(lambda rngs: {type(make).__name__}(rngs=rngs)), because every endpoint starts as another network."
        )

    def checked() -> tuple[Any, Any, Any]:
        module = make(nnx.Rngs(jax.random.key(0)))
        calls.check_names(type(module).__call__, type(module).__name__)
        return split(module)

    _, statistics, rest = jax.eval_shape(checked)
    if others := jax.tree_util.tree_leaves_with_path(rest):
        raise ValueError(
            f"the module has a variable at {jax.tree_util.keystr(others[0][0])} that is neither nnx.Param, nnx.BatchStat nor "
            "random state. A network of a subspace has these alone. Pass the others as inputs, or leave them out."
        )
    has_stats = bool(jax.tree.leaves(statistics))

    def module_at(point: Params, stats: Any, key: jax.Array | None, train: bool) -> Any:
        # What `make` draws is overwritten, and the compiler drops it.
        module = make(nnx.Rngs(jax.random.key(0) if key is None else key))
        params, of_module, _ = split(module)
        for state, given in ((params, point), (of_module, stats)):
            if given is not None:
                nnx.replace_by_pure_dict(state, leaf_names.from_dictionary(given, nnx.to_pure_dict(state)))
                nnx.update(module, state)
        module.train() if train else module.eval()
        return module

    def init(key: jax.Array) -> Params:
        return named(split(make(nnx.Rngs(key)))[0])

    def apply(point: Params, *inputs: Any, stats: Any = None, key: jax.Array | None = None, train: bool = False) -> Any:
        module = module_at(point, None if train else stats, key, train)
        return outputs(module(*inputs, **calls.mode(type(module).__call__, train)))

    def stats(point: Params, *inputs: Any, key: jax.Array | None = None) -> Any:
        def updated(start: Any) -> Any:
            module = module_at(point, start, key, train=True)
            module(*inputs, **calls.mode(type(module).__call__, True))
            return named(split(module)[1])

        return batch_alone.statistics(updated, named(statistics))

    return Network(init, apply, stats if has_stats else None)


def from_equinox(
    make: Callable[[jax.Array], Any], outputs: Callable[[Any], Any] = lambda outputs: outputs, batched: bool = False
) -> Network:
    """A `Network` from an Equinox module without state.

    The point is a dictionary of the module's floating-point arrays by their paths. Other arrays and fields stay as
    ``make(jax.random.key(0))`` makes them.

    Args:
      make: ``key -> module``.
      outputs: from what the module returns to the outputs of the network.
      batched: whether the module takes a whole batch. By default it takes one example, and `jax.vmap` calls it. A module that
        takes the keyword ``key`` gets a key of its own for every example.

    Raises:
      ValueError: if ``make`` returns state beside the module, as for BatchNorm.

    Example:
      >>> import equinox as eqx
      >>> network = from_equinox(lambda key: eqx.nn.Linear(3, 2, key=key))
      >>> point = network.init(jax.random.key(0))
      >>> sorted(point), network.apply(point, jnp.ones((4, 3))).shape
      (['bias', 'weight'], (4, 2))
    """
    import equinox as eqx

    def parts(key: jax.Array) -> tuple[Any, Any]:
        module = make(key)
        if not callable(module):
            raise ValueError(
                f"make(key) returned a {type(module).__name__}. It must return a module without state, which is called with "
                "its inputs. BatchNorm of Equinox has state: use LayerNorm or GroupNorm, or write plain functions."
            )
        return eqx.partition(module, eqx.is_inexact_array)

    def init(key: jax.Array) -> Params:
        return leaf_names.as_dictionary(parts(key)[0])

    def apply(point: Params, *inputs: Any, stats: Any = None, key: jax.Array | None = None, train: bool = False) -> Any:
        del stats
        arrays, rest = parts(jax.random.key(0))  # The arrays are only a pattern, and the compiler drops them.
        module = eqx.nn.inference_mode(eqx.combine(leaf_names.from_dictionary(point, arrays), rest), value=not train)
        if key is None or not calls.takes(type(module).__call__, "key"):
            return outputs(module(*inputs) if batched else jax.vmap(module)(*inputs))
        if batched:
            return outputs(module(*inputs, key=key))
        keys = jax.random.split(key, jnp.shape(inputs[0])[0])
        return outputs(jax.vmap(lambda key, *example: module(*example, key=key))(keys, *inputs))

    jax.eval_shape(init, jax.random.key(0))
    return Network(init, apply)
