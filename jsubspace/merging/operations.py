"""What each of jax's primitive operations does to the units along the axes of its operands (`labels`).

A rule gets the equation of a jaxpr and the labels of its operands. It returns the labels of the results.
"""

from collections.abc import Callable, Iterable
from typing import Any

from jsubspace.merging.labels import Label, cut, fix, fresh, of_shape, unify

Labels = list[Label]
Rule = Callable[[Any, list[Labels]], list[Labels]]

_ELEMENTWISE = frozenset(
    [
        "abs",
        "acos",
        "acosh",
        "add",
        "add_any",
        "and",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "cbrt",
        "ceil",
        "clamp",
        "conj",
        "convert_element_type",
        "copy",
        "copy_p",
        "cos",
        "cosh",
        "digamma",
        "div",
        "eq",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "ge",
        "gt",
        "integer_pow",
        "is_finite",
        "le",
        "lgamma",
        "log",
        "log1p",
        "logistic",
        "lt",
        "max",
        "min",
        "mul",
        "ne",
        "neg",
        "nextafter",
        "not",
        "or",
        "pow",
        "pvary",
        "reduce_precision",
        "rem",
        "round",
        "rsqrt",
        "select_n",
        "sharding_constraint",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "stop_gradient",
        "sub",
        "tan",
        "tanh",
        "xor",
    ]
)
_OVER_UNITS = frozenset({"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"})
"""Operations over axes that do not depend on the order of the units."""

_IN_ORDER = frozenset({"argmax", "argmin"})
"""Operations over axes that depend on the order."""

_CUMULATIVE = frozenset({"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})
_WINDOWS = frozenset({"reduce_window_max", "reduce_window_min", "reduce_window_sum"})


def rule_of(name: str) -> Rule | None:
    """The rule of an operation, or None for an operation without a rule."""
    for names, rule in (
        (_ELEMENTWISE, _elementwise), (_OVER_UNITS, _over_units), (_IN_ORDER, _over_order), (_CUMULATIVE, _cumulative),
        (_WINDOWS, _windows),
    ):  # fmt: skip
        if name in names:
            return rule
    return _RULES.get(name)


def _elementwise(equation: Any, operands: list[Labels]) -> list[Labels]:
    """The axes of the result. An operand may be a number or have length 1 along an axis, and then says nothing about its units."""
    shape = equation.outvars[0].aval.shape
    shapes = [operand.aval.shape for operand in equation.invars]
    made = []
    for axis, length in enumerate(shape):
        own = zip(operands, shapes, strict=True)
        along = [labels[axis] for labels, lengths in own if len(lengths) == len(shape) and lengths[axis] == length]
        for other in along[1:]:
            unify(along[0], other)
        made.append(along[0] if along else fresh(length, fixed=True))
    return [made]


def _together(some: Iterable[Label], others: Iterable[Label]) -> None:
    for a, b in zip(some, others, strict=True):
        unify(a, b)


def _over_units(equation: Any, operands: list[Labels]) -> list[Labels]:
    return [[label for axis, label in enumerate(operands[0]) if axis not in equation.params["axes"]]]


def _over_order(equation: Any, operands: list[Labels]) -> list[Labels]:
    fix(*(operands[0][axis] for axis in equation.params["axes"]))
    return _over_units(equation, operands)


def _cumulative(equation: Any, operands: list[Labels]) -> list[Labels]:
    fix(operands[0][equation.params["axis"]])
    return operands


def _reverse(equation: Any, operands: list[Labels]) -> list[Labels]:
    fix(*(operands[0][axis] for axis in equation.params["dimensions"]))
    return operands


def _whole_or_fixed(equation: Any, labels: Labels, whole: Iterable[bool]) -> list[Labels]:
    """Axes that are kept whole keep their labels. The order of the other axes matters."""
    made = []
    for label, length, is_whole in zip(labels, equation.outvars[0].aval.shape, whole, strict=True):
        if not is_whole:
            fix(label)
        made.append(label if is_whole else fresh(length, fixed=True))
    return [made]


def _windows(equation: Any, operands: list[Labels]) -> list[Labels]:
    p = equation.params
    whole = [
        (window, stride, *padding, base, dilation) == (1, 1, 0, 0, 1, 1)
        for window, stride, padding, base, dilation in zip(
            p["window_dimensions"], p["window_strides"], p["padding"], p["base_dilation"], p["window_dilation"], strict=True
        )
    ]  # fmt: skip
    return _whole_or_fixed(equation, operands[0], whole)


def _slice(equation: Any, operands: list[Labels]) -> list[Labels]:
    """A slice, at a place that may be computed. An axis that keeps its length is whole."""
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return _whole_or_fixed(equation, operands[0], [a == b for a, b in zip(before, after, strict=True)])


def _pad(equation: Any, operands: list[Labels]) -> list[Labels]:
    whole = [tuple(padding) == (0, 0, 0) for padding in equation.params["padding_config"]]
    return _whole_or_fixed(equation, operands[0], whole)


def _split(equation: Any, operands: list[Labels]) -> list[Labels]:
    axis = equation.params["axis"]
    fix(operands[0][axis])
    return [
        [
            fresh(variable.aval.shape[axis], fixed=True) if i == axis else label
            for i, label in enumerate(operands[0])
        ]
        for variable in equation.outvars
    ]  # fmt: skip


def _concatenate(equation: Any, operands: list[Labels]) -> list[Labels]:
    axis = equation.params["dimension"]
    fix(*(labels[axis] for labels in operands))
    without = [labels[:axis] + labels[axis + 1 :] for labels in operands]
    for labels in without[1:]:
        _together(without[0], labels)
    length = equation.outvars[0].aval.shape[axis]
    return [[*without[0][:axis], fresh(length, fixed=True), *without[0][axis:]]]


def _transpose(equation: Any, operands: list[Labels]) -> list[Labels]:
    return [[operands[0][axis] for axis in equation.params["permutation"]]]


def _squeeze(equation: Any, operands: list[Labels]) -> list[Labels]:
    return [[label for axis, label in enumerate(operands[0]) if axis not in equation.params["dimensions"]]]


def _broadcast(equation: Any, operands: list[Labels]) -> list[Labels]:
    """Along a new axis all numbers are the same, so that any permutation of it is right."""
    shape = equation.outvars[0].aval.shape
    made = of_shape(shape)
    for label, length, axis in zip(
        operands[0], equation.invars[0].aval.shape, equation.params["broadcast_dimensions"], strict=True
    ):
        made[axis] = label if length == shape[axis] else made[axis]
    return [made]


def _reshape(equation: Any, operands: list[Labels]) -> list[Labels]:
    shape = equation.outvars[0].aval.shape
    found = cut(operands[0], shape) if 0 not in shape else None
    if found is None:
        fix(*operands[0])
        return [of_shape(shape, fixed=True)]
    return [found]


def _iota(equation: Any, operands: list[Labels]) -> list[Labels]:
    return [of_shape(equation.outvars[0].aval.shape, fixed=True)]


def _product(equation: Any, operands: list[Labels]) -> list[Labels]:
    """Axes that are summed over belong together. A sum does not depend on the order of the units."""
    first, second = operands[:2]
    summed, of_batch = equation.params["dimension_numbers"]
    for left, right in (summed, of_batch):
        _together([first[axis] for axis in left], [second[axis] for axis in right])
    rest = [
        label
        for labels, side in ((first, 0), (second, 1))
        for axis, label in enumerate(labels)
        if axis not in summed[side] and axis not in of_batch[side]
    ]
    return [[first[axis] for axis in of_batch[0]] + rest]


def _convolution(equation: Any, operands: list[Labels]) -> list[Labels]:
    """Channels of the images and of the kernel belong together. Rows and columns keep their order.

    With g groups, the channels are g times the channels of a group, on both sides.
    """
    numbers, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    images, kernel = operands
    shape, out = equation.outvars[0].aval.shape, numbers.out_spec
    if equation.params["batch_group_count"] != 1:
        fix(*images, *kernel)
        return [of_shape(shape, fixed=True)]
    fix(*(images[axis] for axis in numbers.lhs_spec[2:]), *(kernel[axis] for axis in numbers.rhs_spec[2:]))
    (of_batch, channels), (outputs, inputs) = numbers.lhs_spec[:2], numbers.rhs_spec[:2]
    group = fresh(groups)
    unify(images[channels], (*group, *kernel[inputs]))
    if groups > 1:
        unify(kernel[outputs], (*group, *fresh(shape[out[1]] // groups)))
    made = of_shape(shape, fixed=True)
    made[out[0]], made[out[1]] = images[of_batch], kernel[outputs]
    return [made]


def _gather(equation: Any, operands: list[Labels]) -> list[Labels]:
    """Rows at places that are computed, as in an embedding: axes that are taken whole keep their labels."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    array, places = operands
    shape = equation.outvars[0].aval.shape
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    fix(*(array[axis] for axis in dropped), places[-1], *(places[axis] for axis in numbers.start_indices_batching_dims))
    kept = [axis for axis in range(len(array)) if axis not in dropped]
    made: dict[int, Label] = {}
    for axis, at in zip(kept, numbers.offset_dims, strict=True):
        whole = sizes[axis] == equation.invars[0].aval.shape[axis]
        if not whole:
            fix(array[axis])
        made[at] = array[axis] if whole else fresh(shape[at], fixed=True)
    others = iter(places[:-1])
    return [[made[at] if at in made else next(others) for at in range(len(shape))]]


_RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "dynamic_slice": _slice,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
