"""What a network is for: how its outputs are scored, and how the outputs of an ensemble's members are combined.

A task has two halves. On the devices it turns outputs into a few numbers per example (`Outcomes`). On the host it turns
these numbers into means and intervals, the rows of a report.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.evaluation import summaries
from jsubspace.evaluation.summaries import PerExample
from jsubspace.evaluation.tasks import checks
from jsubspace.evaluation.tasks.groups import over_groups, rows_of


class Outcomes(NamedTuple):
    """What every example of a data set says about points and ensembles.

    The last three are None if there are no ensembles. The last two are None for every task but classification.

    Attributes:
      points: numbers for the p points, leaves ``[p, n]``.
      by_probability: numbers for the e ensembles by mean probability, leaves ``[e, n]``.
      by_logit: numbers for the e ensembles by mean logit, leaves ``[e, n]``.
      differences: between the members of each ensemble, each leaf the mean over pairs of members, leaves ``[e, n]``.
    """

    points: Any
    by_probability: Any = None
    by_logit: Any = None
    differences: Any = None


class Task:
    """What networks are for. A task of your own is a subclass with `higher_is_better` and `per_example`.

    The other members have defaults. docs/tasks.md shows a task of 20 lines.

    Example:
      >>> class Distance(Task):
      ...     higher_is_better = {"distance": False}
      ...     def per_example(self, members, targets):
      ...         return {"distance": jnp.abs(members.mean(0) - targets)}
      >>> Distance().main
      'distance'
    """

    @property
    def higher_is_better(self) -> Mapping[str, bool | None]:
        """The names of the scores, and whether a higher score is the better one. None means that it is neither."""
        raise ValueError(f"{type(self).__name__} lacks higher_is_better, the names of its scores.")

    @property
    def main(self) -> str:
        """The score that is drawn, and by which a subspace connects its ends. The default is the first score."""
        return next(iter(self.higher_is_better))

    @property
    def tolerance(self) -> float:
        """How much worse the main score may be along a connector than at its ends."""
        return 0.01

    @property
    def fractions(self) -> tuple[str, ...]:
        """The scores that are means of numbers between 0 and 1. They have Wilson's interval."""
        return ()

    @property
    def target_names(self) -> tuple[str, ...]:
        """What the last arrays of a batch are. The network does not get them."""
        return ("targets",)

    def check_targets(self, number: int, *targets: Any) -> None:
        """Raises ValueError if the targets ``[n, ...]`` of batch ``number`` are no targets of this task. It runs on the host."""

    def check_range(self, number: int, outputs: Any, *targets: Any) -> None:
        """Raises ValueError if targets that passed `check_targets` do not fit outputs of these shapes, as a label that is no class.

        It runs on the host, before a run trains.

        Args:
          number: the number of the batch.
          outputs: what the network returns for a batch, perhaps of another size. Only shapes and dtypes are known.
          targets: the last arrays of the batch, ``[n, ...]``.
        """

    def reduce(self, outputs: Any, *targets: Any) -> Any:
        """What is kept of the outputs of one point, on the devices. The default is all of them.

        Only the result is held for all points of a batch. A task with large outputs reduces them here.

        Args:
          outputs: what the network returns for a batch.
          targets: the last arrays of the batch, ``[n, ...]``.

        Returns:
          A tree with leaves ``[n, ...]``.

        Raises:
          ValueError: if the outputs do not fit this task.
        """
        return outputs

    def per_example(self, members: Any, *targets: Any) -> Mapping[str, jax.Array]:
        """A few numbers per example for the ensemble of e members, on the devices. A single network is one member.

        Args:
          members: results of `reduce`, leaves ``[e, n, ...]``.
          targets: the last arrays of the batch, ``[n, ...]``.

        Returns:
          Numbers ``[n]`` by name.
        """
        raise ValueError(f"{type(self).__name__} lacks per_example(members, *targets), its numbers per example.")

    def losses(self, outputs: Any, *targets: Any) -> jax.Array:
        """The training loss of every example ``[n]``, on the devices. Training lowers its mean.

        The default is the ``nll`` that `per_example` returns for a single network.

        Args:
          outputs: what the network returns for a batch in train mode.
          targets: the last arrays of the batch, ``[n, ...]``.

        Raises:
          ValueError: if the outputs do not fit this task, or the task has neither losses nor an ``nll``.
        """
        found = self.per_example(jax.tree.map(lambda leaf: leaf[None], self.reduce(outputs, *targets)), *targets)
        if "nll" not in found:
            raise ValueError(
                f"{type(self).__name__} cannot train: it lacks losses(outputs, *targets), which returns the loss of every example, "
                "and per_example returns no nll."
            )
        return found["nll"]

    def training_scores(self, outputs: Any, *targets: Any) -> Mapping[str, jax.Array]:
        """Further numbers ``[n]`` by name that training reports, with the arguments of `losses`. By default there is nothing else."""
        del outputs, targets
        return {}

    @property
    def unregularized(self) -> "Task":
        """The same task without what only training adds to its losses, such as label smoothing."""
        return self

    def summary(self, means: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The scores from the means over examples of what `per_example` returned. The default is the means themselves.

        It is elementwise, on arrays of any shape. The bootstrap calls it with the means of resamples.
        """
        return {name: means[name] for name in self.higher_is_better}

    def check_outcomes(self, outcomes: Outcomes) -> None:
        """Raises ValueError if the numbers per example show a mistake in the targets."""

    def at_point(self, outputs: Any, targets: tuple[Any, ...], combined: bool) -> Any:
        """`reduce` for one point. ``combined`` is whether there are ensembles."""
        del combined
        return self.reduce(outputs, *targets)

    def outcomes(self, reduced: Any, targets: tuple[Any, ...], groups: tuple[tuple[int, ...], ...]) -> Outcomes:
        """What a batch says about points and ensembles, on the devices.

        Args:
          reduced: of `at_point`, for all points, leaves ``[p, n, ...]``.
          targets: the last arrays of the batch, ``[n, ...]``.
          groups: for each ensemble, the places of its members among the points.
        """
        reduced = jax.tree.map(jnp.asarray, reduced)  # The ensembles are indexed by traced numbers.
        n = jax.tree.leaves(reduced)[0].shape[1]

        def of(members: Any) -> dict[str, jax.Array]:
            return self._checked(self.per_example(members, *targets), n)

        points = jax.lax.map(lambda one: of(jax.tree.map(lambda leaf: leaf[None], one)), reduced)
        if not groups:
            return Outcomes(points)
        return Outcomes(points, over_groups(lambda i: of(jax.tree.map(lambda leaf: leaf[i], reduced)), groups))

    def scores(self, per_example: Any, num_resamples: int = 0) -> list[dict[str, Any]]:
        """The scores of every network, with intervals if there are resamples (`evaluation.summaries`).

        Args:
          per_example: leaves ``[p, n]``.
          num_resamples: the number of bootstrap resamples of the examples, or 0 for no intervals.

        Returns:
          p dictionaries: the scores by name, and under ``intervals`` a pair of bounds for each.
        """
        found = summaries.scores(per_example, self._summarized)
        bounds = {}
        if num_resamples:
            bounds = summaries.intervals(per_example, self._summarized, num_resamples, self.fractions)
        return rows_of(found, bounds)

    def differences(self, per_example: Any) -> list[dict[str, float | None]]:
        """How differently the members of each ensemble predict. Only classification knows."""
        raise ValueError(f"{type(self).__name__} has no differences between members.")

    def reliability(self, per_example: Any) -> dict[str, Any]:
        """The bins of a reliability diagram for one network, leaves ``[n]``. It is empty for a task without confidences."""
        del per_example
        return {}

    def connects_by(self, per_example: Any) -> np.ndarray:
        """What is compared along a subspace and at its ends, per example: ``[p, n]``. Its mean is the main score."""
        return self.kept(per_example)[self.main]

    def kept(self, per_example: Any) -> dict[str, np.ndarray]:
        """What a run keeps of every example for comparisons (`evaluation.summaries.values`): ``[..., n]`` by name."""
        return summaries.values(per_example, self._summarized)

    @property
    def described(self) -> dict[str, Any] | None:
        """The task as results.json holds it. None stands for a classification, as in files without this field."""
        return {
            "name": type(self).__name__,
            "main": self.main,
            "higher_is_better": dict(self.higher_is_better),
            "fractions": list(self.fractions),
        }

    def _summarized(self, means: PerExample) -> PerExample:
        missing = [name for name in self.higher_is_better if name not in means]
        if missing and type(self).summary is Task.summary:
            raise ValueError(
                f"{type(self).__name__}.per_example returned {', '.join(means) or 'nothing'}, and lacks the scores "
                f"{', '.join(missing)}. Return them, or make them from the means in summary(means)."
            )
        found = self.summary(means)
        if set(found) != set(self.higher_is_better):
            raise ValueError(
                f"{type(self).__name__}.summary returned {', '.join(found) or 'nothing'}, but higher_is_better names the scores "
                f"{', '.join(self.higher_is_better)}. The names must be the same."
            )
        return {name: np.asarray(found[name], np.float64) for name in self.higher_is_better}

    def _checked(self, found: Any, n: int) -> dict[str, jax.Array]:
        if not isinstance(found, Mapping):
            raise ValueError(
                f"{type(self).__name__}.per_example returned a {type(found).__name__}. It must return a dictionary of arrays "
                f"[{n}], one number per example."
            )
        arrays = {name: jnp.asarray(value) for name, value in found.items()}
        for name, value in arrays.items():
            if value.shape != (n,):
                raise ValueError(
                    f"{type(self).__name__}.per_example returned {name!r} with the shape {list(value.shape)}. It must be [{n}], one "
                    "number per example. Average over other axes."
                )
            if jnp.issubdtype(value.dtype, jnp.complexfloating):
                raise ValueError(
                    f"{type(self).__name__}.per_example returned {name!r} as {value.dtype}, but scores are real numbers. Return "
                    "jnp.real(...) or jnp.abs(...), whichever the task means."
                )
        return {name: checks.wide(value) for name, value in arrays.items()}


def checked(task: Any) -> Task:
    """The task.

    Raises:
      ValueError: if it is no task, or its scores cannot be fields of a row.
    """
    if isinstance(task, type):
        raise ValueError(f"measure: task is the class {task.__name__}. Pass an instance: {task.__name__}().")
    if not isinstance(task, Task):
        raise ValueError(
            f"measure: task is a {type(task).__name__}. Pass Classification(), Tokens(), Regression(), Likelihood(), or an "
            "instance of a subclass of jsubspace.Task."
        )
    name = type(task).__name__
    if not task.higher_is_better:
        raise ValueError(f"measure: higher_is_better of {name} is empty. It must name at least one score.")
    for score in task.higher_is_better:
        if not checks.is_name(score):
            raise ValueError(
                f"measure: {name} has a score {score!r}. A score is a Python name in ASCII of at most {checks.LONGEST_NAME} characters, and "
                f"not one of {', '.join(sorted(checks.TAKEN_NAMES))}."
            )
    if task.higher_is_better.get(task.main) is None:
        raise ValueError(
            f"measure: the main score of {name} is {task.main!r}. It must be one of higher_is_better with True or False."
        )
    if not set(task.fractions) <= set(task.higher_is_better):
        raise ValueError(f"measure: the fractions of {name} are {task.fractions}, and must be among its scores.")
    checks.tolerance(task.tolerance)
    return task
