"""The penalty on products of low-rank factors (`jsubspace.as_products`), with its gradient for both factors."""

from typing import Any, NamedTuple

import jax

from jsubspace import arguments, cosines, product_cosines, tree
from jsubspace.factors import Pairs
from jsubspace.types import Endpoints, LeafMask, Params


class ProductPenalty(NamedTuple):
    """A penalty's value and its gradient.

    Attributes:
      value: the mean of cos² over the chosen pairs of endpoints, a scalar.
      gradient: of the value, leaves ``[m, *s]`` in float32 or wider.
      mask: the leaves that take part, a tree of bools.
    """

    value: jax.Array
    gradient: Endpoints
    mask: LeafMask

    def add_gradient(self, grads: Endpoints, beta: float | jax.Array) -> Endpoints:
        """``grads + beta * d value / d endpoints``, leaves ``[m, *s]``."""

        def add_leaf(grad: jax.Array, change: jax.Array, counts: bool) -> jax.Array:
            if not counts:
                return grad
            return (grad.astype(change.dtype) + jax.lax.convert_element_type(beta, change.dtype) * change).astype(
                grad.dtype
            )

        return jax.tree.map(add_leaf, grads, self.gradient, self.mask)


def penalty(
    endpoints: Endpoints, chosen: tuple[Any, ...], mask: LeafMask, pairs: Pairs, origin: Params | None = None
) -> ProductPenalty:
    """The mean of cos² over the pairs among ``chosen``, as `penalties.penalty` takes it, with products for their factors.

    Autodiff passes through matrices of the rank's size. The derivative is a pass over the factors, as the value is.
    """
    rows = arguments.rows_of_pairs("chosen", chosen, tree.num_endpoints(endpoints))
    wide = jax.tree.map(lambda leaf: leaf.astype(tree.accumulator(leaf.dtype)), endpoints)

    def mean(endpoints: Endpoints) -> jax.Array:
        some = tree.chosen_rows(endpoints, rows)
        return cosines.mean_over_pairs(product_cosines.product_cosines(some, mask, pairs, origin)[0])

    value, gradient = jax.value_and_grad(mean)(wide)
    return ProductPenalty(value, gradient, mask)
