"""One run, from its settings to its results: ``jsubspace.runs.train``."""

from typing import TYPE_CHECKING

from jsubspace import lazy

if TYPE_CHECKING:
    from jsubspace.runs.run import evaluate as evaluate
    from jsubspace.runs.run import train as train
    from jsubspace.runs.run import train_problem as train_problem
    from jsubspace.runs.run import trained_endpoints as trained_endpoints
if not TYPE_CHECKING:
    _functions = {"train": "run", "train_problem": "run", "evaluate": "run", "trained_endpoints": "run"}
    __getattr__, __dir__ = lazy.modules(__name__, __path__, **_functions)
