"""A run's results as a file, a table and figures."""

import json
import pathlib
import platform
from typing import Any

import flax
import jax
import ml_collections

import jsubspace
from jsubspace.errors import UsageError
from jsubspace.writer import write_json

RESULTS = "results.json"
SCHEMA = 1
"""Version of the layout of results.json."""


def describe(config: ml_collections.ConfigDict, measured: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """The content of results.json: settings and circumstances in front of what `evaluation.evaluate` measured."""
    devices = jax.devices()
    return {
        "schema": SCHEMA,
        "config": config.to_dict(),
        "versions": {
            "jsubspace": jsubspace.__version__,
            "jax": jax.__version__,
            "flax": flax.__version__,
            "python": platform.python_version(),
        },
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "seconds": seconds,
        **measured,
    }


def write(workdir: pathlib.Path, results: dict[str, Any]) -> None:
    """Writes results.json."""
    write_json(workdir / RESULTS, results)


def read(workdir: pathlib.Path) -> dict[str, Any] | None:
    """What results.json holds, or None if there is none.

    Raises:
      UsageError: if it is damaged.
    """
    path = workdir / RESULTS
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        results["points"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it, and the same command evaluates the run again."
        ) from error
    return results


def table(results: dict[str, Any]) -> str:
    """The results for a terminal: a row a point, and what its ensemble adds."""
    lines = ["point          accuracy     NLL     ECE"]
    for row in results["points"]:
        mark = "  <- midpoint" if row["name"] == results["midpoint"] and len(results["points"]) > 1 else ""
        lines.append(f"{row['name']:<14} {_scores(row)}{mark}")
    if results["ensembles"]:
        lines += ["", "ensemble       accuracy     NLL     ECE   TV dist.  disagree  feature cos^2"]
    for row in results["ensembles"]:
        lines.append(
            f"{row['name']:<14} {_scores(row['mean_probability'])}   {row['tv_distance']:7.4f}  "
            f"{row['disagreement']:8.4f}  {row['feature_cosine_squared']:13.4f}"
        )
    l2, cosine = results["endpoints"]["l2"], results["endpoints"]["cosine_squared"]
    pairs = [(i, j) for i in range(len(l2)) for j in range(i + 1, len(l2))]
    if pairs:
        lines += ["", "endpoints      L2 distance    cos^2"]
        lines += [f"{f'{i + 1} & {j + 1}':<14} {l2[i][j]:11.3f}  {cosine[i][j]:.2e}" for i, j in pairs]
    return "\n".join(lines)


def _scores(row: dict[str, float]) -> str:
    return f"{row['accuracy']:8.4f}  {row['nll']:6.4f}  {row['ece']:6.4f}"
