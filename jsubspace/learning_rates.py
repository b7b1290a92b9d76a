"""What a learning rate and a weight decay of the endpoints become at the midpoint.

Endpoint i gets the gradient c_i(alpha) g of the task, where g is the gradient at the sampled point. The midpoint is
mu = sum_i c*_i omega_i, with the coefficients c* of the center. Hence, without the penalty:

    SGD:    d mu = -eta (sum_i c*_i c_i(alpha)) g - eta lambda mu
    AdamW:  d mu ~ -eta (sum_i c*_i E[c_i] / sqrt(E[c_i^2])) u - eta lambda mu,

where u is the step of Adam on one network. In both lines a factor stands before the step of one network, and the decay
of the endpoints is the midpoint's decay. With ``pull_back="center"`` the weights w(alpha) stand in the place of c(alpha),
and the factor of SGD is 1. docs/rates.md has the derivation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, centers
from jsubspace.subspaces import Subspace

NUM_DRAWS = 2**16
"""The positions over which the moments of the coefficients are averaged."""


class Rate(NamedTuple):
    """The settings with which one network moves as the midpoint does.

    Attributes:
      learning_rate: eta', the endpoints' learning rate times the factor of the optimizer.
      decay: lambda', the endpoints' decay divided by the factor, so that the product with the rate is the same.
    """

    learning_rate: float
    decay: float


class Rates(NamedTuple):
    """The midpoint's settings under the two kinds of optimizers.

    Attributes:
      sgd: with SGD, with or without momentum. It is exact to six digits for a `Point`, a `Line` and a `Simplex`, and a mean
        over alpha for other subspaces.
      adam: with AdamW and its like, which divide by the root of the mean square of the gradient. It is an approximation for
        gradients that do not depend on alpha. With several samples, it also takes the gradients of all samples for equal, as
        they nearly are where each sample sees the whole batch. Where noise dominates, take ``num_samples=1``.
      angle: the angle by which a step of SGD turns a kernel of the midpoint before a BatchNorm, in units of the angle for one
        network, for orthogonal endpoints as at the start. It is a mean over alpha. A learning rate that one network bears may
        be too large where the angle is far above 1.
    """

    sgd: Rate
    adam: Rate
    angle: float


def rates(
    subspace: Subspace,
    learning_rate: float,
    decay: float = 0.0,
    *,
    num_samples: int = 1,
    pull_back: str = centers.PLAIN,
) -> Rates:
    """The learning rate and the decay of one network that moves as the midpoint of ``subspace`` does.

    With SGD, the midpoint of a line has half of the rate and twice the decay. To give the midpoint a rate and a decay of
    your choice, divide the rate by the factor ``rates(subspace, 1.0).sgd.learning_rate``, and multiply the decay by it.

    Args:
      subspace: the subspace that is trained.
      learning_rate: eta of the endpoints.
      decay: lambda of the endpoints. For SGD it is added to the gradient (``optax.add_decayed_weights`` before
        ``optax.sgd``). For Adam it is decoupled (``optax.adamw``).
      num_samples: S, the number of positions per step, as in `jsubspace.value_and_grad`. It changes Adam's factor alone.
      pull_back: "plain" or "center", as in `jsubspace.value_and_grad`.

    Returns:
      `Rates`. The moments of the coefficients are means over draws with a fixed key, which are right to about 0.3 %.

    Raises:
      ValueError: if the rate is no number or not positive, the decay is negative, one of them is not finite, or
        ``pull_back="center"`` does not fit the subspace.

    Example:
      >>> import jsubspace
      >>> rates(jsubspace.Line(), learning_rate=0.1, decay=1e-4).sgd
      Rate(learning_rate=0.05, decay=0.0002)
      >>> round(rates(jsubspace.Line(), learning_rate=1.0).adam.learning_rate, 2)
      0.87
      >>> rates(jsubspace.Line(), learning_rate=0.1, decay=1e-4, pull_back="center").sgd
      Rate(learning_rate=0.1, decay=0.0001)
    """
    numbers = {"learning_rate": learning_rate, "decay": decay}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ValueError(
                f"rates: {name} is {value!r}, but it must be a number. The order is rates(subspace, learning_rate, decay)."
            )
    if not 0 < learning_rate < np.inf:
        raise ValueError(
            f"rates: learning_rate is {learning_rate!r}, but a learning rate is a positive, finite number."
        )
    if not 0 <= decay < np.inf:
        raise ValueError(f"rates: decay is {decay!r}, but a weight decay is a finite number of at least 0.")
    if arguments.integer("rates: num_samples", num_samples) < 1:
        raise ValueError(f"rates: num_samples is {num_samples}, but a step takes at least one sample of alpha.")
    arguments.one_of("rates: pull_back", pull_back, centers.PULL_BACKS)
    arguments.subspace(subspace, "rates(subspace, learning_rate, decay)")
    if pull_back == centers.CENTER:
        centers.check_center(subspace, 'pull_back="center"')

    def coefficients(alpha: jax.Array) -> np.ndarray:
        return np.asarray(subspace.coefficients(alpha), np.float64)

    center = coefficients(jnp.asarray(subspace.center))
    drawn = coefficients(subspace.sample(jax.random.key(0), (NUM_DRAWS,)))
    pulled = drawn
    if pull_back == centers.CENTER:
        pulled = drawn + (1 - drawn @ center)[:, None] * center / (center @ center)
    mean = pulled.mean(axis=0)
    mean_square = mean**2 + pulled.var(axis=0) / num_samples  # of the mean over S independent positions
    # An endpoint that no position uses has a gradient of zero, and Adam leaves it where it is.
    direction = np.divide(mean, np.sqrt(mean_square), out=np.zeros_like(mean), where=mean_square > 0)
    factors = float(center @ mean), float(center @ direction)
    # A gradient before BatchNorm is inverse to the length of its kernel: |P(alpha)| = |c|, for orthogonal endpoints of length 1.
    turned = (pulled @ center) / np.linalg.norm(drawn, axis=1) / np.linalg.norm(center)
    sgd, adam = (Rate(_rounded(learning_rate * factor), _rounded(decay / factor)) for factor in factors)
    return Rates(sgd, adam, _rounded(float(turned.mean())))


def _rounded(number: float) -> float:
    """The coefficients are float32, whose rounding would show."""
    return float(f"{number:.6g}")
