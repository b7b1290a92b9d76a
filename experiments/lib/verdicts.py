"""Whether numbers of several seeds are positive: t intervals, p-values and Holm's correction."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jsubspace.evaluation import bounds


class Measured(NamedTuple):
    """A number that is positive if a claim is true.

    Attributes:
      name: its name.
      values: one value per seed.
    """

    name: str
    values: np.ndarray

    @property
    def verdict(self) -> str:
        """`holds`, `does not hold` or `open`."""
        interval = bounds.of_runs(self.values.tolist())
        if interval is None:
            return "open"
        return "holds" if interval[0] > 0 else "does not hold" if interval[1] < 0 else "open"

    @property
    def p_value(self) -> float:
        """The two-sided p-value of Student's t test that the number is 0 on average. It is 1 for a single seed."""
        if len(self.values) < 2:
            return 1.0
        error = float(np.std(self.values, ddof=1)) / np.sqrt(len(self.values))
        mean = float(np.mean(self.values))
        if error == 0:
            return 1.0 if mean == 0 else 0.0
        return bounds.t_tails(mean / error, len(self.values) - 1)

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
