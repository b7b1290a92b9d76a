"""A network as functions of the parameters of one point, whatever framework it was written in."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jsubspace.types import Params


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network. `models.adapters` makes it from a module of Flax or Equinox, or from plain functions.

    All functions run inside of compiled programs. Each of them sees one device's part of a batch.

    Attributes:
      init: ``key -> point``: the parameters of a fresh network, leaves ``[*s]``, all of them floating-point arrays.
      apply: ``(point, *inputs, stats=None, key=None, train=False) -> outputs``. ``stats`` are the statistics of the point in
        evaluation mode, as ``stats`` returns them. ``key`` is for dropout, in train mode alone.
      stats: ``(point, *inputs, key=None) -> statistics`` of one training batch, in train mode. It is None for a network
        without BatchNorm.
      alone: the same network without collectives over devices, or None if the network has no collectives.
      compute_dtype: the dtype that the network computes in, or None. Endpoints that are divided among devices travel in it.

    Example:
      >>> import jax.numpy as jnp
      >>> def apply(point, x, stats=None, key=None, train=False):
      ...     return x @ point["kernel"]
      >>> network = Network(lambda key: {"kernel": jax.random.normal(key, (3, 2))}, apply)
      >>> network.apply(network.init(jax.random.key(0)), jnp.ones((4, 3))).shape
      (4, 2)
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[..., Any]
    stats: Callable[..., Any] | None = None
    alone: "Network | None" = None
    compute_dtype: Any = None

    @property
    def on_one_device(self) -> "Network":
        """The network without collectives over devices."""
        return self.alone or self
