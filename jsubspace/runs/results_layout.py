"""What results.json must hold: every field that a table, a figure, a comparison or a program reads.

docs/results.md explains the fields. `LAYOUTS` declares them for each schema that can be read, and `check` adds the rules
between fields.
"""

from typing import Any

from jsubspace.evaluation.positions import CENTER_ROLE
from jsubspace.evaluation.tasks import Classification
from jsubspace.storage.schema import (
    Either,
    Flag,
    Listed,
    Mismatch,
    Named,
    Nullable,
    Number,
    OneOf,
    Record,
    Schema,
    Text,
    Whole,
    check_shape,
)

_NUMBER = Nullable(Number())
"""A number that was measured. It is null if it was not finite."""

_PAIR = Listed(_NUMBER, 2, 2)

_TABLE = Listed(Listed(_NUMBER))

_OFTEN = ("accuracy", "nll", "brier", "ece")

_SCORES = Record(
    dict.fromkeys(_OFTEN, _NUMBER),
    optional=dict.fromkeys(Classification.higher_is_better, _NUMBER) | {"intervals": Named(_PAIR)},
)
"""The scores of a row. Older files lack those that were added later."""

_NAME = Text(longest=200)

_ALPHA = Nullable(Either((Number(), Listed(_NUMBER), _TABLE)))

_POINT = _SCORES.extended({"name": _NAME, "alpha": _ALPHA})

_ENSEMBLE = Record(
    {
        "name": _NAME,
        "members": Listed(_NAME, 1),
        "mean_probability": _SCORES,
        "mean_logit": _SCORES,
        "tv_distance": _NUMBER,
        "disagreement": _NUMBER,
        "feature_cosine_squared": _NUMBER,
    }
)

_PREDICTOR = Record(
    {"name": _NAME, "networks": Whole(1), "accuracy": _NUMBER}, optional={**_SCORES.required, **_SCORES.optional}
)

_STOPPED = Record(
    {"epoch": Number(0), "accuracy": Number()},
    optional=dict.fromkeys(Classification.higher_is_better, _NUMBER) | {"tested_on": OneOf(("test", "validation"))},
)

_GEOMETRY = Record({"l2": _TABLE, "cosine_squared": _TABLE})

_CONNECTOR = Record(
    {
        "difference": _NUMBER,
        "interval": _PAIR,
        "verdict": Text(),
        "tolerance": Number(),
        "barrier": _NUMBER,
        "barrier_at": _NAME,
    },
    optional={"draws": Nullable(Whole(0)), "barrier_interval": Nullable(_PAIR)},
)

_RELIABILITY = Record({"count": Listed(Number(0), 1), "confidence": Listed(_NUMBER, 1), "accuracy": Listed(_NUMBER, 1)})

_PLANE = Record({"corners": Listed(_PAIR), "x": Listed(Number(), 2), "y": Listed(Number(), 2), "accuracy": _TABLE})

_SHARPNESS = Named(Record({"eigenvalue": _NUMBER, "residual": _NUMBER}))


def _subspace(point: Record, ensemble: Record) -> dict[str, Schema]:
    return {
        "endpoints": Record({}, optional=dict.fromkeys(("kernels", "all_leaves"), Nullable(_GEOMETRY))),
        "points": Listed(point, 1),
        "midpoint": _NAME,
        "ensembles": Listed(ensemble),
        "reliability": _RELIABILITY,
        "connector": Nullable(_CONNECTOR),
    }


def _layout(point: Record, ensemble: Record) -> Record:
    """The fields that every schema has."""
    measured: dict[str, Schema] = {
        "predictors": Listed(_PREDICTOR, 1),
        "sharpness": Nullable(_SHARPNESS),
        "plane": Nullable(_PLANE),
        "shifted": Named(Record({"points": Listed(point, 1), "ensembles": Listed(ensemble)})),
    }
    return Record(_subspace(point, ensemble) | measured)


_KIND: dict[str, Schema] = {"kind": Text(longest=30)}

_POINT_3, _ENSEMBLE_3 = _POINT.extended(_KIND | {"roles": Listed(Text())}), _ENSEMBLE.extended(_KIND)

_CHOSEN = Record(_subspace(_POINT_3, _ENSEMBLE_3) | {"best": Nullable(_NAME)})

LAYOUTS = {
    3: _layout(_POINT_3, _ENSEMBLE_3).extended(
        {"finished": Flag(), "early_stopping": Nullable(_STOPPED)}, {"validation": Nullable(_CHOSEN)}
    ),
    2: _layout(_POINT, _ENSEMBLE).extended({}, {"finished": Flag(), "early_stopping": Nullable(_STOPPED)}),
}
"""The declared fields, by the schema of the file."""


def check(results: dict[str, Any]) -> None:
    """Checks the rules between the fields of results of schema 3 that `LAYOUTS` has accepted.

    Raises:
      Mismatch: if a rule is broken.
    """
    sets = {"results": results, **{f"shifted.{name}": found for name, found in results["shifted"].items()}}
    if results["validation"]:
        sets["validation"] = results["validation"]
    for place, found in sets.items():
        if not any(CENTER_ROLE in row["roles"] for row in found["points"]):
            raise Mismatch(f"{place}.points has no point with the role {CENTER_ROLE!r}")
        for geometry in filter(None, found.get("endpoints", {}).values()):
            for matrix in (geometry["l2"], geometry["cosine_squared"]):
                check_shape(matrix, (len(geometry["l2"]),) * 2, f"{place}.endpoints")
        if "reliability" in found and len({len(found["reliability"][name]) for name in _RELIABILITY.required}) > 1:
            raise Mismatch(f"{place}.reliability has lists of different lengths")
    if plane := results["plane"]:
        check_shape(plane["accuracy"], (len(plane["y"]), len(plane["x"])), "plane.accuracy")
    best = (results["validation"] or {}).get("best")
    if best is not None and best not in [row["name"] for row in results["points"]]:
        raise Mismatch(f"validation.best is {best!r}, which is not the name of a point")
