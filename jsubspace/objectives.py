"""The options of Algorithm 1."""

import dataclasses

import jax
import numpy as np

from jsubspace import arguments, centers, factors, layer_names, penalties, tree
from jsubspace.factors import Pairs
from jsubspace.point_gradients import PointFn
from jsubspace.samples import Batch
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints, LayerNames, Params


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """The options of Algorithm 1.

    Attributes:
      beta: strength of the penalty, at least 0: a number, or a traced scalar. With the number 0, or one endpoint, no
        penalty is computed.
      layerwise: whether every layer has an alpha of its own. True stands for the layers that `jsubspace.layers` finds,
        and a tree of layer names stands for itself (`jsubspace.layers` with ``scanned`` names stacked layers).
      num_samples: S, the number of positions per step (appendix B of the paper).
      all_pairs: whether the penalty is the exact mean over pairs instead of one random pair per step.
      mask: the leaves that the penalty sees: a tree of bools, a function ``endpoints -> tree``, or None for the kernels
        (`jsubspace.kernels`).
      batch: which arguments of the loss are cut into one part per position.
      at_point: a function of the mean gradient over all devices at the point, before the gradient is pulled back.
      sam_rho: the length of the step uphill from the point, where the gradient is taken a second time. A number, or a traced
        scalar. With the number 0, one gradient is taken.
      origin: one network with leaves ``[*s]``, if the penalty compares the task vectors omega - origin, or None.
      pull_back: "plain" or "center", the weights with which the gradient is pulled back (`centers.pull_back_weights`).
      spread: r, between 0 and 1, the factor of the distance of alpha to the center (`centers.drawn_together`). A number, or
        a traced scalar.
      products: the names of low-rank factors, if positions and the penalty act on their products (`products.as_products`), or None.

    Raises:
      ValueError: if an option is out of range.
    """

    beta: float | jax.Array = 1.0
    layerwise: bool | LayerNames = False
    num_samples: int = 1
    all_pairs: bool = False
    mask: penalties.Mask = None
    batch: Batch = dataclasses.field(default_factory=Batch)
    at_point: PointFn | None = None
    sam_rho: float | jax.Array = 0.0
    origin: Params | None = None
    pull_back: str = centers.PLAIN
    spread: float | jax.Array = 1.0
    products: Pairs | None = None

    def __post_init__(self) -> None:
        if isinstance(self.layerwise, np.bool_):
            object.__setattr__(self, "layerwise", bool(self.layerwise))
        object.__setattr__(self, "all_pairs", arguments.truth("all_pairs", self.all_pairs))
        object.__setattr__(self, "num_samples", arguments.integer("num_samples", self.num_samples))
        object.__setattr__(self, "beta", arguments.strength("beta", self.beta, "the penalty's strength"))
        object.__setattr__(self, "sam_rho", arguments.strength("sam_rho", self.sam_rho, "the length of a step uphill"))
        object.__setattr__(self, "spread", arguments.strength("spread", self.spread, "the spread of alpha"))
        if not isinstance(self.spread, jax.Array) and self.spread > 1:
            raise ValueError(
                f"spread is {self.spread}, but it must be between 0 (the center alone) and 1 (all positions)."
            )
        arguments.one_of("pull_back", self.pull_back, centers.PULL_BACKS)
        if self.at_point is not None and (not callable(self.at_point) or isinstance(self.at_point, type)):
            raise ValueError(
                f"at_point is {arguments.described(self.at_point)}, but it must be a function from a gradient to a gradient. For a transformation "
                "tx of optax that needs no state, pass lambda grad: tx.update(grad, tx.init(grad))[0]."
            )
        if self.products is not None:
            object.__setattr__(self, "products", factors.checked(self.products))
            if self.pull_back != centers.PLAIN:
                raise ValueError(
                    f'pull_back is "{self.pull_back}", but with products the gradient of a first factor holds the coefficient already, '
                    'through the second factor of the point. Use pull_back="plain", or train on the factors.'
                )
        if self.num_samples < 1:
            raise ValueError(f"num_samples is {self.num_samples}, but a step takes at least one sample of alpha.")

    def check_center(self, subspace: Subspace) -> None:
        """Refuses or warns if an option favours the center of a subspace where this does not fit (`centers.check_center`)."""
        if self.pull_back == centers.CENTER:
            centers.check_center(subspace, 'pull_back="center"')
        elif isinstance(self.spread, jax.Array) or self.spread < 1:
            centers.check_center(subspace, "a spread below 1")

    def penalises(self, subspace: Subspace) -> bool:
        """Whether a penalty is computed for this subspace."""
        return _is_on(self.beta) and subspace.num_endpoints > 1

    def goes_uphill(self) -> bool:
        """Whether the gradient is taken a second time, uphill from the point."""
        return _is_on(self.sam_rho)


def _is_on(strength: float | jax.Array) -> bool:
    return isinstance(strength, jax.Array) or strength > 0


def layers_of(layerwise: bool | LayerNames, endpoints: Endpoints) -> LayerNames | None:
    """The layers that ``layerwise`` stands for, or None for one alpha."""
    if isinstance(layerwise, bool):
        return layer_names.layers(endpoints) if layerwise else None
    layer_names.check_layers("layerwise", layerwise, "True, False, or a tree like the endpoints")
    if not tree.same_structure(layerwise, endpoints):
        raise ValueError(
            f"layerwise is {arguments.described(layerwise)}. It must be True, False, or a tree like the endpoints with the name of a "
            f"layer per leaf (see jsubspace.layers), but {tree.difference(layerwise, endpoints)}."
        )
    layer_names.check_lengths(layerwise, endpoints)
    return layerwise
