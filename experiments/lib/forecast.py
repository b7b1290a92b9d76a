"""How many core-hours the missing runs of a study will take."""

import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.lib.jobs import Job
from experiments.lib.study import Budget, Method
from experiments.lib.study_record import Record
from experiments.lib.study_tables import state
from jsubspace.storage.writer import read_rows

LIMIT = 15.0
"""The core-hours that the whole study may take."""


def seconds_of_run(budget: Budget, method: Method, record: Record) -> float:
    """Seconds of one run, which are CPU seconds if a run is one core's work: the mean of the method's recorded runs, or of the budget's, or an estimate from its steps."""
    recorded = {other: _recorded(budget, other, record) for other in budget.methods}
    every = [seconds for of_method in recorded.values() for seconds in of_method]
    known = recorded[method] or every
    return float(np.mean(known)) if known else budget.seconds + budget.num_steps * budget.seconds_per_step


def _recorded(budget: Budget, method: Method, record: Record) -> list[float]:
    one = state(budget, method, record)
    rows = [record.row(job) for job in budget.choosing(method).values()] + list(one.rows.values())
    kind = "cpu_seconds" if budget.scenario.one_core else "seconds"
    return [row[kind] for row in rows if row is not None and row[kind] > 0]


def of_run_under_way(job: Job, budget: Budget, root: pathlib.Path) -> str:
    """How long a run, and all runs of its budget, take at its present speed, in words. It is "" before a speed was logged."""
    speeds = [row["images_per_second"] for row in read_rows(root / job.name) if row.get("images_per_second")]
    if not speeds:
        return ""
    per_second = speeds[-1] / dict(budget.scenario.settings).get("data.batch_size", 128)
    runs = sum(len(budget.choosing(method)) + len(budget.seeds) for method in budget.methods)
    hours = budget.num_steps / per_second / 3600
    return (
        f"{job.name} makes {per_second:.1f} steps per second: {60 * hours:.1f} minutes for {budget.num_steps} steps, and "
        f"{runs * hours:.1f} hours for the {runs} runs of this budget, one at a time."
    )


def table(budgets: Sequence[Budget], record: Record) -> str:
    """For every budget the runs, the missing runs, and the hours of both, with a sentence about the limit.

    They are core-hours if a run is one core's work.
    """
    lines = [f"{'budget':<64}{'runs':>6}{'missing':>9}{'hours':>12}{'missing':>9}"]
    whole = left = 0.0
    for budget in budgets:
        hours = hours_left = 0.0
        runs = missing = 0
        for method in budget.methods:
            each = seconds_of_run(budget, method, record) / 3600
            one = state(budget, method, record)
            total = len(budget.choosing(method)) + len(budget.seeds)
            to_do = total - len(one.validation) - len(one.rows)
            runs, missing, hours, hours_left = (
                runs + total,
                missing + to_do,
                hours + total * each,
                hours_left + to_do * each,
            )
        lines.append(f"{budget.title:<64}{runs:>6}{missing:>9}{hours:>12.1f}{hours_left:>9.1f}")
        whole, left = whole + hours, left + hours_left
    lines.append(f"{'together':<64}{'':>6}{'':>9}{whole:>12.1f}{left:>9.1f}")
    if whole > LIMIT and all(budget.scenario.one_core for budget in budgets):
        lines.append(
            f"This is more than the {LIMIT:g} core-hours that the study was meant to take. --budgets trains a part of it, and the "
            "tables say what is missing."
        )
    return "\n".join(lines)
