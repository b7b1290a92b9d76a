"""What a method is called in tables and figures."""

from typing import Any


def name_of(config: dict[str, Any]) -> str:
    """What a run trained, in a few words, from its config as results.json has it.

    Example:
      >>> from jsubspace.runs import config
      >>> name_of(config.default().to_dict())
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
