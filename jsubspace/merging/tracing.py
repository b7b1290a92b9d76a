"""Follows the units of a network through its program: the axes of arrays that are permuted together.

The program is a jaxpr, the list of jax's primitive operations. Each operation has a rule (`operations`), which gives the
labels of its results and unifies the labels of its operands. An operation without a rule fixes all axes that it touches, so
that every permutation that is left is right, and some right ones may be missing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal

from jsubspace.merging import operations
from jsubspace.merging.labels import Label, fix, fresh, of_shape, unify

Labels = list[Label]

_CALLS = frozenset({
    "jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "checkpoint", "remat2",
})  # fmt: skip
"""Operations that run another program with the same operands."""


def follow(
    program: Any, labels: Sequence[Labels], unknown: set[str], wanted: Sequence[bool] | None = None
) -> list[Labels]:
    """The labels of a program's results. Labels of its operands are unified on the way.

    Args:
      program: a jaxpr, closed or without constants.
      labels: of its operands, a list with one label per axis for each operand.
      unknown: collects the names of the operations that have no rule.
      wanted: which results are used. All are, by default. What only an unused result needs is not followed: in train mode,
        BatchNorm also computes running statistics.
    """
    jaxpr, constants = (program.jaxpr, program.consts) if hasattr(program, "consts") else (program, ())
    known = dict(zip(jaxpr.invars, labels, strict=True))
    known |= {
        name: of_shape(np.shape(value), fixed=True) for name, value in zip(jaxpr.constvars, constants, strict=True)
    }

    def of(variable: Any) -> Labels:
        if isinstance(variable, Literal):
            aval: Any = variable.aval
            return of_shape(aval.shape, fixed=True)
        return known[variable]

    needed = {
        id(result) for i, result in enumerate(jaxpr.outvars) if wanted is None or wanted[i]
    }  # A literal has no hash.
    followed = []
    for equation in reversed(jaxpr.eqns):
        if any(id(variable) in needed for variable in equation.outvars):
            followed.append((equation, [id(variable) in needed for variable in equation.outvars]))
            needed |= set(map(id, equation.invars))
    for equation, is_needed in reversed(followed):
        found = _results(equation, list(map(of, equation.invars)), unknown, is_needed)
        known |= zip(equation.outvars, found, strict=True)
    return [of(result) if id(result) in needed else of_shape(result.aval.shape) for result in jaxpr.outvars]


def _results(equation: Any, operands: list[Labels], unknown: set[str], wanted: Sequence[bool]) -> list[Labels]:
    """The labels of one operation's results."""
    name, shapes = equation.primitive.name, [variable.aval.shape for variable in equation.outvars]
    if name in _CALLS:
        inner = next(equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params)
        return follow(inner, operands, unknown, wanted)
    if name == "scan":
        return _scan(equation, operands, unknown)
    rule = operations.rule_of(name)
    if rule is not None:
        return rule(equation, operands)
    unknown.add(name)
    for labels in operands:
        fix(*labels)
    return [of_shape(shape, fixed=True) for shape in shapes]


def _scan(equation: Any, operands: list[Labels], unknown: set[str]) -> list[Labels]:
    """A loop over layers. Units are the same in every turn, so that all layers of a scan are permuted alike."""
    inner = equation.params["jaxpr"].jaxpr
    # How a scan counts its constants and carries changed in jax 0.12. Whatever it stacks has one axis less inside.
    num_stacked = sum(a.aval.ndim > b.aval.ndim for a, b in zip(equation.invars, inner.invars, strict=True))
    carried = sum(a.aval.ndim == b.aval.ndim for a, b in zip(equation.outvars, inner.outvars, strict=True))
    constants = len(operands) - num_stacked - carried
    before, stacked = operands[: constants + carried], operands[constants + carried :]
    fix(*(labels[0] for labels in stacked))
    found = follow(equation.params["jaxpr"], [*before, *(labels[1:] for labels in stacked)], unknown)
    for start, end in zip(before[constants:], found[:carried], strict=True):
        for a, b in zip(start, end, strict=True):
            unify(a, b)
    return [*found[:carried], *([fresh(equation.params["length"], fixed=True), *labels] for labels in found[carried:])]
