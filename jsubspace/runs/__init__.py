"""One run from its config to its results: ``jsubspace.runs.train(config, workdir)``."""

from typing import TYPE_CHECKING

from jsubspace import lazy

if not TYPE_CHECKING:
    functions = {"train": "run", "evaluate": "run", "trained_endpoints": "run"}
    __getattr__, __dir__ = lazy.modules(__name__, __path__, **functions)
