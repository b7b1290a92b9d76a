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
from jsubspace.storage.writer import write_json

RESULTS = "results.json"
SCHEMA = 2
"""Version of the layout of results.json."""


def describe(config: ml_collections.ConfigDict, measured: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """The content of results.json: settings and circumstances in front of what was measured.

    schema: `SCHEMA`. config: all settings. versions, devices: what it ran with. seconds: of training, over interruptions,
    and of evaluation. Then what `results.measure` returns; early_stopping, the best test on the way (`results.early_stopping`);
    and finished: whether training had come to its end.
    """
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


def write(workdir: pathlib.Path, results: dict[str, Any]) -> dict[str, Any]:
    """Writes results.json; returns what it holds now, with lists where there were tuples."""
    write_json(workdir / RESULTS, results)
    return json.loads((workdir / RESULTS).read_text(encoding="utf-8"))


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


def is_finished(results: dict[str, Any]) -> bool:
    """Whether training had come to its end when these results were measured. Old results do not say so, and are."""
    return bool(results.get("finished", True))


def table(results: dict[str, Any]) -> str:
    """The results for a terminal: a row a point, and what its ensemble adds."""
    lines = ["point          accuracy     NLL   Brier     ECE"]
    for row in results["points"]:
        mark = "  <- midpoint" if row["name"] == results["midpoint"] and len(results["points"]) > 1 else ""
        lines.append(f"{row['name']:<14} {_scores(row)}{mark}")
    if results["ensembles"]:
        lines += ["", "ensemble       accuracy     NLL   Brier     ECE   TV dist.  disagree  feature cos^2"]
    for row in results["ensembles"]:
        lines.append(
            f"{row['name']:<14} {_scores(row['mean_probability'])}   {row['tv_distance']:7.4f}  "
            f"{row['disagreement']:8.4f}  {row['feature_cosine_squared']:13.4f}"
        )
    kernels = results["endpoints"]["kernels"]
    l2, cosine = kernels["l2"], kernels["cosine_squared"]
    pairs = [(i, j) for i in range(len(l2)) for j in range(i + 1, len(l2))]
    if pairs:
        lines += ["", "kernels of     L2 distance    cos^2"]
        lines += [f"{f'{i + 1} & {j + 1}':<14} {l2[i][j]:11.3f}  {cosine[i][j]:.2e}" for i, j in pairs]
    if connector := results["connector"]:
        low, high = connector["interval"]
        lines += [
            "",
            f"connector: {connector['verdict']}. Mean accuracy along it minus that of its ends {connector['difference']:+.4f} "
            f"(95 % interval {low:+.4f} to {high:+.4f}, tolerance {connector['tolerance']}); barrier "
            f"{connector['barrier']:.4f} at {connector['barrier_at']}.",
        ]
    if best := results["early_stopping"]:
        lines += ["", f"best test of the midpoint: accuracy {best['accuracy']:.4f} after epoch {best['epoch']:g}"]
    for name, found in (results["sharpness"] or {}).items():
        lines += ["", f"largest eigenvalue of the Hessian at {name}: {found['eigenvalue']:.4g}"]
    for name, shifted in results["shifted"].items():
        best = max(shifted["points"], key=lambda row: row["accuracy"])
        midpoint = next(row for row in shifted["points"] if row["name"] == results["midpoint"])
        lines += ["", f"{name}: midpoint {midpoint['accuracy']:.4f}, best at {best['name']} {best['accuracy']:.4f}"]
    return "\n".join(lines)


def method(config: dict[str, Any]) -> str:
    """What a run trained, in a few words, from its config as results.json has it.

    Example:
      >>> from jsubspace import config
      >>> method(config.default().to_dict())
      'line'
    """
    subspace, optimizer, start = config["subspace"], config["optimizer"], config["start"]
    names = {
        "swa_cyclic": "SWA, cyclic",
        "swa_constant": "SWA, constant",
        "snapshot": "snapshots",
        "fast_geometric": "fast geometric",
    }
    words = names.get(optimizer["schedule"], {"point": "standard"}.get(subspace["name"], subspace["name"]))
    if subspace["name"] == "simplex":
        words += f", m = {subspace['num_endpoints']}"
    if optimizer["num_collected"]:
        words += f", m = {optimizer['num_collected']}"
    if subspace["layerwise"]:
        words += ", layerwise"
    if start["runs"]:
        runs = len(start["runs"].split(","))
        if optimizer["num_epochs"] == 0:
            return f"{runs} runs stacked"
        words += f", from epoch {start['epoch']} of a run" if start["epoch"] else f", from {runs} runs"
    if subspace["fixed_ends"]:
        words += ", ends fixed"
    extras = {
        "dropout": config["model"]["dropout_rate"],
        "label smoothing": optimizer["label_smoothing"],
        "SAM": optimizer["sam_rho"],
    }
    return ", ".join([words, *(f"{name} {given:g}" for name, given in extras.items() if given)])


def _scores(row: dict[str, float]) -> str:
    return f"{row['accuracy']:8.4f}  {row['nll']:6.4f}  {row['brier']:6.4f}  {row['ece']:6.4f}"
