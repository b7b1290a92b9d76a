"""Which runs may be compared: runs of one task that were tested on the same examples, and no run twice."""

from typing import Any

from jsubspace import shown
from jsubspace.errors import UsageError
from jsubspace.runs import methods
from jsubspace.runs import results as results_of


def check(found: dict[str, dict[str, Any]]) -> None:
    """Checks that the scores of runs are about the same examples and the same task.

    Args:
      found: the results of each run, by the run's folder.

    Raises:
      UsageError: if runs were tested on different data sets, on different examples of a data set, or for different tasks.
    """
    sets = {methods.data_of(results_of.settings_of(results)) for results in found.values()}
    if len(sets) > 1:
        raise UsageError(
            f"the runs were tested on different data sets, {', '.join(sorted(sets))}. Compare runs on one data set."
        )
    tasks = {str(results.get("task")): results.get("task") for results in found.values()}
    if len(tasks) > 1:
        names_of_tasks = sorted(task["name"] if task else "Classification" for task in tasks.values())
        raise UsageError(
            f"the runs were tested for different tasks, {', '.join(map(shown.cell, names_of_tasks))}, or by different scores. "
            "Compare runs of one task."
        )
    examples: dict[str, str] = {}
    for run, results in found.items():
        digest = results.get("test_digest")
        if digest is not None:  # Results of older versions do not have it.
            examples.setdefault(digest, run)
    if len(examples) > 1:
        (digest, run), (another, other) = list(examples.items())[:2]
        raise UsageError(
            f"{run} and {other} were tested on different examples: the test_digest of their targets in results.json is "
            f"{digest[:8]}... and {another[:8]}.... Compare runs that have the same test examples in the same order."
        )


def check_seeds(names: dict[str, str], found: dict[str, dict[str, Any]]) -> None:
    """Checks that the runs of one method differ in their seed or in the runs that they start from.

    Args:
      names: the method of each run (`methods.names_of`), by the run's folder.
      found: the results of each run.

    Raises:
      UsageError: if two runs of one method have the same seed and the same start.
    """
    first: dict[tuple[str, int, str], str] = {}
    for run, results in found.items():
        settings = results_of.settings_of(results)
        other = first.setdefault((names[run], settings["seed"], settings["start"]["runs"]), run)
        if other != run:
            raise UsageError(
                f"{other} and {run} are two runs of the method {shown.cell(names[run])!r} with the same seed, {settings['seed']}. "
                "They differ in nothing that changes the results, so a mean over seeds would count one run twice. Leave out one "
                "of them, or train it with another seed."
            )
