"""A loop inside of a program over networks or positions, with convolutions that are fast on the CPU.

On the CPU, XLA has a fast convolution for inputs and results ``[n, *space, c]`` and kernels ``[*space, c, c']``. It brings
other convolutions into this layout, but not inside of loops (its pass ConvCanonicalization, as of jax 0.10). There they take
10 to 40 times as long. This concerns the gradients of every convolution, and networks with inputs ``[n, c, *space]``. So
this module brings convolutions into the layout before XLA sees the loop.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.extend.core.primitives import conv_general_dilated_p


def over(function: Callable[[Any], Any], xs: Any) -> Any:
    """``jax.lax.map(function, xs)``: the results of a function for every row, one row after the other.

    Args:
      function: takes one row of every leaf.
      xs: leaves ``[p, *s]``.

    Returns:
      Leaves ``[p, *r]``.

    Example:
      >>> over(lambda x: x**2, jnp.arange(3)).tolist()
      [0, 1, 4]
    """
    return jax.lax.map(function if jax.default_backend() != "cpu" else _arranged(function, xs), xs)


def _arranged(function: Callable[[Any], Any], xs: Any) -> Callable[[Any], Any]:
    """The function with all its convolutions in the fast layout. It is traced here, for rows of ``xs``."""
    row = jax.tree.map(lambda leaf: leaf[0], xs)  # A row, since a shape does not say over which devices it varies.
    traced, results = jax.make_jaxpr(function, return_shape=True)(row)
    arranged = core.jaxpr_as_fun(_replaced(traced))
    return lambda x: jax.tree.unflatten(jax.tree.structure(results), arranged(*jax.tree.leaves(x)))


def _replaced(traced: Any) -> Any:
    """A traced function, or another parameter of an operation, with replaced convolutions."""
    if not _has_slow(traced):
        return traced
    if type(traced) is tuple:
        return tuple(map(_replaced, traced))
    if isinstance(traced, core.ClosedJaxpr) and traced.jaxpr is not traced:  # The two are one class since jax 0.12.
        return traced.replace(jaxpr=_replaced(traced.jaxpr))
    return traced.replace(eqns=list(map(_equation, traced.eqns)))


def _equation(equation: core.JaxprEqn) -> core.JaxprEqn:
    if not _is_slow(equation):
        return equation.replace(params={name: _replaced(param) for name, param in equation.params.items()})
    convolved = jax.jit(functools.partial(_convolved, **equation.params))
    (call,) = jax.make_jaxpr(convolved)(*(atom.aval for atom in equation.invars)).eqns
    return call.replace(invars=equation.invars, outvars=equation.outvars)


def _has_slow(param: Any) -> bool:
    """Whether a slow convolution is in a parameter of an operation."""
    if type(param) is tuple:
        return any(map(_has_slow, param))
    jaxpr = param.jaxpr if isinstance(param, core.ClosedJaxpr) else param
    return isinstance(jaxpr, core.Jaxpr) and any(
        _is_slow(equation) or any(map(_has_slow, equation.params.values())) for equation in jaxpr.eqns
    )


def _is_slow(equation: Any) -> bool:
    if equation.primitive is not conv_general_dilated_p:
        return False
    return tuple(map(tuple, equation.params["dimension_numbers"])) != _fast(equation.invars[0].aval.ndim)


def _fast(ndim: int) -> tuple[tuple[int, ...], ...]:
    """The fast layout: the axes of examples and channels, or of a kernel's two channels, and then the axes of space."""
    of_arrays, of_kernels = (0, ndim - 1, *range(1, ndim - 1)), (ndim - 1, ndim - 2, *range(ndim - 2))
    return of_arrays, of_kernels, of_arrays


def _convolved(x: jax.Array, kernel: jax.Array, *, dimension_numbers: Any, **params: Any) -> jax.Array:
    """A convolution, computed in the fast layout."""
    fast = _fast(x.ndim)
    x, kernel = (
        jnp.moveaxis(array, here, there)
        for array, here, there in zip((x, kernel), dimension_numbers, fast, strict=False)
    )
    numbers = type(dimension_numbers)(*fast)
    return jnp.moveaxis(
        conv_general_dilated_p.bind(x, kernel, dimension_numbers=numbers, **params), fast[2], dimension_numbers[2]
    )
