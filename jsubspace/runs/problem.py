"""What a run trains: a network, a task and data."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np

from jsubspace.data.protocol import Arrays, Data
from jsubspace.evaluation.tasks import Task
from jsubspace.network import Network

Batches = Iterable[tuple[Arrays, np.ndarray]]
"""Batches as `Data.test_batches` yields them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What a run trains: a network, a task and data. ``jsubspace.training.train`` trains it.

    A subclass may override `facts` and `shifted`.

    Attributes:
      network: the network (`models.adapters`).
      task: what its outputs are compared with and how: `jsubspace.Classification`, `jsubspace.Tokens`,
        `jsubspace.Regression`, `jsubspace.Likelihood`, or a task of your own.
      data: the examples: `data.arrays.ArrayData`, `data.from_grain.from_grain`, or a subclass of `data.protocol.Data`.
    """

    network: Network
    task: Task
    data: Data

    unit: ClassVar[str] = "examples"
    """What examples are called in the log."""

    def facts(self) -> dict[str, Any]:
        """What the user of an exported network needs to know, as JSON holds it. The default is nothing."""
        return {}

    def shifted(self) -> Iterator[tuple[str, Batches]]:
        """Further test sets that a run is evaluated on, each with its name. By default there is nothing else."""
        return iter(())

    def separated(self, batch: Arrays) -> tuple[Arrays, Arrays]:
        """The arrays of a batch that the network gets, and the task's targets, which it does not get."""
        place = len(batch) - len(self.task.target_names)
        return tuple(batch[:place]), tuple(batch[place:])
