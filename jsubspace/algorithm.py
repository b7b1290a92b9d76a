"""Algorithm 1 for endpoints that lie on the devices in any way: positions, gradients at points, and the pull-back."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jsubspace import (
    arguments,
    centers,
    leaf_kinds,
    loops,
    penalties,
    point_gradients,
    positions,
    product_cosines,
    product_penalties,
    products,
    samples,
    tree,
)
from jsubspace.objectives import Objective, layers_of
from jsubspace.point_gradients import LossFn
from jsubspace.shares import Shares
from jsubspace.subspaces import Subspace
from jsubspace.task_vectors import check_origin, task_vectors
from jsubspace.types import Alpha, Endpoints, LeafMask, Params


class Info(NamedTuple):
    """The numbers of one gradient step.

    Attributes:
      loss: the task loss alone, the mean over the samples of alpha and over devices.
      penalty: cos^2 of the sampled pair, or its mean over all pairs, without the factor beta. It is zero if nothing is
        penalised (one endpoint, or beta = 0).
      alpha: the position(s) in the subspace, as drawn by `jsubspace.sample_alpha`.
      aux: the second result of the loss function, with a leading axis ``[num_samples]`` if there are several samples.
        It is this device's own and is not averaged over devices.
    """

    loss: jax.Array
    penalty: jax.Array
    alpha: Alpha
    aux: Any


CALL = "value_and_grad(loss_fn, subspace, *, beta=...)"

GradFn = Callable[..., tuple[tuple[jax.Array, Info], Endpoints]]
"""``(key, endpoints, *args, **kwargs) -> ((value, info), grads)``. At given positions, ``alpha, chosen`` stand for the key."""


def random_gradient(
    loss_fn: LossFn,
    subspace: Subspace,
    objective: Objective,
    shares: Shares,
    *,
    has_aux: bool = False,
    pass_alpha: bool = False,
) -> GradFn:
    """`value_and_grad` for endpoints that lie on the devices as ``shares`` says.

    If the endpoints are divided among devices, ``endpoints`` and ``grads`` are this device's shares.
    """
    objective.check_center(arguments.subspace(subspace, CALL))
    grad_at = gradient_at(loss_fn, subspace, objective, shares, has_aux=has_aux, pass_alpha=pass_alpha)
    num_samples, layerwise = objective.num_samples, objective.layerwise
    samples_pair = objective.penalises(subspace) and not objective.all_pairs

    # The first arguments are positional alone, so that a loss may call its own arguments key, alpha or endpoints. Under jit
    # their names must differ, too: jax.jit takes two arguments of one name for a mistake.
    def grad_fn(
        _key: jax.Array, _endpoints: Endpoints, /, *args: Any, **kwargs: Any
    ) -> tuple[tuple[jax.Array, Info], Endpoints]:
        key, endpoints = _key, _endpoints
        arguments.key("the first argument", key, "grad_fn(key, endpoints, *args)")
        positions.num_endpoints(endpoints, subspace, "grad_fn(key, endpoints, *args)")
        alpha_key, pair_key = jax.random.split(key)
        layers = layers_of(layerwise, endpoints)
        alpha = positions.sample_alpha(alpha_key, subspace, layers, None if num_samples == 1 else num_samples)
        alpha = centers.drawn_together(subspace, alpha, objective.spread)
        chosen: tuple[int | jax.Array, ...] = tuple(range(subspace.num_endpoints))
        if samples_pair:
            chosen = penalties.sample_pair(pair_key, subspace.num_endpoints)
        return grad_at(alpha, chosen, endpoints, *args, **kwargs)

    return grad_fn


def gradient_at(
    loss_fn: LossFn,
    subspace: Subspace,
    objective: Objective,
    shares: Shares,
    *,
    has_aux: bool = False,
    pass_alpha: bool = False,
) -> GradFn:
    """`value_and_grad_at` for endpoints that lie on the devices as ``shares`` says. See `random_gradient`."""
    arguments.subspace(subspace, CALL)
    arguments.function("loss_fn", loss_fn, "(point, *args) -> loss", CALL)
    num_samples, pairs = objective.num_samples, objective.products
    arithmetic: Any = tree if pairs is None else products.Arithmetic(pairs)
    has_aux, pass_alpha = arguments.truth("has_aux", has_aux), arguments.truth("pass_alpha", pass_alpha)
    task = point_gradients.task_gradient(loss_fn, has_aux, pass_alpha)
    # There are S networks at points and m endpoints. The devices exchange whichever are fewer, unless the mean over
    # devices is needed at every point.
    needs_mean = objective.at_point is not None or objective.goes_uphill()
    by_points = needs_mean or num_samples <= subspace.num_endpoints

    def of_point(
        endpoints: Endpoints, alpha: Alpha, inputs: samples.Inputs, divided: bool = True
    ) -> tuple[jax.Array, Any, Params, Any]:
        """Loss, aux and gradient of the network at alpha on this device, and the endpoints' weights in the mean over
        devices. The weights contain the mean's division: a separate division would be one more pass over the gradient."""
        args, kwargs = inputs
        coefficients = positions.coefficients(endpoints, alpha, subspace)
        point = arithmetic.contract(endpoints, coefficients)
        weights = centers.pull_back_weights(subspace, coefficients, objective.pull_back)
        weights = arithmetic.weights_per_leaf(endpoints, weights)

        def gradient(point: Params) -> tuple[tuple[jax.Array, Any], Params]:
            result, grad = task(shares.gather(point) if divided else point, alpha, *args, **kwargs)
            return result, jax.tree.map(lambda g, leaf: g.astype(leaf.dtype), grad, tree.conformed(endpoints, grad))

        (loss, aux), grad = gradient(point)
        if objective.goes_uphill():
            _, grad = gradient(point_gradients.uphill(point, grad, objective.sam_rho, shares))
        if objective.at_point is not None:
            return loss, aux, point_gradients.transformed(objective.at_point, shares.mean(grad)), weights
        return loss, aux, grad, jax.tree.map(lambda c: c / shares.count(), weights)

    def added_up(grads: Params, leading: int = 0) -> Params:
        """This device's share of the sum over devices, or of a mean that is complete."""
        if objective.at_point is not None:
            return shares.own_part(grads, leading)
        return shares.scatter(grads, leading)

    def one_position(endpoints: Endpoints, alpha: Alpha, inputs: samples.Inputs) -> tuple[jax.Array, Any, Endpoints]:
        loss, aux, grad, weights = of_point(endpoints, alpha, inputs)
        return shares.mean(loss), aux, arithmetic.pull_back(added_up(grad), weights)

    def several_positions(
        endpoints: Endpoints, alphas: Alpha, inputs: samples.Inputs
    ) -> tuple[jax.Array, Any, Endpoints]:
        """The mean over S positions, each with its part of the batch. Memory holds one position's network at a time."""
        gathered = endpoints if by_points else shares.gather(endpoints, leading=1)
        _check_count(alphas, num_samples)
        parts, inputs_of = samples.dealt(inputs, num_samples, objective.batch)
        losses, aux, grads, weights = loops.over(
            lambda each: of_point(gathered, each[0], inputs_of(each[1]), divided=by_points), (alphas, parts)
        )

        def pull_back(grads: Params) -> Endpoints:
            return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(arithmetic.pull_back)(grads, weights))

        if by_points:
            grads = pull_back(added_up(grads, leading=1))
        else:
            of_endpoints = jax.tree.map(lambda g, leaf: g.astype(leaf.dtype), pull_back(grads), endpoints)
            grads = shares.scatter(of_endpoints, leading=1)
        return shares.mean(jnp.mean(losses)), aux, grads

    def counted(endpoints: Endpoints) -> LeafMask:
        """The leaves that the penalty sees."""
        if pairs is None:
            return leaf_kinds.resolve_mask(objective.mask, endpoints)
        return product_cosines.counted(objective.mask, endpoints, pairs)

    def penalty(
        endpoints: Endpoints, chosen: tuple[int | jax.Array, ...], counts: LeafMask, origin: Params | None
    ) -> tuple[jax.Array, Callable[[Endpoints, float | jax.Array], Endpoints]]:
        """The value, and ``(grads, beta) -> grads + beta * gradient``."""
        if pairs is not None:
            of_products = product_penalties.penalty(endpoints, chosen, counts, pairs, origin)
            return of_products.value, of_products.add_gradient
        compared = task_vectors(endpoints, origin, counts)  # The gradient of a task vector is the endpoint's gradient.
        found = penalties.penalty(compared, chosen, counts, shares.gram)
        return found.value, lambda grads, beta: found.add_gradient(grads, compared, beta)

    def grad_fn(
        _alpha: Alpha, _chosen: tuple[int | jax.Array, ...], _endpoints: Endpoints, /, *args: Any, **kwargs: Any
    ) -> tuple[tuple[jax.Array, Info], Endpoints]:
        alpha, chosen, endpoints = _alpha, _chosen, _endpoints
        shares.check_axis()
        objective.batch.check((args, kwargs))
        penalises = objective.penalises(subspace)
        # Trees that do not fit are found here, before the loss fails on them.
        counts = counted(endpoints) if penalises else None
        origin = shares.own_part(objective.origin) if penalises and objective.origin is not None else None
        if origin is not None:
            check_origin(endpoints, origin)
        gradient = one_position if num_samples == 1 else several_positions
        loss, aux, grads = gradient(endpoints, alpha, (args, kwargs))
        if not penalises:
            return (loss, Info(loss, jnp.zeros_like(loss), alpha, aux)), grads
        value, add_gradient = penalty(endpoints, chosen, counts, origin)
        beta = objective.beta
        if isinstance(beta, jax.Array):
            beta = jax.lax.convert_element_type(beta, value.dtype)
        return (loss + beta * value, Info(loss, value, alpha, aux)), add_gradient(grads, beta)

    return grad_fn


def _check_count(alphas: Alpha, num_samples: int) -> None:
    for leaf in jax.tree.leaves(alphas):
        if jnp.shape(leaf)[:1] != (num_samples,):
            raise ValueError(
                f"alpha has shape {list(jnp.shape(leaf))}, but with num_samples={num_samples} its leading axis has this "
                "length (see jsubspace.sample_alpha)."
            )
