"""The paper's claims at tuned rates: each method has the rate and decay that validation images chose for its budget.

Every number is positive if the claim is true, as in `experiments.claims`. Scores of a method are those of its center, and the
differences are paired by seed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.lib import budgets
from experiments.lib.study import Budget, Method
from experiments.lib.study_record import Record
from experiments.lib.study_tables import State, paired, state
from experiments.lib.verdicts import Measured, holm, together

LINES = (budgets.LINE, budgets.LINE_CENTER)
SIXES = (budgets.SIX, budgets.SIX_CENTER)
States = dict[str, State]


class Claim(NamedTuple):
    """A sentence, and how it is measured in one budget.

    Attributes:
      text: the sentence.
      measure: yields the numbers that are positive if it is true, from the states of the methods of a budget.
      noisy: whether it is about budgets with random labels. None is for both kinds.
    """

    text: str
    measure: Callable[[States], Iterator[Measured]]
    noisy: bool | None


def _minus(a: State, b: State, score: str = "accuracy", of: str = "test", sign: float = 1.0) -> np.ndarray:
    return sign * np.array(list(paired(a, b, score, of).values()))


def _more_accurate(methods: Sequence[Method], other: Method) -> Callable[[States], Iterator[Measured]]:
    def measure(states: States) -> Iterator[Measured]:
        for method in methods if other.name in states else ():
            values = _minus(states[method.name], states[other.name])
            yield Measured(f"{method.title} − {other.title}", values)

    return measure


def _better(score: str, name: str, methods: Sequence[Method], other: Method) -> Callable[[States], Iterator[Measured]]:
    def measure(states: States) -> Iterator[Measured]:
        for method in methods:
            values = _minus(states[method.name], states[other.name], score, sign=-1.0)
            yield Measured(f"{name}, ({other.title}) − ({method.title})", values)

    return measure


def _ensembles(states: States) -> Iterator[Measured]:
    for method in (*LINES, *SIXES):
        one = states[method.name]
        yield Measured(f"{method.title}: ensemble of the ends − center", _minus(one, one, of="ensemble"))


def _apart(states: States) -> Iterator[Measured]:
    for method in (*LINES, *SIXES):
        rows = states[method.name].rows.values()
        values = [0.01 - row["cosine_squared"] for row in rows if row.get("cosine_squared") is not None]
        yield Measured(f"{method.title}: 0.01 − cos² at the end", np.array(values))


CLAIMS = (
    Claim(
        "The midpoint of a line is more accurate than standard training", _more_accurate(LINES, budgets.STANDARD), False
    ),
    Claim(
        "The midpoint is more accurate than standard training with lr/2 and decay·2, tuned too",
        _more_accurate(LINES, budgets.CONTROL),
        None,
    ),
    Claim("The midpoint has a lower NLL than standard training", _better("nll", "NLL", LINES, budgets.STANDARD), None),
    Claim(
        "The midpoint is better calibrated than standard training",
        _better("ece_debiased", "debiased ECE", LINES, budgets.STANDARD),
        None,
    ),
    Claim(
        "The midpoint is better calibrated than standard training with lr/2 and decay·2, tuned too",
        _better("ece_debiased", "debiased ECE", LINES, budgets.CONTROL),
        None,
    ),
    Claim(
        "The gain of the center grows with more endpoints than two",
        _more_accurate(SIXES, budgets.STANDARD),
        False,
    ),
    Claim(
        "The center is more robust to label noise than standard training",
        _more_accurate((*LINES, *SIXES), budgets.STANDARD),
        True,
    ),
    Claim(
        "The center of six endpoints is more robust to label noise than standard training with lr/6 and decay·6, tuned too",
        _more_accurate(SIXES, budgets.CONTROL_SIX),
        True,
    ),
    Claim(
        f"The center is more robust to label noise than label smoothing of strength {budgets.SMOOTHING}",
        _more_accurate((*LINES, *SIXES), budgets.SMOOTHED),
        True,
    ),
    Claim("Networks from the ends predict better together than the center alone", _ensembles, None),
    Claim("The endpoints become nearly orthogonal (cos² below 0.01)", _apart, None),
)


def table(studied: Sequence[Budget], record: Record) -> str:
    """The claims in Markdown, one row per claim and budget. Methods that are not finished are left out."""
    rows = []
    for claim in CLAIMS:
        for budget in studied:
            noisy = "data.label_noise" in dict(budget.scenario.settings)
            if claim.noisy not in (None, noisy):
                continue
            states = {method.name: state(budget, method, record) for method in budget.methods}
            measured = [one for one in claim.measure(states) if len(one.values) == len(budget.seeds)]
            rows.append((claim, budget, measured))
    threshold = holm([one.p_value for *_, measured in rows for one in measured])
    lines = []
    for claim, budget, measured in rows:
        if measured:
            words = "<br>".join(one.words(threshold) for one in measured)
            lines.append(f"| {claim.text} | {budget.title} | {words} | {together(measured)} |")
    if lines:
        lines[:0] = [
            "| claim | budget | measured, mean ± standard deviation over seeds | at tuned rates |",
            "| --- | --- | --- | --- |",
        ]
    missing = [budget.title for budget in studied if not any(of is budget and measured for _, of, measured in rows)]
    if missing:
        lines += [
            *([""] if lines else []),
            "These budgets are not complete yet:",
            "",
            *(f"- {title}" for title in missing),
        ]
    return "\n".join(lines) + "\n"
