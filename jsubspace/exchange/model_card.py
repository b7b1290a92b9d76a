"""The card of a saved subspace: a README in the form of the Hugging Face Hub, with the picture over alpha."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from jsubspace import arguments, shown
from jsubspace.exchange import subspace_maps
from jsubspace.storage import files

CARD, PICTURE = "README.md", "alpha.png"

_TAGS = ("jsubspace", "jax", "weight-averaging")

_BATCH_NORM = {
    None: "The files do not say whether the network has BatchNorm.",
    "none": "The network has no BatchNorm.",
    "reestimate": "The network has BatchNorm. Every point needs statistics of its own, from a pass over training data "
    "(`jsubspace.reestimate_batch_stats`). The files hold no statistics.",
}


def header(content: Mapping[str, Any], card: Mapping[str, Any] | None) -> str:
    """The header in YAML, as the Hub reads it. Every value is written as JSON, which YAML includes.

    Raises:
      ValueError: if a field is not text or a list of text, or has the name of a field that is made here.
    """
    fields: dict[str, Any] = {"library_name": "jsubspace"}
    given = {} if card is None else card
    if not isinstance(given, Mapping):
        raise ValueError(
            f'card is {arguments.described(card)}, but it must be fields, as in {{"license": "apache-2.0"}}.'
        )
    for name, value in given.items():
        texts = list(value) if isinstance(value, list | tuple) else [value]
        if not isinstance(name, str) or not name.isidentifier() or name in fields:
            raise ValueError(f"card has the field {name!r}, but a field is a word, and library_name is taken.")
        if not texts or not all(isinstance(text, str) and text and shown.is_plain(text) for text in texts):
            raise ValueError(
                f"card[{name!r}] is {arguments.described(value)}, but it must be a line of text, or a list of lines."
            )
        fields[name] = texts if isinstance(value, list | tuple) else value
    tags = fields.pop("tags", [])
    fields["tags"] = list(dict.fromkeys([*_TAGS, *([tags] if isinstance(tags, str) else tags)]))
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def draw(path: pathlib.Path, report: Any) -> bool:
    """Draws the picture of a report, and returns whether there is one. Without a report, an older picture is removed.

    Raises:
      OSError: if the picture cannot be written.
    """
    if report is not None:
        try:
            report.plot(path)
        except ModuleNotFoundError:  # Without matplotlib, the card has its table alone.
            files.remove(path)
            return False
        return True
    files.remove(path)
    return False


def body(content: Mapping[str, Any], report: Any, has_picture: bool) -> str:
    """The card below its header, in Markdown."""
    subspace, m = content["subspace"], content["subspace"]["num_endpoints"]
    networks = "one network" if m == 1 else f"{m} networks"
    parts = [
        f"# {shown.cell(subspace_maps.described(subspace))} of {networks}",
        f"`endpoints.safetensors` holds {networks}, stacked along the first axis of every array. `subspace.json` says how a "
        "position alpha gives one weight to each of them. The sum of the networks, each times its weight, is a network of the same "
        "kind.",
    ]
    if has_picture:
        parts.append(f"![The score over alpha]({PICTURE})")
    if report is not None:
        parts.append(
            f"## Scores on {content['report'].get('data', 'test')} data\n\n```text\n{shown.escaped(report.table())}\n```"
        )
    parts.append(f"## Use a network\n\n{_use(subspace)}\n\n{_BATCH_NORM[content['batch_norm']]}")
    if content["normalization"]:
        mean, std = content["normalization"]["mean"], content["normalization"]["std"]
        parts.append(f"Inputs are normalised: subtract {mean}, then divide by {std}.")
    if content["shared"]:
        names = ", ".join(f"`{shown.cell(name)}`" for name in content["shared"][:10])
        more = f" and {len(content['shared']) - 10} more" if len(content["shared"]) > 10 else ""
        parts.append(f"All endpoints share these arrays, which have one row: {names}{more}.")
    if content["layers"]:
        parts.append("The subspace was trained layerwise: every layer may have an alpha of its own.")
    facts = "\n".join(f"- {name}: {shown.cell(text)}" for name, text in content["provenance"].items())
    return "\n\n".join([*parts, f"## Provenance\n\n{facts}"]) + "\n"


def _use(subspace: Mapping[str, Any]) -> str:
    own = "" if subspace["class"] in subspace_maps.CLASSES else f", subspace={subspace['class'].rpartition('.')[2]}()"
    alpha = subspace["positions"][0]["alpha"]
    return (
        "```python\nimport jsubspace\n\n"
        f'found = jsubspace.load_subspace("path/to/this/folder"{own})\n'
        f"network = jsubspace.interpolate(found.endpoints, {alpha}, found.subspace)\n```\n\n"
        f"alpha = {alpha} is the center. No other library is needed to read the files: the guide on files of jsubspace has a reader "
        "in numpy alone."
    )
