"""What results.json must hold: every field that a table, a figure, a comparison or a program reads.

docs/results.md explains the fields. `layout_of` declares them for each schema that can be read, and `check` adds the rules
between fields. Results without a field ``task`` are of a classification.
"""

from typing import Any

from jsubspace import shown
from jsubspace.evaluation import score_names
from jsubspace.evaluation.positions import CENTER_ROLE
from jsubspace.evaluation.tasks.checks import is_name
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

_TASK = Record(
    {
        "name": Text(longest=200),
        "main": Text(longest=40),
        "higher_is_better": Named(Nullable(Flag())),
        "fractions": Listed(Text(longest=40)),
    }
)

_NAME = Text(longest=200)

_ALPHA = Nullable(Either((Number(), Listed(_NUMBER), _TABLE)))

_GEOMETRY = Record({"l2": _TABLE, "cosine_squared": _TABLE})

_LEAVES = ("kernels", "all_leaves")

_CONNECTOR = Record(
    {
        "difference": _NUMBER,
        "interval": _PAIR,
        "verdict": Text(),
        "tolerance": Number(),
        "barrier": _NUMBER,
        "barrier_at": _NAME,
    },
    optional={"draws": Nullable(Whole(0)), "barrier_interval": Nullable(_PAIR), "score": Text(longest=40)},
)

_RELIABILITY = Record({"count": Listed(Number(0), 1), "confidence": Listed(_NUMBER, 1), "accuracy": Listed(_NUMBER, 1)})

_SHARPNESS = Named(Record({"eigenvalue": _NUMBER, "residual": _NUMBER}))


_KIND: dict[str, Schema] = {"kind": Text(longest=30)}


def layout_of(results: Any) -> Record | None:
    """The declared fields of results, or None if this version does not read their schema.

    Raises:
      Mismatch: if the fields ``schema`` or ``task`` are not what they must be.
    """
    Record({"schema": Whole()}).check(results, "results")
    if results["schema"] not in (2, 3):
        return None
    if results.get("task") is None:
        return _layout(results["schema"], None)
    _TASK.check(results["task"], "results.task")
    if strange := [score for score in results["task"]["higher_is_better"] if not is_name(score)]:
        raise Mismatch(f"results.task has a score {shown.escaped(strange[0], lines=False)!r}, which is no name")
    if len(results["task"]["higher_is_better"]) > 100:
        raise Mismatch("results.task has more than 100 scores")
    if results["task"]["higher_is_better"].get(results["task"]["main"]) is None:
        raise Mismatch("results.task.main is not one of its scores")
    return _layout(results["schema"], results["task"])


def _layout(schema: int, task: dict[str, Any] | None) -> Record:
    """The fields of a schema, for the scores of a task. None is a classification."""
    main, names = score_names.main({"task": task}), score_names.higher_is_better({"task": task})
    scores = Record(
        dict.fromkeys(_OFTEN if task is None else names, _NUMBER),
        optional=dict.fromkeys(names, _NUMBER) | {"intervals": Named(_PAIR)},  # Older files lack some.
    )
    kind = _KIND if schema == 3 else {}
    of_point: dict[str, Schema] = {"name": _NAME, "alpha": _ALPHA, **kind}
    if schema == 3:
        of_point["roles"] = Listed(Text())
    point = scores.extended(of_point)
    ensemble = Record({"name": _NAME, "members": Listed(_NAME, 1), "mean_probability": scores}).extended(kind)
    if task is None:
        differences = dict.fromkeys(("tv_distance", "disagreement", "feature_cosine_squared"), _NUMBER)
        ensemble = ensemble.extended({"mean_logit": scores, **differences})
    optional: dict[str, Schema] = {**scores.required, **scores.optional}
    predictor = Record({"name": _NAME, "networks": Whole(1), main: _NUMBER}, optional=optional)
    tested: dict[str, Schema] = {"tested_on": OneOf(("test", "validation"))}
    stopped = Record({"epoch": Number(0), main: Number()}, optional=dict.fromkeys(names, _NUMBER) | tested)
    at_the_end: dict[str, Schema] = {"finished": Flag(), "early_stopping": Nullable(stopped)}
    plane = Record({"corners": Listed(_PAIR), "x": Listed(Number(), 2), "y": Listed(Number(), 2), main: _TABLE})
    subspace: dict[str, Schema] = {
        "endpoints": Record({}, optional=dict.fromkeys(_LEAVES, Nullable(_GEOMETRY))),
        "points": Listed(point, 1),
        "midpoint": _NAME,
        "ensembles": Listed(ensemble),
        "connector": Nullable(_CONNECTOR),
    }
    if task is None:
        subspace["reliability"] = _RELIABILITY
    measured: dict[str, Schema] = {
        **subspace,
        "predictors": Listed(predictor, 1),
        "sharpness": Nullable(_SHARPNESS),
        "plane": Nullable(plane),
        "shifted": Named(Record({"points": Listed(point, 1), "ensembles": Listed(ensemble)})),
    }
    later: dict[str, Schema] = {"test_digest": Nullable(Text("[0-9a-f]{64}"))}
    if schema == 2:
        return Record(measured, at_the_end | later)
    later["validation"] = Nullable(Record(subspace | {"best": Nullable(_NAME)}))
    return Record(measured).extended(at_the_end, later)


def check(results: dict[str, Any]) -> None:
    """Checks the rules between the fields of results of schema 3 that `layout_of` has accepted.

    Raises:
      Mismatch: if a rule is broken.
    """
    sets = {"results": results, **{f"shifted.{name}": found for name, found in results["shifted"].items()}}
    if results["validation"]:
        sets["validation"] = results["validation"]
    for place, found in sets.items():
        if not any(CENTER_ROLE in row["roles"] for row in found["points"]):
            raise Mismatch(f"{place}.points has no point with the role {CENTER_ROLE!r}")
        endpoints = found.get("endpoints", {})
        for geometry in filter(None, map(endpoints.get, _LEAVES)):
            for matrix in (geometry["l2"], geometry["cosine_squared"]):
                check_shape(matrix, (len(geometry["l2"]),) * 2, f"{place}.endpoints")
        if "reliability" in found and len({len(found["reliability"][name]) for name in _RELIABILITY.required}) > 1:
            raise Mismatch(f"{place}.reliability has lists of different lengths")
    if plane := results["plane"]:
        main = score_names.main(results)
        check_shape(plane[main], (len(plane["y"]), len(plane["x"])), f"plane.{main}")
    best = (results["validation"] or {}).get("best")
    if best is not None and best not in [row["name"] for row in results["points"]]:
        raise Mismatch(f"validation.best is {best!r}, which is not the name of a point")
