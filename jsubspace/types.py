"""Names for the trees that the library passes around.

The names are aliases and help the reader. Any pytree of floating-point arrays will do: from Flax linen or nnx,
from Equinox, or a plain dictionary.
"""

from typing import Any, TypeAlias, TypeVar

# Each alias is Any, because a pytree has no type of its own in Python: any registered class may be one.
Params: TypeAlias = Any
"""One network: a pytree with leaves ``[*s]``. In the paper, theta or P(alpha)."""

Endpoints: TypeAlias = Any
"""The parameters of a subspace: the same pytree with leaves ``[m, *s]``, ``omega_i`` in row i."""

Alpha: TypeAlias = Any
"""A position in a subspace: one array, or (layerwise) a tree like the network with one array per leaf.
A leaf of L layers that are stacked for a scan may have one position per layer, ``[L, *alpha_shape]``."""

LeafMask: TypeAlias = Any
"""A tree like the network with one Python bool per leaf, which says whether the leaf counts."""

LayerNames: TypeAlias = Any
"""A tree like the network with one name per leaf. Leaves with the same name form a layer and share their alpha. The name of
layers that are stacked for a scan is a `layer_names.ScannedLayers`, with an alpha per stacked layer."""

Tree = TypeVar("Tree")
"""The type of one network and of its endpoints, which is the same: ``init_endpoints`` of an Equinox module is such a module."""
