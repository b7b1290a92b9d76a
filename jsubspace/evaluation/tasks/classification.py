"""Integer labels, and networks with logits as outputs."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments
from jsubspace.evaluation import ensembles, estimates, metrics
from jsubspace.evaluation.metrics import Difference, Scores
from jsubspace.evaluation.tasks import checks
from jsubspace.evaluation.tasks.groups import over_groups, rows_of
from jsubspace.evaluation.tasks.task import Outcomes, Task

NO_CLASS = "a label is no class. The labels are integers below the number of logits."


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """Integer labels ``[n]``, and networks that return logits ``[n, k]``, or ``(logits, features [n, f])``.

    An ensemble predicts with the mean of its members' probabilities, and beside it with the mean of their logits.

    Args:
      num_bins: the number of bins of the calibration errors.
      label_smoothing: s, the part of a label's probability that training spreads over all classes, less than 1.

    Raises:
      ValueError: if num_bins is no integer of at least 1, or label_smoothing is not from 0 to less than 1.
    """

    num_bins: int = 20
    label_smoothing: float = 0.0

    higher_is_better: ClassVar[Mapping[str, bool]] = {
        "accuracy": True, "nll": False, "brier": False, "ece": False, "ece_debiased": False, "adaptive_ece": False
    }  # fmt: skip
    """The names of the scores."""
    fractions: ClassVar[tuple[str, ...]] = ("accuracy",)
    target_names: ClassVar[tuple[str, ...]] = ("labels",)
    described: ClassVar[None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_bins", arguments.count("num_bins", self.num_bins, 1))
        smoothing = checks.number(
            "label_smoothing", self.label_smoothing, lambda given: 0 <= given < 1, "a number from 0 to less than 1"
        )
        object.__setattr__(self, "label_smoothing", smoothing)

    def check_targets(self, number: int, *targets: Any) -> None:
        """Raises ValueError if the labels are not one class per example."""
        checks.check_integers(number, targets[0], 1, "It must hold the labels, one integer per example.")
        if int(np.min(targets[0])) < 0:
            raise ValueError(
                f"a label of batch {number} is {int(np.min(targets[0]))}. Labels are classes, and the first class is 0."
            )

    def check_range(self, number: int, outputs: Any, *targets: Any) -> None:
        """Raises ValueError if a label is larger than every class. A subclass may take other outputs, which are not checked."""
        if type(self).at_point is Classification.at_point:
            checks.check_below(number, np.asarray(targets[0]), _logits_and_features(outputs)[0].shape[-1], "classes")

    def at_point(self, outputs: Any, targets: tuple[Any, ...], combined: bool) -> tuple[jax.Array, jax.Array | None]:
        """Logits ``[n, k]`` and features ``[n, f]`` or None. Features are large, and only ensembles compare them.

        Raises:
          ValueError: if the outputs are something else.
        """
        del targets
        logits, features = _logits_and_features(outputs)
        return _floating(logits), None if features is None or not combined else _floating(features)

    def losses(self, outputs: Any, *targets: Any) -> jax.Array:
        """(1 - s) NLL + s times the mean over classes of -log p, for every example ``[n]``."""
        return metrics.cross_entropies(_logits_and_features(outputs)[0], targets[0], self.label_smoothing)

    def training_scores(self, outputs: Any, *targets: Any) -> Mapping[str, jax.Array]:
        """Whether the most probable class is the label. Logits that are NaN or +inf are wrong."""
        return {"accuracy": metrics.is_right(_logits_and_features(outputs)[0], targets[0])}

    @property
    def unregularized(self) -> "Classification":
        """The same task without label smoothing."""
        return dataclasses.replace(self, label_smoothing=0.0)

    def outcomes(
        self, reduced: tuple[Any, Any], targets: tuple[Any, ...], groups: tuple[tuple[int, ...], ...]
    ) -> Outcomes:
        """What a batch says about points and ensembles, on the devices.

        Args:
          reduced: logits ``[p, n, k]`` and features ``[p, n, f]`` of the points. The features may be None.
          targets: the labels ``[n]``, integers.
          groups: for each ensemble, the places of its members among the points.
        """
        (logits, features), (labels,) = reduced, targets
        logits = jnp.asarray(logits)  # The ensembles are indexed by traced numbers.
        log_probs = ensembles.log_probabilities(logits)

        def mean_difference(members: jax.Array) -> Difference:
            pairs = np.array(list(itertools.combinations(range(len(members)), 2)))

            def of_pair(pair: Any) -> Difference:
                i, j = members[pair[0]], members[pair[1]]
                return metrics.difference(
                    (log_probs[i], log_probs[j]), None if features is None else (features[i], features[j]), labels
                )

            def added(total: Difference, pair: jax.Array) -> tuple[Difference, None]:
                return jax.tree.map(jnp.add, total, of_pair(pair)), None

            # One loop over the pairs: thirty members have 435 pairs, which would take a minute to compile one by one.
            total, _ = jax.lax.scan(added, of_pair(pairs[0]), jnp.asarray(pairs[1:]))
            return jax.tree.map(lambda leaf: leaf / len(pairs), total)

        def of_group(members: jax.Array) -> tuple[Scores, Scores, Difference]:
            by_probability, by_logit = (
                ensembles.mean_probability(logits[members]),
                ensembles.mean_logit(logits[members]),
            )
            return metrics.score(by_probability, labels), metrics.score(by_logit, labels), mean_difference(members)

        combined = over_groups(of_group, groups) if groups else ()
        return Outcomes(metrics.score(log_probs, labels), *combined)

    def check_outcomes(self, outcomes: Outcomes) -> None:
        """Raises ValueError if a label is larger than every class."""
        if np.any(np.isnan(outcomes.points.nll) & ~np.isnan(outcomes.points.confidence)):
            raise ValueError(f"measure: {NO_CLASS}")

    def scores(self, per_example: Scores, num_resamples: int = 0) -> list[dict[str, Any]]:
        """Means over examples of every network, with intervals if there are resamples (`estimates`).

        Args:
          per_example: leaves ``[p, n]``.
          num_resamples: the number of bootstrap resamples, or 0 for no intervals.

        Returns:
          p dictionaries: the scores by name, and under ``intervals`` a pair of bounds for each.
        """
        means = estimates.summarize(per_example, self.num_bins)
        bounds = estimates.intervals(per_example, self.num_bins, num_resamples) if num_resamples else {}
        return rows_of(means, bounds)

    def differences(self, per_example: Difference) -> list[dict[str, float | None]]:
        """How differently the members of each ensemble predict: e dictionaries from leaves ``[e, n]``."""
        means = estimates.summarize_difference(per_example)
        return [
            {name: None if values is None else float(values[i]) for name, values in means.items()}
            for i in range(len(means["disagreement"]))
        ]

    def reliability(self, per_example: Scores) -> dict[str, Any]:
        """For every bin of one network's confidences: count, mean confidence and accuracy. Leaves ``[n]``."""
        return estimates.reliability(per_example, self.num_bins)

    def connects_by(self, per_example: Scores) -> np.ndarray:
        """What is compared along a subspace and at its ends, per example: ``[p, n]``, 1 for a right answer, else 0."""
        return np.asarray(per_example.correct)

    def kept(self, per_example: Scores) -> dict[str, np.ndarray]:
        """What a run keeps of every example for comparisons (`runs.per_example`)."""
        return per_example._asdict()


def _logits_and_features(outputs: Any) -> tuple[jax.Array, jax.Array | None]:
    """Logits ``[n, k]`` and features ``[n, f]`` or None."""
    logits, features = outputs if type(outputs) is tuple and len(outputs) == 2 else (outputs, None)
    is_right = getattr(logits, "ndim", 0) == 2 and logits.shape[1] >= 2
    if not is_right or (features is not None and getattr(features, "ndim", 0) != 2):
        shapes = jax.tree.map(jnp.shape, outputs)
        raise ValueError(
            f"predict_fn returned arrays of the shapes {shapes}. For a classification it must return logits [n, k] of at least "
            "two classes, or a tuple (logits, features [n, f]). For other outputs pass another task (Tokens, Regression, "
            "Likelihood)."
        )
    checks.check_real(outputs, "predict_fn", "logits and features")
    return logits, features


def _floating(array: jax.Array) -> jax.Array:
    """The array, with integers as float32."""
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)
