"""Whether numbers of several seeds are positive: t intervals, p-values and Holm's correction."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.lib import over_seeds
from jsubspace.evaluation import bounds


class Measured(NamedTuple):
    """A number that is positive if a claim is true.

    Attributes:
      name: its name.
      values: one value per seed.
      ring: whether a value is of a pair of networks, which shares a network with the next seed's pair
        (`over_seeds.error`).
    """

    name: str
    values: np.ndarray
    ring: bool = False

    @property
    def verdict(self) -> str:
        """`holds`, `does not hold` or `open`."""
        interval = over_seeds.interval(self.values.tolist(), self.ring)
        if interval is None:
            return "open"
        return "holds" if interval[0] > 0 else "does not hold" if interval[1] < 0 else "open"

    @property
    def p_value(self) -> float:
        """The two-sided p-value of Student's t test that the number is 0 on average. It is 1 for a single seed or pair."""
        error, freedom = over_seeds.error(self.values.tolist(), self.ring)
        mean = float(np.mean(self.values))
        if error == 0:
            return 1.0 if mean == 0 else 0.0
        return bounds.t_tails(mean / error, freedom)

    def words(self, threshold: float) -> str:
        """The number and its verdict, with a dagger if the p-value is at most ``threshold``."""
        spread = f" ± {np.std(self.values, ddof=1):.4f}" if len(self.values) > 1 else ""
        dagger = " †" if self.verdict != "open" and self.p_value <= threshold else ""
        return f"{self.name} {np.mean(self.values):+.4f}{spread}: {self.verdict}{dagger}"


def holm(p_values: Sequence[float], level: float = 0.05) -> float:
    """The largest p-value that Holm's correction accepts, or -1 if it accepts no p-value.

    Example:
      >>> holm([0.04, 0.001, 0.02])
      0.04
      >>> holm([0.04, 0.001, 0.03])
      0.001
    """
    accepted = -1.0
    for k, p_value in enumerate(sorted(p_values)):
        if p_value > level / (len(p_values) - k):
            break
        accepted = p_value
    return accepted


def together(measured: Sequence[Measured]) -> str:
    """The verdict of a claim that several numbers measure."""
    verdicts = {one.verdict for one in measured}
    if len(verdicts) == 1:
        return verdicts.pop()
    return "partly" if "holds" in verdicts else "open, or does not hold"
