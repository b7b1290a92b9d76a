"""A subspace as a folder for others: the endpoints, their map, and a card for people.

``endpoints.safetensors`` holds the endpoints and, in its metadata, all that ``subspace.json`` holds. It is replaced as one file.
A process that is killed between two files therefore leaves the old subspace or the new one.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jsubspace import arguments, axis_names, tree
from jsubspace.errors import UsageError
from jsubspace.exchange import (
    leaf_files,
    model_card,
    named_leaves,
    network_files,
    saved,
    subspace_maps,
    subspace_record,
)
from jsubspace.exchange.leaf_files import Stored
from jsubspace.storage import documents, files
from jsubspace.storage.places import located
from jsubspace.storage.schema import Mismatch
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints, LayerNames, Params

ENDPOINTS, MAP = "endpoints.safetensors", "subspace.json"

FILES = (ENDPOINTS, MAP, model_card.CARD, model_card.PICTURE)
"""All files of a folder."""

_MAP_BYTES = 2**26

_FIX = "Restore the file, or save the subspace again."

_TEXT = "subspace"
"""The metadata of the endpoints' file with the content of the map."""


@dataclasses.dataclass(frozen=True)
class SavedSubspace:
    """What a folder of `save_subspace` holds.

    Attributes:
      endpoints: leaves ``[m, *s]``, or ``[1, *s]`` for a shared leaf, as numpy arrays.
      subspace: what they span.
      layers: the names of layers, like the endpoints, of a subspace that was trained layerwise. Otherwise None.
      facts: the content of ``subspace.json``: ``batch_norm``, ``normalization``, ``report``, ``provenance`` and more.
    """

    endpoints: Endpoints
    subspace: Subspace
    layers: LayerNames | None
    facts: Mapping[str, Any]


def save_subspace(
    folder: str | os.PathLike[str],
    endpoints: Endpoints,
    subspace: Subspace,
    *,
    report: Any = None,
    layers: LayerNames | None = None,
    batch_norm: str | None = None,
    normalization: Mapping[str, Sequence[float]] | None = None,
    commit: str = "",
    card: Mapping[str, Any] | None = None,
) -> None:
    """Writes endpoints with their map into a folder, which any program can read with numpy alone (docs/files.md).

    The folder gets ``endpoints.safetensors``, ``subspace.json``, a model card ``README.md`` and, with a report, the picture
    ``alpha.png``. Files of these names are replaced. A process that is killed leaves the old subspace or the new one.

    Args:
      folder: the folder, on the disk or in a bucket. It is made if it does not exist.
      endpoints: leaves ``[m, *s]`` in any tree (`jsubspace.save`), or ``[1, *s]`` for a leaf that all endpoints share.
      subspace: what they span. A class of your own is written by its name, and `load_subspace` asks for an instance.
      report: of `jsubspace.measure`. The map gets its scores over alpha. The card shows its table, and its picture if
        matplotlib is installed.
      layers: the names of layers of a layerwise subspace, like the endpoints (`jsubspace.layers`).
      batch_norm: "none" if the network has no BatchNorm, "reestimate" if every point needs statistics from training batches
        (`jsubspace.reestimate_batch_stats`), or None, which says nothing.
      normalization: the ``mean`` and the ``std`` of the inputs. A reader subtracts the mean and divides by std.
      commit: the commit of the code that trained them.
      card: fields for the header of the card, as ``{"license": "apache-2.0", "datasets": ["mnist"]}``. The values are text or
        lists of text.

    Raises:
      UsageError: if the folder cannot be written.
      ValueError: if endpoints and subspace do not fit, a number of the endpoints is not finite, or an option is not as it
        must be.

    Example:
      >>> import tempfile
      >>> from jsubspace.subspaces import Line
      >>> folder = pathlib.Path(tempfile.mkdtemp()) / "line"
      >>> save_subspace(folder, {"w": np.float32([[0, 0], [1, 2]])}, Line(), batch_norm="none")
      >>> found = load_subspace(folder)
      >>> found.subspace, found.endpoints["w"].tolist(), found.facts["batch_norm"]
      (Line(), [[0.0, 0.0], [1.0, 2.0]], 'none')
    """
    target, call = located(folder, "folder"), "save_subspace(folder, endpoints, subspace)"
    m = tree.num_endpoints(endpoints, call)
    if m != arguments.subspace(subspace, call).num_endpoints:
        raise ValueError(f"save_subspace: {subspace} has {subspace.num_endpoints} endpoints but {m} were given.")
    _check_finite(endpoints)
    content = subspace_record.make(endpoints, subspace, report, layers, batch_norm, normalization, commit)
    header = model_card.header(content, card)
    try:
        files.make_folder(target)
        digest = saved.write(target / ENDPOINTS, endpoints, {_TEXT: documents.to_json(content)}, "endpoints", call)
        documents.write_json(target / MAP, content | {subspace_record.DIGEST: digest})
        has_picture = model_card.draw(target / model_card.PICTURE, report)
        files.write_text(target / model_card.CARD, header + model_card.body(content, report, has_picture))
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error}. Choose another place, or make room.") from error


def load_subspace(
    folder: str | os.PathLike[str], subspace: Subspace | None = None, like: Params | None = None
) -> SavedSubspace:
    """The subspace in a folder of `save_subspace`. Nothing in the folder is executed.

    Args:
      folder: the folder, on the disk or in a bucket.
      subspace: needed for a class that is not the library's. Its weights are compared with those in the folder.
      like: one network ``[*s]`` in the tree that the endpoints shall have, for example a module, or the result of
        ``jax.eval_shape(init_fn, key)``. Without it they are dictionaries, lists and tuples.

    Raises:
      UsageError: if the folder holds no subspace, is damaged or too large for the memory of this machine, does not fit
        ``like``, or holds a subspace of another class than the library's and ``subspace`` is missing or another one.
    """
    place = located(folder, "folder")
    stored, content = check(place)
    try:
        found = subspace_maps.from_json(content["subspace"], subspace, str(place))
        endpoints = saved.read(stored, None if like is None else _stacked(like, stored, found.num_endpoints), "")
        if tree.num_endpoints(endpoints) != found.num_endpoints:
            raise Mismatch(f"it has not the {found.num_endpoints} endpoints that its map says")
        return SavedSubspace(endpoints, found, subspace_record.layers_of(content, endpoints), content)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{place} is damaged: {error}. {_FIX}") from error


def check(place: pathlib.Path) -> tuple[Stored, dict[str, Any]]:
    """The endpoints of a folder, before an array is read, and the content of their map.

    Raises:
      UsageError: if the folder holds no subspace, or its files are damaged.
    """
    if not (place / ENDPOINTS).is_file():
        raise UsageError(f"{place} holds no subspace: it has no {ENDPOINTS}. See jsubspace.save_subspace.")
    stored = leaf_files.find(place / ENDPOINTS)
    return stored, _content(place, stored)


def _content(place: pathlib.Path, stored: Stored) -> dict[str, Any]:
    """The map of the endpoints that are in the folder. A killed process may have left the map of the endpoints before them."""
    digest = _read_text(place, stored.texts.get(network_files.DIGEST, "null"))
    if (place / MAP).is_file():
        content: dict[str, Any] = documents.read(place / MAP, _MAP_BYTES, _FIX, subspace_record.SCHEMA)
        if content.get(subspace_record.DIGEST) == digest:
            return content
    if _TEXT not in stored.texts:
        raise UsageError(f"{place / MAP} is missing, or belongs to other endpoints than {ENDPOINTS} beside it. {_FIX}")
    content = _read_text(place, stored.texts[_TEXT])
    try:
        subspace_record.SCHEMA.check(content, "its map")
    except Mismatch as error:
        raise UsageError(f"{place / ENDPOINTS} is damaged: {error}. {_FIX}") from error
    return content | {subspace_record.DIGEST: digest}


def _read_text(place: pathlib.Path, text: str) -> Any:
    try:
        return documents.from_json(text)
    except ValueError as error:
        raise UsageError(f"{place / ENDPOINTS} is damaged: its metadata is no JSON ({error}). {_FIX}") from error


def _stacked(like: Params, stored: Stored, m: int) -> Endpoints:
    """The shapes of endpoints of networks like this one, with the rows that the file has for every leaf."""
    entries = named_leaves.entries(like)
    shapes = {}
    for entry in entries:
        if entry.kind == named_leaves.KEY:
            raise UsageError(f"like has a PRNG key at {entry.place}, but it must be one network: the parameters alone.")
        if entry.kind == named_leaves.ARRAY:
            found = stored.shapes.get(entry.name)
            rows = found.shape[0] if found is not None and found.shape else m
            shapes[entry.name] = jax.ShapeDtypeStruct((rows, *entry.array.shape), entry.array.dtype)
    return axis_names.added(named_leaves.with_arrays(like, entries, shapes, {}))


def _check_finite(endpoints: Endpoints) -> None:
    for entry in named_leaves.entries(endpoints):
        if entry.kind == named_leaves.ARRAY and not np.isfinite(np.asarray(entry.array)).all():
            raise ValueError(
                f"the endpoints are not finite: the leaf {entry.name} holds NaN or infinity. Train them again, with a lower rate."
            )
