"""The layout of results.json, and the conversion of files with the layout before it.

In schema 3 every point has a ``kind``, how it was chosen, and ``roles``, its place in the subspace. Every ensemble has a
``kind``, how its members were chosen. Schema 2 had only names, and `upgraded` derives kinds and roles from them.
"""

import string
from typing import Any

from jsubspace.runs import results_layout

SCHEMA = 3
"""Version of the layout of results.json."""


class OtherSchema(ValueError):
    """The results have a schema that this version cannot read."""


def upgraded(results: Any) -> dict[str, Any]:
    """Results of schema 2 or 3 in the layout of schema 3.

    Raises:
      OtherSchema: for another schema.
      Mismatch: if a field is missing or is not what `results_layout` declares.
    """
    layout = results_layout.layout_of(results)
    if layout is None:
        raise OtherSchema(f"schema {results['schema']!r}, and this version reads {SCHEMA} and 2")
    layout.check(results, "results")
    results = {"finished": True, "early_stopping": None, "validation": None} | results
    if results["schema"] != SCHEMA:
        results = _from_schema_2(results)
    results_layout.check(results)
    return results


def _from_schema_2(results: dict[str, Any]) -> dict[str, Any]:
    is_path = any(_is_on_grid(row["name"]) for row in results["points"])
    shifted = {name: _rows(found, results["midpoint"], is_path) for name, found in results["shifted"].items()}
    return results | _rows(results, results["midpoint"], is_path) | {"schema": SCHEMA, "shifted": shifted}


def _rows(measured: dict[str, Any], midpoint: str, is_path: bool) -> dict[str, Any]:
    """Points and ensembles with their kinds and roles."""
    grid = [row["name"] for row in measured["points"] if _is_on_grid(row["name"])]
    corners = [row["name"] for row in measured["points"] if row["name"].startswith("corner ")]
    ends = {*grid[:1], *grid[-1:]} if is_path else set(corners)

    def point(row: dict[str, Any]) -> dict[str, Any]:
        roles = [*(["center"] if row["name"] == midpoint else []), *(["end"] if row["name"] in ends else [])]
        return {"name": row["name"], "kind": _kind_of_point(row["name"]), "roles": roles} | row

    def ensemble(row: dict[str, Any]) -> dict[str, Any]:
        return {"name": row["name"], "kind": _kind_of_ensemble(row, ends, set(grid))} | row

    return {"points": [*map(point, measured["points"])], "ensembles": [*map(ensemble, measured["ensembles"])]}


def _is_on_grid(name: str) -> bool:
    return name[0] in string.digits


def _kind_of_point(name: str) -> str:
    first = name.split()[0]
    if _is_on_grid(name):
        return "grid"
    return "listed" if first == "at" else first


def _kind_of_ensemble(row: dict[str, Any], ends: set[str], grid: set[str]) -> str:
    members = row["members"]
    if set(members) == ends:
        return "ends"
    if set(members) <= grid:
        return "pair"
    return _kind_of_point(members[0])
