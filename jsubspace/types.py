"""Names for the trees that the library passes around.

They are aliases, for the reader: any pytree of floating-point arrays will do, from Flax linen or nnx,
Equinox or a plain dictionary.
"""

from typing import Any, TypeAlias

Params: TypeAlias = Any
"""One network: a pytree with leaves ``[*s]``. In the paper, theta or P(alpha)."""

Endpoints: TypeAlias = Any
"""The parameters of a subspace: the same pytree with leaves ``[m, *s]``, ``omega_i`` in row i."""

Alpha: TypeAlias = Any
"""A position in a subspace: one array, or (layerwise) a tree like the network with one array a leaf."""

LeafMask: TypeAlias = Any
"""A tree like the network with a Python bool a leaf: which leaves count."""

LayerNames: TypeAlias = Any
"""A tree like the network with a name a leaf: leaves of one name form a layer and share their alpha."""
