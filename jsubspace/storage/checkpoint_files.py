"""What the documents of a checkpoint must hold, and its damage. The arrays are Orbax's (`checkpoint`)."""

import pathlib
from collections.abc import Sequence
from typing import Any

from jsubspace.storage import checksums, documents
from jsubspace.storage.schema import Anything, Named, Nullable, Number, Record, Schema, Whole

RANKED_BY = "accuracy"
"""The metric by which the best checkpoint is found. A larger value is better. Every task's main score is kept under this name,
with a minus if a lower score is better."""

POSITION = "position"
"""The name of the data's position in the notes, where the data is a stream."""

DOCUMENT_BYTES = 2**26
"""The largest size of a document. The longest one describes every leaf of the state in less than 1 kB."""

NOTES = Record(
    {},
    optional={
        "seconds": Nullable(Number(0)),  # An older version wrote a number that was not finite, which is None now.
        POSITION: Anything(),  # The reader of the data checks it.
        "journal": Record({"sums": Named(Number()), "count": Whole(0)}),
    },
)
"""The notes of a checkpoint: the seconds of training, the position of a stream of data, and the incomplete window of the log
(`Journal.state`)."""

METRICS = Record({}, optional={RANKED_BY: Nullable(Number())})
"""The scores of a checkpoint."""

_METRICS = "metrics/metrics"

_DECLARED: dict[str, Schema] = {
    _METRICS: METRICS,
    "notes/metadata": NOTES,
    "state/_METADATA": Record({}),
    "state/_sharding": Record({}),
}
"""The documents that the checksums cover. Orbax itself passes over a document of its own beside them that is damaged."""


def damage(folder: pathlib.Path) -> str | None:
    """The damage to a checkpoint, as a phrase for a message. None if its files are what was written, and its documents
    hold what they must."""
    if found := checksums.damage(folder):
        return found
    if not (folder / "state").is_dir():
        return "state is missing"
    return next(filter(None, (_wrong_document(folder, name) for name in _DECLARED)), None)


def wrong_metrics(folder: pathlib.Path) -> str | None:
    """The damage to the scores of a checkpoint, as a phrase for a message, or None. It is much quicker than `damage`."""
    return _wrong_document(folder, _METRICS)


def best_step(folder: pathlib.Path, steps: Sequence[int]) -> int | None:
    """The step with the best score among the checkpoints in a folder, or None if no checkpoint has a finite score."""
    scores = {step: _score(folder / str(step)) for step in steps}
    known = {step: score for step, score in scores.items() if score is not None}
    return max(known, key=lambda step: (known[step], step), default=None)


def seconds_of(notes: dict[str, Any]) -> float:
    """The seconds of training in the notes of a checkpoint, or 0 if the notes hold no such number."""
    return float(notes.get("seconds") or 0)


def _score(folder: pathlib.Path) -> float | None:
    """The score of a checkpoint by which it is ranked. None if it has no finite score, or a damaged one."""
    if wrong_metrics(folder) or not (folder / _METRICS).exists():
        return None
    metrics = documents.from_json(documents.read_bytes(folder / _METRICS, DOCUMENT_BYTES), nan_is_none=True)
    score: float | None = metrics.get(RANKED_BY)
    return score


def _wrong_document(folder: pathlib.Path, name: str) -> str | None:
    if not (folder / name).exists():
        return None
    try:
        content = documents.from_json(documents.read_bytes(folder / name, DOCUMENT_BYTES), nan_is_none=True)
        _DECLARED[name].check(content, name)
    except (ValueError, OSError) as error:
        return f"{name}: {error}"
    return None
