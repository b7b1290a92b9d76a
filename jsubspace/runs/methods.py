"""What a method is called in tables and figures."""

from typing import Any

from jsubspace.runs.settings import NAMED, added_later, flat, may_differ_between_compared_runs

NEEDED = (
    "seed", "data.name", "evaluation.num_bins", "model.dropout_rate",
    "subspace.name", "subspace.num_endpoints", "subspace.layerwise", "subspace.fixed_ends",
    "optimizer.schedule", "optimizer.num_collected", "optimizer.num_epochs",
    "optimizer.label_smoothing", "optimizer.sam_rho",
    "start.runs", "start.epoch",
)  # fmt: skip
"""The settings without which results have no name, or cannot be compared."""


def needed(settings: Any) -> tuple[str, ...]:
    """The settings without which results have no name. A problem of one's own lacks the settings of images."""
    of_a_problem = isinstance(settings, dict) and isinstance(settings.get("problem"), dict)
    return tuple(name for name in NEEDED if not (of_a_problem and NAMED[name].of_images))


def data_of(settings: dict[str, Any]) -> str:
    """The data set that a run was tested on, by its name. The data of a problem of one's own has no name."""
    return str(settings["data"]["name"]) if "data" in settings else "of a problem of one's own"


def name_of(settings: dict[str, Any]) -> str:
    """What a run trained, in a few words, from its settings as results.json has them.

    Example:
      >>> from jsubspace.runs import recipes
      >>> name_of(recipes.digits_cresnet8("line").to_dict())
      'line'
    """
    subspace, optimizer, start = settings["subspace"], settings["optimizer"], settings["start"]
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
    if subspace.get("pull_back") == "center":  # Results of older versions do not have it.
        words += ", center rate"
    if subspace.get("spread_growth"):
        words += ", growing spread"
    named = {"adamw": "AdamW", "muon": "Muon", "lion": "Lion", "problem": "an optimizer of its own"}
    if optimizer.get("name") in named:
        words += f", {named[optimizer['name']]}"
    if start["runs"]:
        runs = len(start["runs"].split(","))
        if optimizer["num_epochs"] == 0:
            return f"{runs} runs stacked"
        words += f", from epoch {start['epoch']} of a run" if start["epoch"] else f", from {runs} runs"
    if start.get("network"):
        words += ", around a network" if start["role"] == "origin" else ", from a network"
    if subspace["fixed_ends"]:
        words += ", ends fixed"
    extras = {
        "dropout": settings.get("model", {}).get("dropout_rate"),
        "label smoothing": optimizer.get("label_smoothing"),
        "SAM": optimizer["sam_rho"],
        "clipping": optimizer.get("clip_norm"),
        "EMA": optimizer.get("ema_decay"),
    }
    return ", ".join([words, *(f"{name} {given:g}" for name, given in extras.items() if given)])


_EVERYWHERE = ("evaluation.num_bins", "evaluation.num_stats_batches")
"""Settings that change the scores of every method. If they differ at all, every method is named with its own."""


def names_of(runs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The method of each run. Methods with one name are told apart by the settings that differ, of training and evaluation.

    Runs that were evaluated differently are therefore two methods, and their scores are never averaged.

    Args:
      runs: the settings of each run, by the run's folder.
    """
    # A run of an older version lacks the settings that were added later, and had their defaults.
    later = {name: NAMED[name].default for name in added_later()}
    fields = {run: later | flat(settings) for run, settings in runs.items()}
    short = {run: name_of(settings) for run, settings in runs.items()}
    may_differ = may_differ_between_compared_runs()
    names = {}
    for run, name in short.items():
        alike = [fields[other] for other in fields if short[other] == name]
        differing = [
            field
            for field in fields[run]
            if field not in may_differ
            and len({str(a.get(field)) for a in (fields.values() if field in _EVERYWHERE else alike)}) > 1
        ]
        names[run] = ", ".join([name, *(f"{field} = {fields[run][field]}" for field in differing)])
    return names
