"""Labels of axes: which units an axis of an array enumerates, found by unification.

A label is a tuple of factors, from the slowest to the fastest, with product the length of the axis. An axis of length 1 has
the empty label. Two axes that must be permuted together are unified, as types are in the inference of Hindley and Milner: a
factor becomes another factor, or a product of smaller ones. A fixed factor is not permuted at all.
"""

from collections.abc import Iterable, Sequence


class Factor:
    """Units of one kind.

    Attributes:
      length: the number of units, at least 2.
      fixed: whether the order of the units is given.
      parts: the label that stands in the place of this factor, or None.
    """

    __slots__ = ("fixed", "length", "parts")

    def __init__(self, length: int, fixed: bool = False) -> None:
        self.length, self.fixed = length, fixed
        self.parts: Label | None = None


Label = tuple[Factor, ...]


def fresh(length: int, fixed: bool = False) -> Label:
    """The label of an axis about which nothing else is known."""
    return (Factor(length, fixed),) if length > 1 else ()


def of_shape(shape: Sequence[int], fixed: bool = False) -> list[Label]:
    """`fresh` labels of all axes of an array."""
    return [fresh(length, fixed) for length in shape]


def resolved(label: Iterable[Factor]) -> Label:
    """The label with every factor replaced by what stands in its place."""
    return tuple(one for factor in label for one in ((factor,) if factor.parts is None else resolved(factor.parts)))


def fix(*labels: Iterable[Factor]) -> None:
    """From now on the units of these axes are not permuted."""
    for label in labels:
        for factor in resolved(label):
            factor.fixed = True


def unify(a: Iterable[Factor], b: Iterable[Factor]) -> None:
    """From now on the two axes, of one length, are permuted together.

    If their factors do not fit each other, both axes are fixed. This loses permutations, and allows no wrong one.
    """
    left, right = list(resolved(a)), list(resolved(b))
    while left and right:
        x, y = left.pop(0), right.pop(0)
        if x.parts is not None or y.parts is not None:  # An earlier step of this loop has replaced it.
            left, right = [*resolved([x]), *left], [*resolved([y]), *right]
        elif x is y:
            continue
        elif x.length == y.length:
            x.fixed |= y.fixed
            y.parts = (x,)
        elif max(x.length, y.length) % min(x.length, y.length) == 0:
            small, large = (x, y) if x.length < y.length else (y, x)
            _, rest = _cut(large, small.length, small)
            (right if large is y else left).insert(0, rest)
        else:
            fix([x], [y], left, right)
            return


def cut(labels: Sequence[Label], lengths: Sequence[int]) -> list[Label] | None:
    """Labels of axes ``lengths`` into which the axes with ``labels`` are reshaped, or None if factors do not fit."""
    left = [factor for label in labels for factor in resolved(label)]
    made: list[Label] = []
    for length in lengths:
        label: list[Factor] = []
        while length > 1:
            factor, *left = [*resolved(left[:1]), *left[1:]]  # An earlier cut may have replaced it.
            if factor.length > length and factor.length % length == 0:
                factor, rest = _cut(factor, length)
                left.insert(0, rest)
            if length % factor.length:
                return None
            label.append(factor)
            length //= factor.length
        made.append(tuple(label))
    return made


def _cut(factor: Factor, length: int, outer: Factor | None = None) -> tuple[Factor, Factor]:
    """The factor as a product of two. The slower one is ``outer``, or a new one of this length."""
    slow = Factor(length) if outer is None else outer
    slow.fixed |= factor.fixed
    rest = Factor(factor.length // length, factor.fixed)
    factor.parts = (slow, rest)
    return slow, rest
