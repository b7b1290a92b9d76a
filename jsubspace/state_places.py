"""Where the first state of an optimizer is, among devices: beside its parameters."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def initial(init: Callable[[Any], Any], params: Any) -> Any:
    """``init(params)``, with the leaves of the state where the parameters of their names are. Other leaves are on every device.

    A vmap forgets where its arguments are: it would put the state of all endpoints on one device.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    known = [leaf for _, leaf in leaves if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)]
    shardings = [leaf.sharding for leaf in known if isinstance(leaf.sharding, NamedSharding)]
    meshes = [sharding.mesh for sharding in shardings if isinstance(sharding.mesh, Mesh) and sharding.mesh.size > 1]
    if not meshes or len(known) < len(leaves):
        return init(params)
    everywhere = NamedSharding(meshes[0], PartitionSpec())

    def place(path: Any, leaf: Any) -> NamedSharding:
        like = (
            parameter.sharding
            for name, parameter in sorted(leaves, key=lambda pair: -len(pair[0]))
            if path[len(path) - len(name) :] == name and parameter.shape == leaf.shape
        )
        return next((found for found in like if isinstance(found, NamedSharding)), everywhere)

    with jax.set_mesh(meshes[0]):
        places = jax.tree_util.tree_map_with_path(place, jax.eval_shape(init, params))
        return jax.jit(init, out_shardings=places)(params)
