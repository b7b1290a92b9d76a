"""Means over seeds as a table shows them."""

from collections.abc import Sequence

import numpy as np

from jsubspace.evaluation import bounds


def of_seeds(values: Sequence[float] | np.ndarray) -> str:
    """The mean, and half of its 95 % t interval if there are two values at least that differ.

    Example:
      >>> of_seeds([0.80, 0.82, 0.81]), of_seeds([0.80])
      ('0.810 ± 0.025', '0.800')
    """
    listed = [float(value) for value in values]
    interval = None if bounds.without_spread(listed) else bounds.of_runs(listed)
    return f"{np.mean(values):.3f}" + (f" ± {(interval[1] - interval[0]) / 2:.3f}" if interval else "")
