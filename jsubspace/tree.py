"""Arithmetic on the stacked axis: m networks as one pytree with leaves ``[m, *s]``, or ``[1, *s]`` for a shared leaf.

A leaf with one row among m > 1 belongs to all endpoints. Every point has this leaf as it is, since weights sum to 1, and
its gradient is the gradient at the point.

A sum over endpoints is written as elementwise products that are then added, and never as a matrix product.
A matrix unit may round its float32 inputs (to bfloat16 on TPU, to TF32 on GPU), and P(corner) would no longer
be the endpoint. The elementwise form is exact at the corners on every backend, and XLA fuses it into one pass.
Everything is computed in float32 or wider, and is returned in the dtype of the leaf.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, axis_names, parameters
from jsubspace.types import Endpoints, LeafMask, Params, Tree


def stack(networks: Sequence[Tree]) -> Tree:
    """Endpoints ``[m, *s]`` from m networks with leaves ``[*s]``.

    Any networks of one architecture can be stacked. The stacked checkpoints of a run, for example, form a simplex. If leaves
    carry names of axes for sharding (Flax), the endpoint axis is named None, which is not sharded.

    Raises:
      ValueError: if the networks differ in structure, or in the shape or dtype of a leaf.

    Example:
      >>> stack([{"w": jnp.zeros(3)}, {"w": jnp.ones(3)}])["w"].shape
      (2, 3)
    """
    if not isinstance(networks, Sequence) or isinstance(networks, str):
        raise ValueError(f"stack takes a list of networks, not {arguments.described(networks)}.")
    if not networks:
        raise ValueError("stack: no networks were given, but at least one is needed.")
    first = jax.tree_util.tree_leaves_with_path(networks[0])
    structure: Any = jax.tree.structure(networks[0])
    for i, network in enumerate(networks):
        parameters.check_network(network)
        if jax.tree.structure(network) != structure:
            raise ValueError(
                f"stack: network {i} has the structure of another network than network 0: "
                f"{difference(network, networks[0])}. Stack networks of one architecture."
            )
        for (path, a), b in zip(first, jax.tree.leaves(network), strict=True):
            if jnp.shape(a) != jnp.shape(b) or jnp.result_type(a) != jnp.result_type(b):
                raise ValueError(
                    f"stack: leaf {leaf_name(path)} is {jnp.result_type(a)}{list(jnp.shape(a))} in network 0 but "
                    f"{jnp.result_type(b)}{list(jnp.shape(b))} in network {i}. Stack networks of one architecture and width."
                )
    return axis_names.added(jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks))


def unstack(endpoints: Tree) -> list[Tree]:
    """The m networks of ``endpoints``, with leaves ``[*s]``. It is the inverse of `stack`.

    Each network has the row of a leaf that all endpoints share.
    """
    m = num_endpoints(endpoints, "unstack(endpoints)")
    return [axis_names.removed(row(endpoints, i)) for i in range(m)]


def row(endpoints: Endpoints, i: Any) -> Params:
    """The arrays ``[*s]`` of endpoint i, an integer or traced. They keep the endpoints' names of axes."""
    return jax.tree.map(lambda leaf: leaf[0 if leaf.shape[0] == 1 else i], endpoints)


def chosen_rows(endpoints: Endpoints, chosen: Sequence[Any]) -> Endpoints:
    """The endpoints in these rows, ``[p, *s]``, integers or traced. Shared leaves stay one row."""
    return jax.tree.map(
        lambda leaf, is_shared: leaf if is_shared else jnp.stack([leaf[i] for i in chosen]),
        endpoints,
        shared_leaves(endpoints),
    )


def num_endpoints(endpoints: Endpoints, call: str = "") -> int:
    """m, the largest length of the leading axis. Every leaf has m rows, or one row, which all endpoints share.

    ``call`` shows the order of the arguments in a message.

    Raises:
      ValueError: if the tree has no leaves, if a leaf has no leading axis or no floating-point dtype, if a leaf is known as
        state and no parameter (`parameters.check_endpoints`), if a leaf has neither m rows nor one, or if an explicit mesh cuts
        the leading axis. The message names the leaves.
    """
    leaves = jax.tree_util.tree_leaves_with_path(endpoints)
    order = arguments.order(call)
    if not leaves and endpoints is not None:
        raise ValueError(
            f"the endpoints have no leaves. Stack networks with parameters (see jsubspace.init_endpoints).{order}"
        )
    arguments.check_arrays("endpoints", endpoints, "stacked networks, as from jsubspace.init_endpoints", call)
    parameters.check_endpoints(endpoints)
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"leaf {leaf_name(path)} has dtype {jnp.result_type(leaf)}, and only floating-point leaves have points between them. "
                f"Keep counters, keys and other state apart from the parameters. {parameters.REMEDY}{order}"
            )
        if jnp.ndim(leaf) == 0:
            raise ValueError(
                f"leaf {leaf_name(path)} is a scalar without an endpoint axis. Stack networks with jsubspace.init_endpoints.{order}"
            )
        if jnp.shape(leaf)[0] < 1:
            raise ValueError(
                f"leaf {leaf_name(path)} has no row: the endpoint axis has length 0, but a subspace has at least one endpoint."
                + order
            )
        _check_not_cut(path, leaf)
    several = [(path, jnp.shape(leaf)[0]) for path, leaf in leaves if jnp.shape(leaf)[0] > 1]
    for path, rows in several:
        if rows != several[0][1]:
            raise ValueError(
                f"leaf {leaf_name(several[0][0])} has {several[0][1]} endpoints but {leaf_name(path)} has {rows}. Stack the same "
                "number of networks in every leaf (see jsubspace.init_endpoints). Only a leaf with one row is shared by all."
                + order
            )
    return several[0][1] if several else 1


def shared_leaves(endpoints: Endpoints) -> LeafMask:
    """True for every leaf ``[1, *s]`` among m > 1 endpoints: one array that all endpoints share."""
    m = num_endpoints(endpoints)
    return jax.tree.map(lambda leaf: jnp.shape(leaf)[0] != m, endpoints)


def weights_per_leaf(endpoints: Endpoints, weights: Any) -> Any:
    """``weights`` of `contract`, with ``[1]``, a one, for every shared leaf. `pull_back` takes them.

    Without shared leaves, the weights are returned as they are.
    """
    shared = shared_leaves(endpoints)
    if not any(jax.tree.leaves(shared)):
        return weights
    return jax.tree.map(
        lambda c, is_shared: jnp.ones_like(c[:1]) if is_shared else c, _per_leaf(endpoints, weights), shared
    )


def contract(endpoints: Endpoints, weights: Any) -> Params:
    """The network sum_i c_i omega_i.

    Args:
      endpoints: leaves ``[m, *s]``, or ``[1, *s]`` for a shared leaf, whose row is the network's whatever c is.
      weights: c, ``[m]``, or (layerwise) a tree like ``endpoints`` with one ``[m]`` per leaf. A leaf ``[m, L, *s]`` of L
        layers that are stacked for a scan may have the weights ``[m, L]``.

    Returns:
      A network with leaves ``[*s]``, each in the dtype of its leaf. The weight vector e_i gives omega_i, bit for bit,
      even if another endpoint holds an infinity or NaN. (Only a negative zero becomes zero.)
    """

    def contract_leaf(leaf: jax.Array, c: jax.Array) -> jax.Array:
        if leaf.shape[0] == 1 != c.shape[0]:
            return leaf[0]
        wide = leaf.astype(accumulator(leaf.dtype))
        c = c.astype(wide.dtype)
        # If the two rows of a pair are slices, XLA reads them in the same pass as the penalty's inner products. On a TPU,
        # XLA copies slices if there are more than two rows. On the CPU, XLA moves a sum over rows into the matrix product
        # that uses the kernel and repeats it for every example: a step of a multilayer perceptron took seven times as long.
        if leaf.shape[0] == 2:
            return _sum_of_slices(wide, c).astype(leaf.dtype)
        return jax.lax.platform_dependent(wide, c, cpu=_sum_of_slices, default=_sum_over_rows).astype(leaf.dtype)

    return axis_names.removed(jax.tree.map(contract_leaf, endpoints, _per_leaf(endpoints, weights)))


def pull_back(point: Params, weights: Any) -> Endpoints:
    """The transpose of `contract`, with leaves ``[m, *s]``: row i of the result is c_i times the network.

    It turns the gradient at a point into the gradient of the endpoints (equations 3 and 4 of the paper). Shared leaves have
    the weights of `weights_per_leaf`.
    """

    def pull_back_leaf(leaf: jax.Array, c: jax.Array) -> jax.Array:
        wide = leaf.astype(accumulator(leaf.dtype))[None]
        return (column(c, wide) * wide).astype(leaf.dtype)

    return axis_names.added(jax.tree.map(pull_back_leaf, point, _per_leaf(point, weights)))


def same_structure(a: Any, b: Any) -> bool:
    """Whether two trees have the same structure. Their leaves and the names of their axes (`axis_names`) may differ."""
    structures: Any = [jax.tree.structure(a), jax.tree.structure(b)]
    return structures[0] == structures[1] or _bare_structure(a) == _bare_structure(b)


def difference(a: Any, b: Any) -> str:
    """How the structure of ``a`` differs from that of ``b``, in words for a message that names a leaf.

    Example:
      >>> difference({"kernel": 1.0}, {"kernel": 1.0, "bias": 2.0})
      "it lacks leaf ['bias']"
      >>> difference({"kernel": 1.0, "scale": 1.0}, {"kernel": 1.0})
      "it has leaf ['scale'], which they lack"
    """
    if not jax.tree_util.tree_leaves_with_path(a) or jax.tree_util.all_leaves([a]):
        return f"it is {arguments.described(a)}"
    of_a, of_b = (
        [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(axis_names.bare(t))] for t in (a, b)
    )
    lacking, more = ([name for name in these if name not in those] for these, those in ((of_b, of_a), (of_a, of_b)))
    if lacking:
        return f"it lacks leaf {lacking[0]}"
    if more:
        return f"it has leaf {more[0]}, which they lack"
    return f"it has the structure {jax.tree.structure(a)}, and they have {jax.tree.structure(b)}"


def conformed(tree: Any, like: Any) -> Any:
    """The leaves of ``tree`` in the structure of ``like``, which `same_structure` found to be the same."""
    structure: Any = jax.tree.structure(like)
    return tree if jax.tree.structure(tree) == structure else jax.tree.unflatten(structure, jax.tree.leaves(tree))


def accumulator(dtype: Any) -> Any:
    """The dtype in which leaves of ``dtype`` are computed: float32, or ``dtype`` itself if it is wider."""
    return np.promote_types(dtype, np.float32)  # jnp.promote_types refuses to answer under strict promotion.


def _per_leaf(tree: Params, weights: Any) -> Any:
    """``weights`` as a tree like ``tree``: a single vector is repeated for every leaf."""
    return conformed(weights, tree) if same_structure(weights, tree) else jax.tree.map(lambda _: weights, tree)


def _check_not_cut(path: tuple[Any, ...], leaf: Any) -> None:
    """Raises a ValueError if the type of an array says that its rows lie on different devices, as with an explicit mesh."""
    spec = jax.typeof(leaf).sharding.spec if isinstance(leaf, jax.Array) else ()
    if spec and spec[0] is not None:
        raise ValueError(
            f"leaf {leaf_name(path)} of shape {list(leaf.shape)} is cut along the endpoint axis, over the mesh axis {spec[0]!r}. "
            "Every step reads all endpoints, so cut another axis and begin the PartitionSpec with None."
        )


def _bare_structure(tree: Any) -> Any:
    return jax.tree.structure(axis_names.bare(tree))


def _sum_of_slices(wide: jax.Array, c: jax.Array) -> jax.Array:
    columns = c if c.ndim == 1 else column(c, wide)
    total = product(columns[0], wide[0])
    for i in range(1, wide.shape[0]):
        total += product(columns[i], wide[i])
    return total


def _sum_over_rows(wide: jax.Array, c: jax.Array) -> jax.Array:
    return weighted_sum(column(c, wide), wide)


def weighted_sum(weights: jax.Array, wide: jax.Array) -> jax.Array:
    """The sum over the first axis of weights times rows ``[m, *s]``. A row of weight 0 adds 0, even if it is infinite."""
    return jnp.sum(product(weights, wide), axis=0)


def product(c: jax.Array, row: jax.Array) -> jax.Array:
    """c times the row, and 0 if c is 0. The where selects rows and not products, so that d/dc stays the row at c = 0."""
    return c * jnp.where((c != 0) | jnp.isfinite(row), row, 0)


def column(c: jax.Array, leaf: jax.Array) -> jax.Array:
    """``[m] -> [m, 1, ..., 1]`` in the leaf's dtype, to scale the rows of a ``[m, *s]`` leaf. ``[m, L]`` scales both axes."""
    return jnp.reshape(c, c.shape + (1,) * (leaf.ndim - c.ndim)).astype(leaf.dtype)


def leaf_name(path: tuple[Any, ...]) -> str:
    """The path of a leaf, for a message."""
    return jax.tree_util.keystr(path) or "(the array itself)"
