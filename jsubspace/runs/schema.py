"""The layout of results.json, and the conversion of files with the layout before it.

In schema 3 every point has a ``kind``, how it was chosen, and ``roles``, its place in the subspace. Every ensemble has a
``kind``, how its members were chosen. Schema 2 had only names, and `upgraded` derives kinds and roles from them.
"""

from typing import Any

SCHEMA = 3
"""Version of the layout of results.json."""


class OtherSchema(ValueError):
    """The results have a schema that this version cannot read."""


def upgraded(results: dict[str, Any]) -> dict[str, Any]:
    """Results of schema 2 or 3 in the layout of schema 3.

    Raises:
      OtherSchema: for another schema.
      KeyError, TypeError: if something is missing that every results.json has.
    """
    schema = results["schema"]
    if schema == SCHEMA:
        _check(results)
        return {"validation": None} | results
    if schema != 2:
        raise OtherSchema(f"schema {schema!r}, and this version reads {SCHEMA} and 2")
    is_path = any(_is_on_grid(row["name"]) for row in results["points"])
    shifted = {name: _rows(found, results["midpoint"], is_path) for name, found in results["shifted"].items()}
    return (
        {"finished": True, "early_stopping": None, "validation": None}
        | results
        | _rows(results, results["midpoint"], is_path)
        | {"schema": SCHEMA, "shifted": shifted}
    )


def _check(results: dict[str, Any]) -> None:
    for row in results["points"]:
        row["name"], row["kind"], row["roles"]
    for row in results["ensembles"]:
        row["name"], row["kind"], row["members"]
    results["finished"], results["predictors"], results["midpoint"]


def _rows(measured: dict[str, Any], midpoint: str, is_path: bool) -> dict[str, Any]:
    """Points and ensembles with their kinds and roles."""
    grid = [row["name"] for row in measured["points"] if _is_on_grid(row["name"])]
    corners = [row["name"] for row in measured["points"] if row["name"].startswith("corner ")]
    ends = {grid[0], grid[-1]} if is_path else set(corners)

    def point(row: dict[str, Any]) -> dict[str, Any]:
        roles = [*(["center"] if row["name"] == midpoint else []), *(["end"] if row["name"] in ends else [])]
        return {"name": row["name"], "kind": _kind_of_point(row["name"]), "roles": roles} | row

    def ensemble(row: dict[str, Any]) -> dict[str, Any]:
        return {"name": row["name"], "kind": _kind_of_ensemble(row, ends, set(grid))} | row

    return {"points": [*map(point, measured["points"])], "ensembles": [*map(ensemble, measured["ensembles"])]}


def _is_on_grid(name: str) -> bool:
    return name[:1].isdigit()


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
