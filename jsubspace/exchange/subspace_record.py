"""What ``subspace.json`` says of endpoints: their map, shared leaves, layers, BatchNorm, inputs, measurements, provenance."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

import jsubspace
from jsubspace import arguments, tree
from jsubspace.exchange import named_leaves, subspace_maps
from jsubspace.layer_names import ScannedLayers, check_layers, check_lengths
from jsubspace.storage import documents
from jsubspace.storage.schema import Either, Listed, Mismatch, Named, Nullable, Number, OneOf, Record, Text, Whole
from jsubspace.subspaces import Subspace
from jsubspace.types import Endpoints, LayerNames

FORMAT, VERSION = "jsubspace-subspace", 1

NO_BATCH_NORM, REESTIMATE = "none", "reestimate"
"""Policies of BatchNorm: the network has no BatchNorm, or every point needs statistics from training batches."""

DIGEST = "digest"

_LONG = Text(longest=2**16)

_LAYER = Record({"leaf": _LONG, "layer": Either((OneOf(("",)), _LONG, Whole())), "length": Nullable(Whole(1))})

SCHEMA = Record(
    {
        "format": OneOf((FORMAT,)),
        "version": OneOf((VERSION,)),
        "subspace": subspace_maps.SCHEMA,
        "shared": Listed(_LONG),
        "layers": Nullable(Listed(_LAYER)),
        "batch_norm": Nullable(OneOf((NO_BATCH_NORM, REESTIMATE))),
        "normalization": Nullable(Record({"mean": Listed(Number(), 1), "std": Listed(Number(), 1)})),
        "report": Nullable(Record({})),
        "provenance": Named(Text()),
    },
    optional={DIGEST: Text("[0-9a-f]{64}")},
)


def make(
    endpoints: Endpoints,
    subspace: Subspace,
    report: Any,
    layers: LayerNames | None,
    batch_norm: str | None,
    normalization: Mapping[str, Sequence[float]] | None,
    commit: str,
) -> dict[str, Any]:
    """The content for arguments of `jsubspace.save_subspace`, without the digest.

    Raises:
      ValueError: if an argument is not as it must be.
    """
    if batch_norm is not None:
        arguments.one_of("batch_norm", batch_norm, (NO_BATCH_NORM, REESTIMATE))
    shared = tree.shared_leaves(endpoints)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "subspace": subspace_maps.to_json(subspace),
        "shared": [
            name for name, is_shared in zip(_names(endpoints), jax.tree.leaves(shared), strict=True) if is_shared
        ],
        "layers": _layers(layers, endpoints),
        "batch_norm": batch_norm,
        "normalization": _normalization(normalization),
        "report": _report(report, subspace.num_endpoints),
        "provenance": _provenance(commit),
    }
    SCHEMA.check(documents.from_json(documents.to_json(content)), "the content of subspace.json")
    return content


def layers_of(content: Mapping[str, Any], endpoints: Endpoints) -> LayerNames | None:
    """The names of layers that the content says, as a tree like the endpoints, or None.

    Raises:
      ValueError: if a leaf has no name.
    """
    if content["layers"] is None:
        return None
    found = {
        row["leaf"]: row["layer"] if row["length"] is None else ScannedLayers(**_scanned(row))
        for row in content["layers"]
    }
    names = _names(endpoints)
    if set(names) != set(found):
        raise Mismatch("its layers are not those layers that its endpoints have")
    return jax.tree.unflatten(jax.tree.structure(endpoints), [found[name] for name in names])


def _scanned(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": str(row["layer"]), "length": row["length"]}


def _names(endpoints: Endpoints) -> list[str]:
    return [entry.name for entry in named_leaves.entries(endpoints) if entry.kind == named_leaves.ARRAY]


def _layers(layers: LayerNames | None, endpoints: Endpoints) -> list[dict[str, Any]] | None:
    if layers is None:
        return None
    check_layers("layers", layers)
    if not tree.same_structure(layers, endpoints):
        raise ValueError(
            f"layers is no tree like the endpoints: {tree.difference(layers, endpoints)}. See jsubspace.layers."
        )
    check_lengths(layers, endpoints)
    rows = []
    for name, layer in zip(_names(endpoints), jax.tree.leaves(layers), strict=True):
        is_scanned = isinstance(layer, ScannedLayers)
        text = layer.name if is_scanned else int(layer) if isinstance(layer, np.integer) else layer
        rows.append({"leaf": name, "layer": text, "length": layer.length if is_scanned else None})
    return rows


def _normalization(given: Mapping[str, Sequence[float]] | None) -> dict[str, list[float]] | None:
    if given is None:
        return None
    if (
        isinstance(given, Mapping)
        and set(given) == {"mean", "std"}
        and all(map(arguments.are_real_numbers, given.values()))
    ):
        mean, std = (np.atleast_1d(np.asarray(given[name], np.float64)) for name in ("mean", "std"))
        if (
            mean.ndim == 1
            and mean.shape == std.shape
            and mean.size
            and np.isfinite([*mean, *std]).all()
            and std.min() > 0
        ):
            return {"mean": mean.tolist(), "std": std.tolist()}
    raise ValueError(
        f"normalization is {arguments.described(given)}, but it must be the numbers of each channel, as in "
        '{"mean": [0.5], "std": [0.25]}. They are finite, and std is above 0.'
    )


def _report(report: Any, m: int) -> dict[str, Any] | None:
    if report is None:
        return None
    if not all(callable(getattr(report, name, None)) for name in ("to_json", "table", "plot")) or isinstance(
        report, type
    ):
        raise ValueError(f"report is {arguments.described(report)}, but it must be a report of jsubspace.measure.")
    content: dict[str, Any] = report.to_json()
    if any(row["weights"] is not None and len(row["weights"]) != m for row in content["points"]):
        raise ValueError(f"report was measured of {content['subspace']}, and not of these {m} endpoints.")
    return content


def _provenance(commit: str) -> dict[str, str]:
    if not isinstance(commit, str):
        raise ValueError(f"commit is {arguments.described(commit)}, but it must be text.")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    found = {"library": "jsubspace", "version": jsubspace.__version__, "jax": jax.__version__, "date": now}
    return found | ({"commit": commit} if commit else {})
