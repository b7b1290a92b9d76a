"""Any model with a likelihood: a density, a flow, a point process, a graph."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from jsubspace import arguments
from jsubspace.evaluation import ensembles
from jsubspace.evaluation.tasks import checks
from jsubspace.evaluation.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Likelihood(Task):
    """A function ``log_prob_fn(point, *batch) -> [n]``, the log-probability or log-density of every example.

    The function gets all arrays of a batch. An ensemble is the mixture of its members, log (1 / e) sum_i p_i(example).
    The only score is ``nll``, the mean of the negative log-likelihoods in nats.

    Args:
      tolerance: how much larger the NLL may be along a connector than at its ends.

    Raises:
      ValueError: if the tolerance is no finite number of at least 0.

    Example:
      >>> import jax.numpy as jnp
      >>> import jsubspace
      >>> def log_prob_fn(point, x):
      ...     return jax.scipy.stats.norm.logpdf(x, point["mean"])
      >>> endpoints, x = {"mean": jnp.array([0.0, 1.0])}, jnp.array([0.0, 1.0])
      >>> report = jsubspace.measure(log_prob_fn, endpoints, jsubspace.Line(), [(x,)], task=Likelihood(), num_points=3)
      >>> round(report.center.nll, 4), round(report.ensemble(0, 1).nll, 2)
      (1.0439, 1.14)
    """

    tolerance: float = 0.01

    higher_is_better: ClassVar[Mapping[str, bool]] = {"nll": False}
    target_names: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tolerance", checks.tolerance(self.tolerance))

    def reduce(self, outputs: Any, *targets: Any) -> jax.Array:
        """The log-probabilities ``[n]``, in float32 or wider.

        Raises:
          ValueError: if the function returned something else.
        """
        if getattr(outputs, "ndim", None) != 1 or not arguments.are_real_numbers(outputs):
            raise ValueError(
                f"log_prob_fn returned {checks.in_words(outputs)}. For a likelihood it must return one real log-probability per "
                "example, [n]. Sum over the other axes, and do not average over examples."
            )
        return checks.wide(outputs)

    def losses(self, outputs: Any, *targets: Any) -> jax.Array:
        """The negative log-likelihoods ``[n]``."""
        return -self.reduce(outputs, *targets)

    def per_example(self, members: jax.Array, *targets: Any) -> dict[str, jax.Array]:
        """The NLL ``[n]`` of the mixture of members ``[e, n]``."""
        return {"nll": -ensembles.log_mean(members)}
