"""The trainings that figures are made of: their names, their settings and their results.

A job is ``python -m jsubspace.main`` in a folder of its own. Figures share jobs: a job that one figure has trained is not
trained again for the next one.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.lib.scenarios import Scenario
from jsubspace.errors import UsageError
from jsubspace.runs import results as run_results

METHODS: dict[str, dict[str, Any]] = {
    "standard": {"subspace.name": "point"},
    "line": {"subspace.name": "line"},
    "layerwise line": {"subspace.name": "line", "subspace.layerwise": True},
    "curve": {"subspace.name": "curve"},
    "simplex": {"subspace.name": "simplex"},
    "layerwise simplex": {"subspace.name": "simplex", "subspace.layerwise": True},
    "SWA": {"subspace.name": "point", "optimizer.schedule": "swa_cyclic"},
    "snapshots": {"subspace.name": "point", "optimizer.schedule": "snapshot"},
}
"""The fields by which methods differ from the config file of a scenario."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
      scenario: data, network and budget.
      method: its name.
      seed: the seed of the initialisation, the alphas and the order of the data.
      settings: fields that make the method.
      details: further fields, which are a part of the job's name.
      starts: jobs that trained the networks from which it starts.
    """

    scenario: Scenario
    method: str
    seed: int
    settings: tuple[tuple[str, Any], ...]
    details: tuple[tuple[str, Any], ...] = ()
    starts: tuple["Job", ...] = ()

    @property
    def name(self) -> str:
        """The name of its folder: ``cifar10/simplex_num_endpoints=3/seed0``."""
        words = [self.method.replace(" ", "_")]
        words += [f"{field.rpartition('.')[2]}={str(given).replace(' ', '')}" for field, given in self.details]
        return f"{self.scenario.name}/{'_'.join(words)}/seed{self.seed}"

    def fields(self, root: pathlib.Path) -> dict[str, Any]:
        """Every field that differs from the config file."""
        starts = {"start.runs": ",".join(str(root / job.name) for job in self.starts)} if self.starts else {}
        budget = {"seed": self.seed, "optimizer.num_epochs": self.scenario.num_epochs}
        return budget | dict(self.scenario.settings) | dict(self.settings) | dict(self.details) | starts

    def command(self, root: pathlib.Path) -> list[str]:
        """The command that trains it, after ``python``."""
        fields = [f"--config.{field}={given}" for field, given in self.fields(root).items()]
        return ["-m", "jsubspace.main", f"--config={self.scenario.config}", f"--workdir={root / self.name}", *fields]


def declare(scenario: Scenario, method: str, seeds: Sequence[int], **details: Any) -> list[Job]:
    """One `Job` per seed.

    Args:
      scenario: data, network and budget.
      method: one of `METHODS`.
      seeds: one job is declared for each.
      details: other fields, with two underscores for the dot: ``subspace__num_endpoints=3``. Fields of the evaluation are
        not a part of the job's name.
    """
    settings = dict(METHODS[method])
    fields = {name.replace("__", "."): given for name, given in details.items()}
    settings |= {field: fields.pop(field) for field in list(fields) if field.startswith("evaluation.")}
    plain = not fields
    if method == "standard" and plain:
        settings |= {"evaluation.every_epochs": max(1, scenario.num_epochs // scenario.tests)}
        settings |= {"keep_epochs": scenario.shared_epochs} if scenario.shared_epochs else {}
    if plain and scenario.corruptions and method in ("standard", "line"):
        settings |= {"evaluation.corruptions": scenario.corruptions}
    return [Job(scenario, method, seed, tuple(settings.items()), tuple(fields.items())) for seed in seeds]


def stacked(name: str, pairs: Sequence[tuple[Job, Job]]) -> list[Job]:
    """The lines through pairs of networks that were trained apart: nothing is trained on these lines."""
    settings = {"subspace.name": "line", "optimizer.num_epochs": 0}
    return [Job(pair[0].scenario, name, pair[0].seed, tuple(settings.items()), (), pair) for pair in pairs]


def independent_pairs(scenario: Scenario, seeds: Sequence[int]) -> list[Job]:
    """Each seed's standard training with the next seed's. A single seed is paired with the number that follows it."""
    partners = [*seeds[1:], seeds[0]] if len(seeds) > 1 else [seeds[0] + 1]
    first, second = declare(scenario, "standard", seeds), declare(scenario, "standard", partners)
    return stacked("two independent", list(zip(first, second, strict=True)))


def branches(scenario: Scenario, seeds: Sequence[int], epoch: int) -> list[Job]:
    """The lines between standard training and a job that continues its first ``epoch`` epochs with another seed."""
    pairs = []
    for job in declare(scenario, "standard", seeds):
        details = (("start.epoch", epoch),)
        branch = Job(scenario, "branch", job.seed + 1000, (("subspace.name", "point"),), details, (job,))
        pairs.append((job, branch))
    return stacked(f"shared until {epoch}", pairs)


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """Every job once, after the jobs that it starts from."""
    ordered: dict[Job, None] = {}

    def add(job: Job) -> None:
        for start in job.starts:
            add(start)
        ordered.setdefault(job)

    for job in jobs:
        add(job)
    return list(ordered)


def results(job: Job, root: pathlib.Path) -> dict[str, Any] | None:
    """The content of a finished job's results.json, or None if the job is not finished.

    Raises:
      UsageError: if the folder holds a run with other settings.
    """
    found = run_results.read(root / job.name)
    if found is None or not run_results.is_finished(found):
        return None
    for field, given in job.fields(root).items():
        trained: Any = found["config"]
        for word in field.split("."):
            trained = trained[word]
        trained = tuple(trained) if isinstance(trained, list) else trained
        if trained != given and field != "start.runs":
            raise UsageError(
                f"{root / job.name} was trained with config.{field} = {trained!r}, but {given!r} is declared; delete that "
                "folder, or choose another --runs."
            )
    return found
