"""A study: validation images choose the rate and the decay of each method, and other seeds are reported.

A `Budget` is data, a network and a number of epochs, with its methods. Each method is trained with every `Cell` of the grid and
one seed, and keeps validation images. The cell with the lowest NLL of the midpoint on these images is chosen. The chosen cell is
trained with other seeds on all training images of the scenario, and the test set scores these runs alone.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.lib.jobs import METHODS, Job, stacked
from experiments.lib.scenarios import Scenario

INDEPENDENT = "two independent"
"""The networks of two runs of standard training, which are only evaluated together."""
RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"


class Cell(NamedTuple):
    """A place of the grid.

    Attributes:
      rate: the learning rate of the grid. A method may be trained with a multiple of it.
      decay: the weight decay of the grid, in the same way.
    """

    rate: float
    decay: float


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
      name: its name in folders and records.
      title: its name in tables.
      kind: one of `jobs.METHODS`, or `INDEPENDENT`.
      settings: the fields that it adds.
      rate_times, decay_times: the cell's rate and decay are multiplied by these factors.
      plain: the name of the method that it extends, with which it is compared too.
    """

    name: str
    title: str
    kind: str
    settings: tuple[tuple[str, Any], ...] = ()
    rate_times: float = 1.0
    decay_times: float = 1.0
    plain: str = ""


STANDARD = Method("standard", "standard", "standard")


@dataclasses.dataclass(frozen=True)
class Budget:
    """Data, a network and a number of epochs, and how they are studied.

    Attributes:
      scenario: data, network and epochs.
      title: its name in tables.
      methods: what is compared. The first method is the reference of all differences.
      num_train: the number of training images.
      num_validation: how many validation images the runs keep that choose.
      rates, decays: the grid. With one rate and one decay nothing is chosen.
      seeds: the seeds that are reported.
      choosing_seed: the seed of the runs that choose.
      seconds: what a run takes besides its steps, on one core.
      seconds_per_step: what a step takes on one core.
    """

    scenario: Scenario
    title: str
    methods: tuple[Method, ...]
    num_train: int
    num_validation: int
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    seeds: tuple[int, ...]
    choosing_seed: int = 100
    seconds: float = 20.0
    seconds_per_step: float = 0.01

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.scenario.name

    @property
    def cells(self) -> list[Cell]:
        """The grid, decay by decay."""
        return [Cell(rate, decay) for decay, rate in itertools.product(self.decays, self.rates)]

    @property
    def num_steps(self) -> int:
        """The number of steps of a run that is reported."""
        batch_size = dict(self.scenario.settings).get("data.batch_size", 128)
        return self.scenario.num_epochs * -(-self.num_train // batch_size)

    def choosing(self, method: Method) -> dict[Cell, Job]:
        """The runs that choose a cell for a method. They keep validation images."""
        if len(self.cells) == 1 or method.kind == INDEPENDENT:
            return {}
        kept = (("data.num_validation", self.num_validation),)
        return {cell: self._job(method, cell, self.choosing_seed, kept) for cell in self.cells}

    def reported(self, method: Method, cell: Cell) -> list[Job]:
        """The runs of a chosen cell that the test set scores, seed by seed."""
        if method.kind == INDEPENDENT:
            first = self.reported(STANDARD, cell)
            return stacked(method.name, list(zip(first, [*first[1:], first[0]], strict=True)))
        return [self._job(method, cell, seed, ()) for seed in self.seeds]

    def _job(self, method: Method, cell: Cell, seed: int, further: tuple[tuple[str, Any], ...]) -> Job:
        rates = ((RATE, _times(cell.rate, method.rate_times)), (DECAY, _times(cell.decay, method.decay_times)))
        settings = METHODS[method.kind] | dict(method.settings)
        return Job(self.scenario, method.name, seed, tuple(settings.items()), (*rates, *further))

    def short(self, steps: int) -> "Budget":
        """The same budget with two epochs of this number of steps, for a test. SWA then averages two networks."""
        num_train = steps * dict(self.scenario.settings).get("data.batch_size", 128)
        few = {"data.num_train": num_train, "optimizer.warmup_epochs": 0}
        settings = tuple((dict(self.scenario.settings) | few).items())
        scenario = dataclasses.replace(self.scenario, name=f"{self.name}_{steps}steps", num_epochs=2, settings=settings)
        methods = tuple(
            dataclasses.replace(method, settings=(*method.settings, ("optimizer.num_collected", 2)))
            if method.kind == "SWA"
            else method
            for method in self.methods
        )
        return dataclasses.replace(self, scenario=scenario, num_train=num_train, methods=methods)


def _times(value: float, factor: float) -> float:
    """A product that is written in few digits: 0.05 / 6 is 0.008333."""
    return float(f"{value * factor:.4g}")


def chosen(validation_nll: dict[Cell, float | None]) -> Cell | None:
    """The cell with the lowest NLL on validation images. A run that diverged (None) is never chosen.

    Example:
      >>> chosen({Cell(0.1, 1e-4): 0.5, Cell(0.2, 1e-4): 0.4, Cell(0.4, 1e-4): None})
      Cell(rate=0.2, decay=0.0001)
    """
    finite = {cell: nll for cell, nll in validation_nll.items() if nll is not None}
    return min(finite, key=lambda cell: finite[cell]) if finite else None


def edge(cell: Cell, rates: Sequence[float]) -> str:
    """Whether a chosen rate is at the edge of the grid, in words. A better rate may then lie outside.

    Example:
      >>> edge(Cell(0.4, 1e-4), (0.1, 0.2, 0.4)), edge(Cell(0.2, 1e-4), (0.1, 0.2, 0.4))
      ('largest', '')
    """
    if len(rates) == 1:
        return ""
    return {max(rates): "largest", min(rates): "smallest"}.get(cell.rate, "")
