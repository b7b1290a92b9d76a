"""How sharp the loss is at a network: the largest eigenvalue of its Hessian."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jsubspace import arguments, inner_products, leaf_kinds, tree
from jsubspace.types import Params


class Eigenvalue(NamedTuple):
    """The result of `largest_eigenvalue`.

    Attributes:
      value: the eigenvalue.
      residual: |H v - value v| for the unit vector v of the last iteration. Some eigenvalue of H is at most this far
        away from ``value``.
      iterations: the number of products with H.
    """

    value: float
    residual: float
    iterations: int


def hessian_vector_product(loss_fn: Callable[..., jax.Array], point: Params, vector: Params, *args: Any) -> Params:
    """H v for the Hessian H of ``loss_fn(point, *args)`` at ``point``, at the cost of two gradients.

    Example:
      >>> loss_fn = lambda w: 3 * w["a"] ** 2 + w["a"] * w["b"]
      >>> point, vector = {"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 0.0}
      >>> product = hessian_vector_product(loss_fn, point, vector)
      >>> float(product["a"]), float(product["b"])
      (6.0, 1.0)
    """
    return jax.jvp(jax.grad(lambda p: loss_fn(p, *args)), (point,), (vector,))[1]


def largest_eigenvalue(
    product: Callable[[Params], Params], like: Params, key: jax.Array, num_iterations: int = 50, tolerance: float = 1e-3
) -> Eigenvalue:
    """The largest eigenvalue of a symmetric operator on networks, by power iteration.

    Power iteration finds the eigenvalue of largest magnitude. If this eigenvalue is negative, -L, the iteration is
    repeated with H + L. The eigenvalue of largest magnitude of H + L is the largest eigenvalue of H, plus L.

    Args:
      product: ``v -> H v``, for example `hessian_vector_product` averaged over batches. It is called
        from the host, so that it may read a data set. Compile the work inside it.
      like: a network with the shapes and dtypes of the vectors.
      key: the key of the random start.
      num_iterations: the maximum number of iterations in each of the two searches.
      tolerance: the search stops when the residual is at most this fraction of the eigenvalue's magnitude.

    Returns:
      The eigenvalue, its residual and the number of iterations.

    Raises:
      ValueError: if ``num_iterations`` is less than one.

    Example:
      >>> stretch = lambda v: jax.tree.map(lambda x: x * jnp.array([3.0, -1.0]), v)
      >>> round(largest_eigenvalue(stretch, jnp.zeros(2), jax.random.key(0)).value, 3)
      3.0
    """
    num_iterations = arguments.integer("num_iterations", num_iterations)
    if num_iterations < 1:
        raise ValueError(f"num_iterations is {num_iterations}, but power iteration needs at least one.")
    found = _power_iteration(product, like, key, num_iterations, tolerance)
    if not found.value < 0:  # Also if the value is NaN, which no second search would repair.
        return found
    shift = -found.value
    shifted = _power_iteration(
        lambda v: jax.tree.map(lambda h, x: h + shift * x, product(v), v),
        like,
        jax.random.fold_in(key, 1),
        num_iterations,
        tolerance,
    )
    return Eigenvalue(shifted.value - shift, shifted.residual, found.iterations + shifted.iterations)


def _power_iteration(
    product: Callable[[Params], Params], like: Params, key: jax.Array, num_iterations: int, tolerance: float
) -> Eigenvalue:
    vector = _start(key, like)
    for i in range(1, num_iterations + 1):
        image = product(vector)
        vector, value, residual = _normalized(vector, image)
        found = Eigenvalue(float(value), float(residual), i)
        if not math.isfinite(found.residual) or found.residual <= tolerance * abs(found.value):
            break
    return found


@jax.jit
def _normalized(vector: Params, image: Params) -> tuple[Params, jax.Array, jax.Array]:
    """The next unit vector, the Rayleigh quotient <v, H v> of this vector v, and its residual."""
    value = inner_products.inner(vector, image, leaf_kinds.all_leaves(image))
    rest = jax.tree.map(lambda h, x: h - (value * x).astype(h.dtype), image, vector)
    return _unit(image)[0], value, _unit(rest)[1]


def _unit(vector: Params) -> tuple[Params, jax.Array]:
    """The vector divided by its norm, and the norm. A vector of zeros stays as it is, and does not become 0 / 0.

    The vector is divided by its largest entry first, because the squares of small and large entries leave float32.
    """
    every = leaf_kinds.all_leaves(vector)
    entries = [jnp.max(jnp.abs(x), initial=0).astype(tree.accumulator(x.dtype)) for x in jax.tree.leaves(vector)]
    largest = functools.reduce(jnp.maximum, entries)
    scaled = jax.tree.map(lambda x: x.astype(largest.dtype) / jnp.where(largest != 0, largest, 1), vector)
    norm = jnp.sqrt(inner_products.inner(scaled, scaled, every))
    unit = jax.tree.map(lambda part, x: (part / jnp.where(norm != 0, norm, 1)).astype(x.dtype), scaled, vector)
    return unit, largest * norm


def _start(key: jax.Array, like: Params) -> Params:
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, jnp.shape(leaf), leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    vector = jax.tree.unflatten(structure, drawn)
    return _unit(vector)[0]
