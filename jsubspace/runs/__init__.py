"""One run from its config to its results: ``jsubspace.runs.train(config, workdir)``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsubspace.runs.run import evaluate as evaluate
    from jsubspace.runs.run import train as train
    from jsubspace.runs.run import trained_endpoints as trained_endpoints


def __getattr__(name: str) -> Any:
    """`train`, `evaluate` and `trained_endpoints` of `runs.run`, imported when they are first asked for."""
    if name not in ("evaluate", "train", "trained_endpoints"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jsubspace.runs import run

    return getattr(run, name)
