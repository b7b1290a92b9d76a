"""A pretrained network in a file, as the common start of all endpoints or as their origin: the settings ``start.network``.

With an origin the penalty compares the task vectors, the differences of the endpoints from the origin. The endpoints start at
the origin too, unless ``start.runs`` names other networks.
"""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from jsubspace import arguments, axis_names, tree
from jsubspace.errors import UsageError
from jsubspace.exchange import leaf_files, matching
from jsubspace.exchange.leaf_files import Stored
from jsubspace.runs import config_files
from jsubspace.runs.build import Run
from jsubspace.runs.settings_table import ORIGIN
from jsubspace.storage import places
from jsubspace.types import Endpoints, Params


def with_digest(settings: ml_collections.ConfigDict, workdir: pathlib.Path | None = None) -> ml_collections.ConfigDict:
    """The settings with the digest of the file that ``start.network`` names. Without ``start.network`` they are the same settings.

    The digest identifies the run. The file may be moved, and a changed file is refused. A run that has its first checkpoint
    needs the file no more, unless it is the origin. So the digest of a file that has vanished comes from the run's folder.

    Args:
      settings: the settings.
      workdir: the run's folder, or None if there is none.

    Raises:
      UsageError: if there is no network, it is damaged, or the settings have the digest of another file.
    """
    if not settings.start.network:
        return settings
    given = settings.start.digest
    recorded = ""
    if workdir is not None and not places.located(settings.start.network, "start.network").exists():
        recorded = config_files.load(workdir).start.digest if (workdir / config_files.CONFIG).exists() else ""
    digest = recorded or _stored(settings).digest()
    if given not in ("", digest):
        raise UsageError(
            f"start.digest is {given}, but {settings.start.network} (of start.network) has {digest}. The file has changed, or it is "
            "another file. Restore it, or leave start.digest empty in a new folder."
        )
    found = settings.copy_and_resolve_references()
    found.start.digest = digest
    return found


def is_start(settings: ml_collections.ConfigDict) -> bool:
    """Whether the endpoints start at the network of ``start.network``."""
    return bool(settings.start.network) and not arguments.words(settings.start.runs)


def has_origin(settings: ml_collections.ConfigDict) -> bool:
    """Whether the penalty compares the differences of the endpoints from the network of ``start.network``."""
    return bool(settings.start.network) and settings.start.role == ORIGIN


def check_file(settings: ml_collections.ConfigDict) -> None:
    """Raises a UsageError if no network is where ``start.network`` says. No array is read."""
    if settings.start.network:
        _stored(settings)


def check(run: Run) -> None:
    """Raises what `endpoints` and `origin` would raise. Arrays are read one by one, and none is kept.

    Raises:
      UsageError: if a name, a shape or a dtype is not the network's, or a number is not finite.
    """
    if run.settings.start.network:
        for _ in _leaves(run):
            pass


def endpoints(run: Run) -> Endpoints:
    """The network of ``start.network`` as each of the endpoints ``[m, *s]``, on the devices.

    Raises:
      UsageError: as `check`.
    """
    like, m = run.state_shape.endpoints, run.subspace.num_endpoints
    shardings = None if run.shardings is None else jax.tree.leaves(run.shardings.endpoints)

    def put(i: int, leaf: np.ndarray) -> jax.Array:
        return run.devices.put(np.broadcast_to(leaf, (m, *leaf.shape)), shardings and shardings[i])

    return _network(run, put, like)


def origin(run: Run) -> Params | None:
    """The origin, whole on each device with leaves ``[*s]``, or None if the settings ask for no origin.

    Raises:
      UsageError: as `check`.
    """
    if not has_origin(run.settings):
        return None
    return _network(run, lambda i, leaf: run.devices.put(leaf), axis_names.bare(run.state_shape.endpoints))


def _network(run: Run, put: Callable[[int, np.ndarray], jax.Array], like: Any) -> Any:
    found = [put(i, leaf) for i, leaf in enumerate(_leaves(run))]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def _leaves(run: Run) -> Iterator[np.ndarray]:
    """The leaves ``[*s]`` of the network in the order of the endpoints' leaves. Memory holds one of them."""
    stored = _stored(run.settings)
    leaves = jax.tree_util.tree_leaves_with_path(axis_names.bare(run.state_shape.endpoints))
    expected = {leaf_files.name_of(path): jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for path, leaf in leaves}
    theirs = matching.matched(stored.shapes, expected, str(stored.path))
    for (_, array), (path, leaf) in zip(stored.read(list(theirs.values())), leaves, strict=True):
        if not np.isfinite(array).all():
            raise UsageError(
                f"the network in {stored.path} is not finite: the leaf {tree.leaf_name(path)} holds NaN or infinity. Take another "
                "checkpoint of it."
            )
        yield array.astype(leaf.dtype, copy=False)


def _stored(settings: ml_collections.ConfigDict) -> Stored:
    return leaf_files.find(places.located(settings.start.network, "start.network"))
