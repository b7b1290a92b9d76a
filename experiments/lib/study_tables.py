"""The tables of a study, from its recorded rows. A table of a study that is not finished says what is missing.

Intervals are 95 % t intervals of the mean over seeds, and differences are paired by seed. Pairs of networks that share networks
have the wider intervals of `over_seeds`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.lib import over_seeds
from experiments.lib.study import INDEPENDENT, Budget, Cell, Method, chosen, edge
from experiments.lib.study_record import SCORES, Record

TITLES = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE", "ece_debiased": "debiased ECE"}


class State(NamedTuple):
    """What is recorded of a method.

    Attributes:
      method: the method.
      validation: for every cell of a finished run, the NLL on validation images, or None if the run diverged.
      cell: the chosen cell, or None if a run that chooses is missing or all have diverged.
      rows: the rows of the reported runs that are finished, by seed.
    """

    method: Method
    validation: dict[Cell, float | None]
    cell: Cell | None
    rows: dict[int, dict[str, Any]]

    @property
    def ring(self) -> bool:
        """Whether the reported runs are pairs that share networks."""
        return self.method.kind == INDEPENDENT

    def values(self, score: str, of: str = "test") -> dict[int, float]:
        """A score of the reported runs by seed, without runs that diverged."""
        found = {seed: row[of][score] for seed, row in self.rows.items() if row.get(of) is not None}
        return {seed: value for seed, value in found.items() if value is not None}


def state(budget: Budget, method: Method, record: Record) -> State:
    """What is recorded of a method of a budget."""
    jobs = budget.choosing(method)
    rows = {cell: row for cell, job in jobs.items() if (row := record.row(job)) is not None}
    validation = {cell: (row.get("validation") or {}).get("nll") for cell, row in rows.items()}
    cell = budget.cells[0] if not jobs else chosen(validation) if len(rows) == len(jobs) else None
    reported = budget.reported(method, cell) if cell else []
    return State(method, validation, cell, {job.seed: row for job in reported if (row := record.row(job)) is not None})


def report(budgets: Sequence[Budget], record: Record, title: str, command: str) -> str:
    """All tables in Markdown."""
    parts = [f"# {title}", f"`{command}`", _missing(budgets, record)]
    for budget in budgets:
        states = [state(budget, method, record) for method in budget.methods]
        if not any(one.validation or one.rows for one in states):
            continue
        parts.append(f"## {budget.title}")
        if any(one.rows for one in states):
            parts += [scores(budget, states), differences(states), extensions(states)]
        if any(one.validation for one in states):
            parts.append(choices(budget, states))
    return "\n\n".join(part for part in parts if part) + "\n"


def _missing(budgets: Sequence[Budget], record: Record) -> str:
    lines = ["| budget | runs that choose | runs that are reported | missing |", "| --- | --- | --- | --- |"]
    for budget in budgets:
        states = [state(budget, method, record) for method in budget.methods]
        choosing = sum(len(budget.choosing(method)) for method in budget.methods)
        found = sum(len(one.validation) for one in states)
        reported, seeds = sum(len(one.rows) for one in states), len(budget.seeds) * len(states)
        missing = [one.method.title for one in states if len(one.rows) < len(budget.seeds)]
        what = "all methods" if len(missing) == len(states) else "; ".join(missing) or "complete"
        lines.append(f"| {budget.title} | {found} of {choosing} | {reported} of {seeds} | {what} |")
    return "\n".join(lines)


def scores(budget: Budget, states: Sequence[State]) -> str:
    """Scores of the midpoint on the test set, the ensemble of the ends, and how far the ends are apart."""
    head = ["", "rate, decay", "seeds", *TITLES.values(), "ensemble of the ends", "one end", "cos²", "distance"]
    lines: list[list[str]] = []
    notes = set()
    for one in states:
        if one.cell is None or not one.rows:
            continue
        where = edge(one.cell, budget.rates)
        notes |= {where} - {""}
        rate, decay = one.cell.rate * one.method.rate_times, one.cell.decay * one.method.decay_times
        line = [one.method.title, f"{rate:.4g}{'*' if where else ''}, {decay:.4g}", _seeds(one)]
        line += [_cell(one.values(score), ring=one.ring) for score in TITLES]
        line.append(_cell(one.values("accuracy", "ensemble"), ring=one.ring))
        line += [_mean(one, name) for name in ("ends", "cosine_squared", "distance")]
        lines.append(line)
    text = _lines(head, lines)
    if notes:
        text += f"\n\n\\* The chosen rate is the {' or the '.join(sorted(notes))} of the grid. A better one may lie outside."
    return text


def _seeds(one: State) -> str:
    diverged = sum("diverged" in row for row in one.rows.values())
    return f"{len(one.rows)}" + (f" ({diverged} diverged)" if diverged else "")


def differences(states: Sequence[State]) -> str:
    """Every method minus the first one, paired by seed. The ensemble of the ends is compared with one network of the first."""
    reference = states[0]
    head = [f"minus {reference.method.title}", "pairs", *TITLES.values(), "ensemble of the ends"]
    rows = (_difference(one.method.title, one, reference, "test") for one in states[1:])
    return _lines(head, [row for row in rows if row])


def extensions(states: Sequence[State]) -> str:
    """Every method that extends another one minus this one, paired by seed, and their ensembles of the ends."""
    by_name = {one.method.name: one for one in states}
    pairs = [(one, by_name[one.method.plain]) for one in states if one.method.plain in by_name]
    rows = [_difference(f"{one.method.title} − {plain.method.title}", one, plain, "ensemble") for one, plain in pairs]
    return _lines(["difference", "pairs", *TITLES.values(), "ensemble of the ends"], [row for row in rows if row])


def _difference(title: str, one: State, other: State, ensemble_against: str) -> list[str]:
    of = {score: paired(one, other, score) for score in SCORES}
    if not of["accuracy"]:
        return []
    both, ring = paired(one, other, "accuracy", "ensemble", ensemble_against), one.ring
    cells = [_cell(of[score], "+", ring=ring) for score in TITLES] + [_cell(both, "+", ring=ring)]
    return [title, str(len(of["accuracy"])), *cells]


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, or "" without a row."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def summary(budgets: Sequence[Budget], methods: Sequence[Method], record: Record, score: str = "accuracy") -> str:
    """A score of some methods minus standard training's, one line per complete budget."""
    rows = [
        [budget.title, *(_cell(paired(states[method.name], reference, score), "+", 3) for method in methods)]
        for budget, states, reference in _complete(budgets, record)
    ]
    return _lines([f"{TITLES[score]} minus standard's", *(method.title for method in methods)], rows)


def extended(budgets: Sequence[Budget], methods: Sequence[Method], record: Record) -> str:
    """Accuracy and NLL of methods minus those of the methods that they extend, one line per complete budget."""
    extending = [method for method in methods if method.plain]
    rows = [
        [
            budget.title,
            *(
                _cell(paired(states[method.name], states[method.plain], score), "+", 3)
                for method in extending
                for score in ("accuracy", "nll")
            ),
        ]
        for budget, states, _ in _complete(budgets, record)
    ]
    titles = [f"{method.plain}: {TITLES[score]}" for method in extending for score in ("accuracy", "nll")]
    return _lines(["with both options minus without", *titles], rows)


def apart(budgets: Sequence[Budget], methods: Sequence[Method], record: Record) -> str:
    """How far the ends of some methods are apart, and how accurate one end is, one line per complete budget."""
    names = ("cosine_squared", "distance", "ends")
    rows = [
        [budget.title, *(", ".join(_mean(states[method.name], name) for name in names) for method in methods)]
        for budget, states, _ in _complete(budgets, record)
    ]
    return _lines(["cos², distance, accuracy of one end", *(method.title for method in methods)], rows)


def _complete(budgets: Sequence[Budget], record: Record) -> Iterator[tuple[Budget, dict[str, State], State]]:
    """The budgets with all their reported runs, the states of their methods by name, and the state of the first method."""
    for budget in budgets:
        states = {method.name: state(budget, method, record) for method in budget.methods}
        if all(len(one.rows) == len(budget.seeds) for one in states.values()):
            yield budget, states, states[budget.methods[0].name]


def paired(one: State, other: State, score: str, of: str = "test", against: str = "test") -> dict[int, float]:
    """A score of one method minus the same score of another, for every seed of both. "test" is the midpoint, and "ensemble" is the ensemble of the ends."""
    a, b = one.values(score, of), other.values(score, against)
    return {seed: a[seed] - b[seed] for seed in a if seed in b}


def choices(budget: Budget, states: Sequence[State]) -> str:
    """The NLL on validation images of every cell. The chosen cell of a finished choice is bold."""
    head = ["validation NLL", *(f"{cell.rate:g}, {cell.decay:g}" for cell in budget.cells)]
    rows = [[one.method.title, *(_nll(one, cell) for cell in budget.cells)] for one in states if one.validation]
    return _lines(head, rows)


def _nll(one: State, cell: Cell) -> str:
    if cell not in one.validation:
        return ""
    value = one.validation[cell]
    text = "diverged" if value is None else f"{value:.3f}"
    return f"**{text}**" if cell == one.cell else text


def _mean(one: State, name: str) -> str:
    values = [row[name] for row in one.rows.values() if row.get(name) is not None]
    return f"{np.mean(values):.3g}" if values else ""


def _cell(values: dict[int, float], sign: str = "", digits: int = 4, ring: bool = False) -> str:
    if not values:
        return ""
    listed = list(values.values())
    interval, form = over_seeds.interval(listed, ring), f"{sign}.{digits}f"
    mean = f"{np.mean(listed):{form}}"
    return mean if interval is None else f"{mean} ({interval[0]:{form}} to {interval[1]:{form}})"
