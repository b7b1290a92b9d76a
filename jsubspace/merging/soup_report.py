"""What is known of a soup: its weights, how they were found, and what they are worth."""

import dataclasses
from collections.abc import Mapping

from jsubspace.merging.gains import Gain
from jsubspace.merging.greedy import Step


@dataclasses.dataclass(frozen=True)
class SoupReport:
    """How a soup was made, and what it is worth on the validation data.

    The losses of a soup that was chosen on the data are too low as estimates for new data. The two gains are not: every example
    is scored by a choice that has not seen it (`folds`).

    Attributes:
      how: "uniform", "greedy", "fitted" or "stock".
      weights: for every part, the weight of every network by name.
      loss: the mean loss of the soup, or None without validation data.
      losses: the mean loss of every network by name. It is empty without validation data.
      over_center: the gain over the uniform soup, or None for it and without data.
      over_best: the gain over the best single network, which is chosen on the same examples as the soup, or None without data.
      steps: every try of a greedy soup, in order.
      cosines: for Model Stock, the mean cosine between task vectors in every part.
      num_examples: the number of validation examples.
    """

    how: str
    weights: Mapping[str, Mapping[str, float]]
    loss: float | None = None
    losses: Mapping[str, float] = dataclasses.field(default_factory=dict)
    over_center: Gain | None = None
    over_best: Gain | None = None
    steps: tuple[Step, ...] = ()
    cosines: Mapping[str, float] = dataclasses.field(default_factory=dict)
    num_examples: int = 0

    def table(self) -> str:
        """The weights, the losses, the steps and the gains, for a terminal."""
        lines = []
        for part, of_part in self.weights.items():
            row = ", ".join(f"{name} {weight:.3f}" for name, weight in of_part.items())
            lines.append(f"{part or 'top'}: {row}" + (f" (cosine {self.cosines[part]:.3f})" if self.cosines else ""))
        lines += [f"loss of {name}: {loss:.4f}" for name, loss in self.losses.items()]
        for step in self.steps:
            bounds = "" if step.interval is None else f" ({step.interval[0]:+.4f} to {step.interval[1]:+.4f})"
            where = "" if step.part == "whole" else f" in {step.part or 'top'}"
            kept = "stays" if step.is_kept else "is left out"
            lines.append(f"{step.network}{where} {kept}: loss {step.after:.4f}, change {step.change:+.4f}{bounds}")
        if self.loss is not None:
            lines.append(f"loss of the soup on the {self.num_examples} examples: {self.loss:.4f}")
        return "\n".join([*lines, *(str(found) for found in (self.over_center, self.over_best) if found is not None)])
