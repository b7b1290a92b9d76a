"""What each example of a data set says about uncertainty: the three passes of `uncertainty`, as tasks of the evaluator.

Every pass reduces the probabilities of all points and ensembles to a few numbers per example, on the devices.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace.evaluation import ensembles, metrics
from jsubspace.evaluation.tasks.classification import NO_CLASS, Classification
from jsubspace.evaluation.tasks.task import Outcomes, over_groups
from jsubspace.evaluation.uncertainty import conformal, entropies, temperature


@dataclasses.dataclass(frozen=True, eq=False)
class _Pass(Classification):
    """Log-probabilities of points and ensembles, reduced by `numbers`."""

    def at_point(self, outputs: Any, targets: tuple[Any, ...], combined: bool) -> tuple[jax.Array, None]:
        """The log-probabilities of one point ``[n, k]``."""
        logits, _ = super().at_point(outputs, targets, combined=False)
        return ensembles.log_probabilities(logits), None

    def outcomes(self, reduced: Any, targets: tuple[Any, ...], groups: tuple[tuple[int, ...], ...]) -> Outcomes:
        """Numbers of the p points and the e ensembles, leaves ``[p, ..., n]`` and ``[e, ..., n]``."""
        log_probs = jnp.asarray(reduced[0])
        points = self.numbers(log_probs, jnp.arange(len(log_probs)), targets)
        if not groups:
            return Outcomes(points)
        pooled, information = over_groups(
            lambda i: (ensembles.log_mean(log_probs[i]), entropies.mutual_information(log_probs[i])), groups
        )
        found = self.numbers(pooled, len(log_probs) + jnp.arange(len(groups)), targets)
        return Outcomes(points, found | {"mutual_information": information})

    def numbers(self, log_probs: jax.Array, place: jax.Array, targets: tuple[Any, ...]) -> dict[str, Any]:
        """Numbers per example of networks.

        Args:
          log_probs: ``[q, n, k]``.
          place: ``[q]``, the places of the networks among points and ensembles.
          targets: of the batch.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks numbers.")


@dataclasses.dataclass(frozen=True, eq=False)
class Calibrating(_Pass):
    """The pass over validation data: the derivatives for a temperature, and the conformal scores of the labels."""

    target_names: ClassVar[tuple[str, ...]] = ("labels", "uniform")

    def numbers(self, log_probs: jax.Array, place: jax.Array, targets: tuple[Any, ...]) -> dict[str, Any]:
        """``derivatives`` ``[q, g, n]`` (`temperature`), ``is_class``, whether the label is a class, ``[q, n]``, and the label's score
        ``[q, n]`` for each kind of set (`conformal`).
        """
        del place
        labels, uniform = targets

        def of(log_probs: jax.Array) -> dict[str, jax.Array]:
            probs = jnp.exp(log_probs)
            found = {
                "derivatives": temperature.derivatives(log_probs, labels),
                "is_class": labels < log_probs.shape[-1],
            }
            for kind in conformal.KINDS:
                found[kind] = _of_label(conformal.scores(probs, uniform, kind), labels)
            return found

        return jax.lax.map(of, log_probs)

    def check_outcomes(self, outcomes: Outcomes) -> None:
        """Raises ValueError if a label is larger than every class."""
        if not np.all(outcomes.points["is_class"]):
            raise ValueError(NO_CLASS)


@dataclasses.dataclass(frozen=True, eq=False)
class Scoring(_Pass):
    """The pass over test data.

    Args:
      temperatures: ``[p + e]``.
      thresholds: for every kind of `conformal.KINDS`, ``[p + e]``.
    """

    temperatures: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(1))
    thresholds: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    target_names: ClassVar[tuple[str, ...]] = ("labels", "uniform")

    def numbers(self, log_probs: jax.Array, place: jax.Array, targets: tuple[Any, ...]) -> dict[str, Any]:
        """Scores at the temperature 1 and at the fitted one, the entropy, and the size and the hit of each set: ``[q, n]``."""
        labels, uniform = targets
        temperatures = jnp.asarray(self.temperatures, log_probs.dtype)[place]
        limits = {kind: jnp.asarray(found, log_probs.dtype)[place] for kind, found in self.thresholds.items()}

        def of(network: tuple[jax.Array, jax.Array, dict[str, jax.Array]]) -> dict[str, Any]:
            log_probs, inverse, limits = network
            found: dict[str, Any] = {
                "plain": metrics.score(log_probs, labels),
                "scaled": metrics.score(temperature.scaled(log_probs[None], inverse[None])[0], labels),
                "entropy": entropies.entropy(log_probs),
                "label": labels.astype(jnp.int32),
                "num_classes": jnp.full(labels.shape, log_probs.shape[-1], jnp.int32),
            }
            for kind, limit in limits.items():
                is_in = conformal.scores(jnp.exp(log_probs), uniform, kind) <= limit
                found[f"{kind}_size"] = jnp.sum(is_in, axis=-1).astype(log_probs.dtype)
                found[f"{kind}_covered"] = _of_label(is_in, labels).astype(log_probs.dtype)
            return found

        return jax.lax.map(of, (log_probs, temperatures, limits))


@dataclasses.dataclass(frozen=True, eq=False)
class Outside(_Pass):
    """The pass over another data set, whose labels mean nothing to the network."""

    target_names: ClassVar[tuple[str, ...]] = ()

    def check_targets(self, number: int, *targets: Any) -> None:
        """There are no targets to check."""

    def numbers(self, log_probs: jax.Array, place: jax.Array, targets: tuple[Any, ...]) -> dict[str, Any]:
        """The entropy and the largest probability, ``[q, n]``."""
        del place, targets
        return {"entropy": entropies.entropy(log_probs), "confidence": jnp.exp(jnp.max(log_probs, axis=-1))}


def _of_label(per_class: jax.Array, labels: jax.Array) -> jax.Array:
    """``[n, k], [n] -> [n]``."""
    return jnp.take_along_axis(per_class, labels[:, None], axis=-1)[:, 0]
