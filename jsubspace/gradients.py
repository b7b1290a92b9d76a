"""Algorithm 1 as a gradient function, for any training loop.

The gradient is taken at the point theta = P(alpha), where everything costs what it costs for one network,
averaged over devices there, and only then pulled back to the m endpoints:

    d L / d omega_i = c_i(alpha) d loss / d theta + beta d cos^2(omega_j, omega_k) / d omega_i.

So what travels between devices has the size of one network whatever m is. The second term depends on the
endpoints alone, which every device holds, and is never communicated.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jsubspace import penalties, points, tree
from jsubspace.shares import Shares
from jsubspace.subspaces import Subspace
from jsubspace.types import Alpha, Endpoints, LayerNames, Params

LossFn = Callable[..., Any]


class Info(NamedTuple):
    """What a gradient step saw.

    Attributes:
      loss: the task loss alone, mean over the samples of alpha and over devices.
      penalty: cos^2 of the sampled pair, or its mean over all pairs; without beta. Zero if nothing is
        penalised (one endpoint, or beta = 0).
      alpha: the position(s) in the subspace, as drawn by `jsubspace.sample_alpha`.
      aux: what the loss function returned besides the loss, with a leading axis ``[num_samples]`` if there
        are several samples. Of this device: it is not averaged.
    """

    loss: jax.Array
    penalty: jax.Array
    alpha: Alpha
    aux: Any


def value_and_grad(
    loss_fn: LossFn,
    subspace: Subspace,
    *,
    beta: float = 1.0,
    layerwise: bool | LayerNames = False,
    num_samples: int = 1,
    all_pairs: bool = False,
    mask: penalties.Mask = None,
    has_aux: bool = False,
    axis_name: str | None = None,
    shares: Shares | None = None,
) -> Callable[..., tuple[tuple[jax.Array, Info], Endpoints]]:
    """Makes the gradient function of Algorithm 1: sample alpha and a pair, differentiate, pull back.

    Args:
      loss_fn: ``(point, *args) -> loss``, a scalar, or ``(loss, aux)`` with has_aux. An ordinary loss of an
        ordinary network.
      subspace: which subspace is trained.
      beta: strength of the penalty, at least 0. With 0, or one endpoint, none is computed.
      layerwise: draw an alpha of its own for every layer: True for the layers that `jsubspace.layers` finds,
        or a tree of layer names.
      num_samples: S positions a step (appendix B). Every array in args is then part of the batch, cut into S
        equal parts along its leading axis (example i goes to part i modulo S), and the loss is the mean over
        the parts. Typed PRNG keys in args are split: each part has its own. What is neither goes into loss_fn
        by a closure.
      all_pairs: take the penalty's exact mean over pairs instead of one random pair a step.
      mask: the leaves that the penalty sees: a tree of bools, a function ``endpoints -> tree``, or None for
        the kernels (`jsubspace.kernels`).
      has_aux: whether loss_fn returns ``(loss, aux)``.
      axis_name: the device axis of a pmap or shard_map to average over. Give every device the same key.
      shares: instead of axis_name, where endpoints are divided among devices: ``endpoints`` and ``grads`` are then this
        device's shares (`shares.Shares`).

    Returns:
      ``grad_fn(key, endpoints, *args) -> ((value, info), grads)``. ``value`` is loss + beta * penalty,
      ``info`` an `Info`, and ``grads`` has the endpoints' leaves ``[m, *s]``: straight into any optax
      optimizer. Elementwise optimizers act on each endpoint as on one network; those that take a norm over
      the tree (clip_by_global_norm, LARS, LAMB) belong under a vmap over the endpoints.

    Raises:
      ValueError: here, if a setting is out of range; by ``grad_fn``, if the endpoints do not fit the
        subspace or the batch does not divide by num_samples.

    Example:
      >>> import optax
      >>> def loss_fn(point, x, y):
      ...   return jnp.mean((x @ point["kernel"] - y) ** 2)
      >>> endpoints = points.init_endpoints(jax.random.key(0), lambda k: {"kernel": jax.random.normal(k, (3, 2))}, 2)
      >>> grad_fn = value_and_grad(loss_fn, points.Line(), beta=1.0)
      >>> (value, info), grads = grad_fn(jax.random.key(1), endpoints, jnp.ones((8, 3)), jnp.ones((8, 2)))
      >>> endpoints = optax.apply_updates(endpoints, jax.tree.map(lambda g: -0.1 * g, grads))
      >>> grads["kernel"].shape
      (2, 3, 2)

    References:
      Wortsman et al., Learning Neural Network Subspaces, 2021, Algorithm 1 and equations 2 to 5.
    """
    grad_at = value_and_grad_at(
        loss_fn,
        subspace,
        beta=beta,
        num_samples=num_samples,
        mask=mask,
        has_aux=has_aux,
        axis_name=axis_name,
        shares=shares,
    )
    penalised = beta > 0 and subspace.num_endpoints > 1

    def grad_fn(key: jax.Array, endpoints: Endpoints, *args: Any) -> tuple[tuple[jax.Array, Info], Endpoints]:
        alpha_key, pair_key = jax.random.split(key)
        layers = (tree.layers(endpoints) if layerwise else None) if isinstance(layerwise, bool) else layerwise
        alpha = points.sample_alpha(alpha_key, subspace, layers, None if num_samples == 1 else num_samples)
        chosen: tuple[Any, ...] = tuple(range(subspace.num_endpoints))
        if penalised and not all_pairs:
            chosen = penalties.sample_pair(pair_key, subspace.num_endpoints)
        return grad_at(alpha, chosen, endpoints, *args)

    return grad_fn


def value_and_grad_at(
    loss_fn: LossFn,
    subspace: Subspace,
    *,
    beta: float = 1.0,
    num_samples: int = 1,
    mask: penalties.Mask = None,
    has_aux: bool = False,
    axis_name: str | None = None,
    shares: Shares | None = None,
) -> Callable[..., tuple[tuple[jax.Array, Info], Endpoints]]:
    """`value_and_grad` at positions of your choice instead of random ones.

    Returns:
      ``grad_fn(alpha, chosen, endpoints, *args) -> ((value, info), grads)``: alpha as from
      `jsubspace.sample_alpha`, ``chosen`` the endpoints among whose pairs the penalty is the mean: ``(j, k)``,
      or all of them.
    """
    if not beta >= 0:
        raise ValueError(f"beta is {beta}, and the penalty's strength is at least 0; 0 switches it off.")
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; a step takes at least one sample of alpha.")
    penalised = beta > 0 and subspace.num_endpoints > 1
    task = jax.value_and_grad(loss_fn if has_aux else lambda *args: (loss_fn(*args), None), has_aux=True)

    shares = Shares(axis_name) if shares is None else shares

    def at_point(
        endpoints: Endpoints, alpha: Alpha, *args: Any, divided: bool = True
    ) -> tuple[jax.Array, Any, Params, Any]:
        """Loss, aux and gradient of the network at alpha, on this device; and the endpoints' weights in the mean over
        devices. The mean's division goes into the weights: by itself it would be a pass over the gradient."""
        weights = points.coefficients(endpoints, alpha, subspace)
        point = tree.contract(endpoints, weights)
        (loss, aux), grad = task(shares.gather(point) if divided else point, *args)
        grad = jax.tree.map(lambda g, leaf: g.astype(leaf.dtype), grad, endpoints)
        return loss, aux, grad, jax.tree.map(lambda c: c / shares.count(), weights)

    def one_position(endpoints: Endpoints, alpha: Alpha, *args: Any) -> tuple[jax.Array, Any, Endpoints]:
        loss, aux, grad, weights = at_point(endpoints, alpha, *args)
        return shares.mean(loss), aux, tree.spread(shares.scatter(grad), weights)

    def several_positions(endpoints: Endpoints, alphas: Alpha, *args: Any) -> tuple[jax.Array, Any, Endpoints]:
        """The mean over S positions, each with its part of the batch; one position's network in memory at a time."""
        fewer_points = (
            num_samples <= subspace.num_endpoints
        )  # Of S networks at points and m endpoints, the fewer travel.
        gathered = endpoints if fewer_points else shares.gather(endpoints, leading=1)
        losses, aux, grads, weights = jax.lax.map(
            lambda alpha_part: at_point(gathered, alpha_part[0], *alpha_part[1], divided=fewer_points),
            (alphas, _cut(args, num_samples)),
        )

        def pull_back(grads: Params) -> Endpoints:
            return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(tree.spread)(grads, weights))

        if fewer_points:
            grads = pull_back(shares.scatter(grads, leading=1))
        else:
            of_endpoints = jax.tree.map(lambda g, leaf: g.astype(leaf.dtype), pull_back(grads), endpoints)
            grads = shares.scatter(of_endpoints, leading=1)
        return shares.mean(jnp.mean(losses)), aux, grads

    def grad_fn(
        alpha: Alpha, chosen: tuple[Any, ...], endpoints: Endpoints, *args: Any
    ) -> tuple[tuple[jax.Array, Info], Endpoints]:
        gradient = one_position if num_samples == 1 else several_positions
        loss, aux, grads = gradient(endpoints, alpha, *args)
        if not penalised:
            return (loss, Info(loss, jnp.zeros_like(loss), alpha, aux)), grads
        penalty = penalties.penalty(endpoints, chosen, tree.resolve_mask(mask, endpoints), shares.gram)
        grads = penalty.add_gradient(grads, endpoints, beta)
        return (loss + beta * penalty.value, Info(loss, penalty.value, alpha, aux)), grads

    return grad_fn


def _cut(args: tuple[Any, ...], num_samples: int) -> tuple[Any, ...]:
    """Arrays ``[n, ...] -> [S, n / S, ...]``, example i in part i modulo S; keys ``[] -> [S]``.

    Dealt out rather than sliced, so that a batch split over devices is cut into the same parts as a whole
    one, whenever the share of a device divides by S.
    """

    def cut(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            return jax.random.split(leaf, num_samples)
        n = jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0
        if n == 0 or n % num_samples:
            raise ValueError(
                f"argument {jax.tree_util.keystr(path)} of shape {list(jnp.shape(leaf))} cannot be cut into "
                f"num_samples={num_samples} equal parts; make its leading axis a multiple of it, or, if it is no part "
                "of the batch, let the loss function close over it."
            )
        return jnp.moveaxis(jnp.reshape(leaf, (n // num_samples, num_samples, *jnp.shape(leaf)[1:])), 1, 0)

    return jax.tree_util.tree_map_with_path(cut, args)
