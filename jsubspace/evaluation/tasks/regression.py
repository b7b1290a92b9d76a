"""Numbers as targets, and networks that return a Gaussian."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments
from jsubspace.evaluation import ensembles
from jsubspace.evaluation.tasks import checks
from jsubspace.evaluation.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Targets ``[n, ...]``, and networks that return a Gaussian for each: ``(mean, log_variance)``, both like the targets.

    The log-variance is log sigma^2. It may also be one number ``[]``, for a noise that all examples share, or have axes of
    length 1. A network that returns the mean alone needs ``scale``. An ensemble is the mixture of its members'
    Gaussians. The scores are

    - ``nll``: minus the log-density of an example in nats. Outputs of one example are independent given the member, so their
      log-densities are added.
    - ``rmse``: the root of the mean squared error of the mixture's mean, over examples and outputs.
    - ``crps``: the continuous ranked probability score of the mixture, in the targets' unit, mean over outputs.
    - ``coverage_90``: how often the target lies in the central interval that has a probability of 90 %, for each of ``levels``.
      The right value is 0.9.
    - ``quantile_05``: how often the target lies below the 5 % quantile, for each of ``quantiles``. The right value is 0.05.

    Args:
      scale: sigma, for networks that return the mean alone.
      levels: probabilities of central intervals.
      quantiles: probabilities of quantiles.
      tolerance: how much larger the NLL may be along a connector than at its ends.

    Raises:
      ValueError: if an option is something else.

    References:
      Grimit, Gneiting, Berrocal and Johnson, "The continuous ranked probability score for circular variables and its
      application to mesoscale forecast ensemble verification", 2006, has the CRPS of a mixture.
    """

    scale: float | None = None
    levels: tuple[float, ...] = (0.5, 0.9)
    quantiles: tuple[float, ...] = ()
    tolerance: float = 0.01

    main: ClassVar[str] = "nll"

    def __post_init__(self) -> None:
        if self.scale is not None:
            expected = "a positive number, the standard deviation of the noise"
            scale = checks.number("scale", self.scale, lambda given: 0 < given < math.inf, expected)
            object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "tolerance", checks.tolerance(self.tolerance))
        for name in ("levels", "quantiles"):
            object.__setattr__(self, name, _probabilities(name, getattr(self, name)))

    @property
    def higher_is_better(self) -> Mapping[str, bool | None]:
        """The names of the scores. A coverage is best at its level, and neither higher nor lower is better."""
        return {"nll": False, "rmse": False, "crps": False} | dict.fromkeys(self.fractions)

    @property
    def fractions(self) -> tuple[str, ...]:
        """The names of the coverages."""
        return (*(_name("coverage", level) for level in self.levels), *(_name("quantile", q) for q in self.quantiles))

    def check_targets(self, number: int, *targets: Any) -> None:
        """Raises ValueError if the targets are not finite real numbers. It warns if float32 rounds their differences away."""
        (given,) = targets
        dtype = checks.dtype_of(given)
        if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
            raise ValueError(
                f"the targets of batch {number} are {dtype}. The targets of a regression are real numbers."
            )
        exact = np.asarray(given, np.float64)
        if not np.isfinite(exact).all():
            raise ValueError(
                f"a target of batch {number} is not finite. Leave the examples out that have no target, or correct the data."
            )
        kept, spread = jnp.result_type(float), np.ptp(exact) if exact.size else 0.0
        lost = np.max(np.abs(exact - exact.astype(kept)), initial=0)
        if lost > 1e-3 * spread > 0:
            warnings.warn(
                f"the targets of batch {number} lie between {exact.min():.10g} and {exact.max():.10g}, and {jnp.dtype(kept).name} "
                f"rounds them by up to {lost:.3g}. If this is more than the noise of the targets, "
                "subtract the mean of all targets and divide by their spread, or use jax_enable_x64.",
                stacklevel=2,
            )

    def reduce(self, outputs: Any, *targets: Any) -> tuple[jax.Array, jax.Array]:
        """Means and log-variances ``[n, d]``, in float32 or wider.

        Raises:
          ValueError: if the outputs are not one Gaussian per target.
        """
        shape = jnp.shape(targets[0])
        is_pair = isinstance(outputs, tuple | list) and len(outputs) == 2
        mean, log_variance = outputs if is_pair else (outputs, None)
        arrays = outputs if is_pair else (outputs,)
        if is_pair == (self.scale is not None) or not all(hasattr(array, "dtype") for array in arrays):
            expected = (
                "the mean alone, since the task has a scale" if self.scale is not None else "(mean, log_variance)"
            )
            raise ValueError(
                f"predict_fn returned {checks.in_words(outputs)}. For this regression it must return {expected}. "
                "Regression(scale=...) takes networks that return the mean alone."
            )
        checks.check_real(outputs, "predict_fn", "means and log-variances")
        fits = mean.shape == shape and (log_variance is None or _broadcasts(log_variance.shape, shape))
        if not fits:
            raise ValueError(
                f"predict_fn returned {checks.in_words(outputs)} for targets of the shape {list(shape)}. The mean must have the shape "
                "of the targets, and so must the log-variance, or be one number. Squeeze a last axis of length 1."
            )
        mean = checks.wide(mean)
        if log_variance is None:
            log_variance = jnp.asarray(2 * math.log(self.scale or 1), mean.dtype)
        log_variance = jnp.broadcast_to(log_variance.astype(mean.dtype), shape)
        return mean.reshape(shape[0], -1), log_variance.reshape(shape[0], -1)

    def per_example(self, members: tuple[jax.Array, jax.Array], *targets: Any) -> dict[str, jax.Array]:
        """Scores ``[n]`` of the mixture of members ``[e, n, d]``."""
        mean, log_variance = members
        y = targets[0].reshape(mean.shape[1:]).astype(mean.dtype)
        error, scale = y - mean, jnp.exp(log_variance / 2)
        log_density = -(math.log(2 * math.pi) + log_variance + (error / scale) ** 2) / 2
        below = jnp.mean(jax.scipy.stats.norm.cdf(error / scale), axis=0)  # The mixture's distribution function at y.
        found = {
            "nll": -ensembles.log_mean(jnp.sum(log_density, axis=-1)),
            "squared_error": jnp.mean((y - jnp.mean(mean, axis=0)) ** 2, axis=-1),
            "crps": jnp.mean(_crps(mean, scale, error), axis=-1),
        }
        central = {_name("coverage", level): jnp.abs(2 * below - 1) <= level for level in self.levels}
        inside = central | {_name("quantile", level): below <= level for level in self.quantiles}
        for name, is_inside in inside.items():
            found[name] = jnp.mean(jnp.where(jnp.isnan(below), jnp.nan, is_inside), axis=-1)
        return found

    def summary(self, means: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The means, and the root of the mean squared error."""
        found = {name: means[name] for name in self.higher_is_better if name != "rmse"}
        return found | {"rmse": np.sqrt(means["squared_error"])}


def _crps(mean: jax.Array, scale: jax.Array, error: jax.Array) -> jax.Array:
    """The CRPS ``[n, d]`` of mixtures of Gaussians ``[e, n, d]``.

        E|X - y| - E|X - X'| / 2

    for X and X' drawn from the mixture. Both are means of the expected absolute values of Gaussians.
    """

    def to_others(one: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.mean(_mean_absolute(one[0] - mean, jnp.hypot(one[1], scale)), axis=0)

    between = jnp.mean(
        jax.lax.map(to_others, (mean, scale)), axis=0
    )  # One member at a time: [e, e, n, d] may be large.
    return jnp.mean(_mean_absolute(error, scale), axis=0) - between / 2


def _mean_absolute(mean: jax.Array, scale: jax.Array) -> jax.Array:
    """E|Z| for a Gaussian Z."""
    ratio = mean / scale
    density = jnp.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
    return 2 * scale * density + mean * jax.scipy.special.erf(ratio / math.sqrt(2))


def _probabilities(name: str, levels: Any) -> tuple[float, ...]:
    expected = "a tuple of probabilities between 0 and 1"
    if not isinstance(levels, list | tuple) and not (hasattr(levels, "dtype") and np.ndim(levels) == 1):
        raise ValueError(f"{name} is {arguments.described(levels)}. It must be {expected}.")
    return tuple(checks.number(name, level, lambda given: 0 < given < 1, expected) for level in levels)


def _name(kind: str, level: float) -> str:
    """``coverage_90`` for 0.9, ``quantile_05`` for 0.05, ``coverage_97_5`` for 0.975."""
    whole, _, rest = f"{100 * level:.10g}".partition(".")
    return f"{kind}_{whole:0>2}{'_' if rest else ''}{rest}"


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether a shape is one number, or has axes like the targets' or of length 1. An ``[n]`` never stands for a ``[d]``."""
    return not shape or (len(shape) == len(to) and all(a in (1, b) for a, b in zip(shape, to, strict=True)))
