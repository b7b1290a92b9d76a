"""What a network is for: how its outputs are scored, and how the outputs of an ensemble's members are combined.

A task has two halves. On the devices it turns outputs into a few numbers per example (`Outcomes`). On the host it turns
these numbers into means, calibration errors and intervals, the rows of a report.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.evaluation import ensembles, estimates, metrics
from jsubspace.evaluation.metrics import Difference, Scores


class Outcomes(NamedTuple):
    """What every example of a data set says about points and ensembles.

    The last three are None if there are no ensembles.

    Attributes:
      points: scores of the p points, leaves ``[p, n]``.
      by_probability: scores of the e ensembles by mean probability, leaves ``[e, n]``.
      by_logit: scores of the e ensembles by mean logit, leaves ``[e, n]``.
      differences: between the members of each ensemble, each leaf the mean over pairs of members, leaves ``[e, n]``.
    """

    points: Scores
    by_probability: Scores | None = None
    by_logit: Scores | None = None
    differences: Difference | None = None


@dataclasses.dataclass(frozen=True)
class Classification:
    """Integer labels, and networks with logits as outputs.

    Args:
      num_bins: the number of bins of the calibration errors.
    """

    num_bins: int = 20

    higher_is_better: ClassVar[Mapping[str, bool]] = {
        "accuracy": True, "nll": False, "brier": False, "ece": False, "ece_debiased": False, "adaptive_ece": False
    }  # fmt: skip
    """The names of the scores."""

    def outcomes(
        self, logits: jax.Array, features: jax.Array | None, labels: jax.Array, groups: tuple[tuple[int, ...], ...]
    ) -> Outcomes:
        """What a batch says about points and ensembles, on the devices.

        Args:
          logits: ``[p, n, k]`` of the points.
          features: ``[p, n, f]`` of the points, or None.
          labels: ``[n]``, integers.
          groups: for each ensemble, the places of its members among the points.
        """
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

        return Outcomes(metrics.score(log_probs, labels), *_over_groups(of_group, groups))

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
        rows = []
        for i in range(len(means["accuracy"])):
            row: dict[str, Any] = {name: float(values[i]) for name, values in means.items()}
            if bounds:
                row["intervals"] = {name: values[i].tolist() for name, values in bounds.items()}
            rows.append(row)
        return rows

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


def _over_groups(function: Callable[[jax.Array], Any], groups: tuple[tuple[int, ...], ...]) -> Any:
    """``function`` of the members of every group, stacked in the order of the groups, or three times None.

    Groups of one size share one program: the pairs of a fine grid would take minutes to compile one by one.
    """
    if not groups:
        return None, None, None
    order = sorted(range(len(groups)), key=lambda i: len(groups[i]))
    sizes = [list(same) for _, same in itertools.groupby(order, key=lambda i: len(groups[i]))]
    found = [jax.lax.map(function, jnp.array([groups[i] for i in same])) for same in sizes]
    back = np.argsort(order)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[back], *found)
