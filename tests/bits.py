"""What differs between two runs, to the bit: their metrics.jsonl, results.json and exported networks."""

import json
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

MEASURED = ("points", "ensembles", "endpoints", "reliability", "connector")
"""What results.json must have."""

MEASURED_BY_SOME = ("midpoint", "predictors", "early_stopping", "sharpness", "plane", "shifted", "subspace")
"""What is compared if both have it."""

FACTS = ("alpha", "weights", "mean", "std")
"""What is compared of the facts that go along with a network."""


def differences(base: pathlib.Path, here: pathlib.Path) -> list[str]:
    """Where two folders differ, each with ``run`` (of a training) and ``*.safetensors`` (its exports).

    Numbers that only ``here`` has are no difference: a newer revision may record more.

    Returns:
      The paths of the numbers that differ, with both values.
    """
    found = list(unequal(metrics(base / "run"), metrics(here / "run"), "metrics.jsonl"))
    found += unequal(results(base / "run"), results(here / "run"), "results.json")
    names, names_here = (sorted(path.name for path in folder.glob("*.safetensors")) for folder in (base, here))
    if names != names_here or not names:
        return [*found, f"the exports of the base are {names}, here {names_here}"]
    for name in names:
        found += unequal(network(base / name), network(here / name), name)
    return found


def metrics(run: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without their speed."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: row[name] for name in row if name != "images_per_second"} for row in rows]


def results(run: pathlib.Path) -> dict[str, Any]:
    """The measurements in results.json."""
    found = json.loads((run / "results.json").read_text(encoding="utf-8"))
    measured = {name: found[name] for name in MEASURED}
    return measured | {name: found[name] for name in MEASURED_BY_SOME if name in found}


def network(path: pathlib.Path) -> dict[str, Any]:
    """The arrays of a safetensors file as text, by name, and what must be equal of its facts."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    facts = header.pop("__metadata__")
    arrays = {}
    for name, array in header.items():
        start, end = array["data_offsets"]
        arrays[name] = {"dtype": array["dtype"], "shape": array["shape"], "bytes": body[start:end].hex()}
    return arrays | {name: json.loads(facts[name]) for name in FACTS}


def unequal(base: Any, here: Any, path: str) -> Iterator[str]:
    """The paths below ``path`` where ``here`` has not what ``base`` has.

    Rows of a list that all have a name are matched by it, whatever their order. Floats are equal if their bits are.

    Example:
      >>> base, here = [{"name": "a", "nll": 0.1}, {"name": "b", "nll": 2}], [{"name": "b", "nll": 2.0}, {"name": "a"}]
      >>> list(unequal(base, here, "points"))
      ['points.a.nll is missing']
    """
    if _named(base) and _named(here):
        base, here = ({row["name"]: row for row in rows} for rows in (base, here))
    if isinstance(base, dict) and isinstance(here, dict):
        for name in base:
            if name in here:
                yield from unequal(base[name], here[name], f"{path}.{name}")
            elif base[name] is not None and base[name] != {}:
                yield f"{path}.{name} is missing"
    elif isinstance(base, list) and isinstance(here, list):
        if len(base) != len(here):
            yield f"{path} has {len(base)} and {len(here)} items"
        for i, (one, other) in enumerate(zip(base, here, strict=False)):
            yield from unequal(one, other, f"{path}[{i}]")
    elif _bits(base) != _bits(here):
        yield f"{path} is {str(base)[:24]} and {str(here)[:24]}"


def _named(rows: Any) -> bool:
    return isinstance(rows, list) and all(isinstance(row, dict) and "name" in row for row in rows) and bool(rows)


def _bits(value: Any) -> Any:
    return float(value).hex() if isinstance(value, int | float) and not isinstance(value, bool) else value
