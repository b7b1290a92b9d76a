"""The training loop, one step of it, and how it runs on many devices and hosts.

`train` trains a problem of your own: its network, its task and its data (docs/own_problem.md).
"""

from typing import TYPE_CHECKING

from jsubspace import lazy

if TYPE_CHECKING:
    from jsubspace.runs.config import default_settings as default_settings
    from jsubspace.runs.problem import Problem as Problem
    from jsubspace.runs.run import train_problem
    from jsubspace.training import parallel as parallel

    train = train_problem  # An import by another name would not be exported to type checkers.
else:
    _elsewhere = {
        "train": "jsubspace.runs.run.train_problem",
        "Problem": "jsubspace.runs.problem.Problem",
        "default_settings": "jsubspace.runs.config.default_settings",
    }
    __getattr__, __dir__ = lazy.modules(__name__, __path__, elsewhere=_elsewhere)
