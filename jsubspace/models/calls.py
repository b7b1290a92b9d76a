"""How a user's function or module is called: with the keywords that it takes, in train or in evaluation mode."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

_TRAINS = ("train", "training", "is_training")
_RESTS = ("deterministic", "inference", "eval_mode")
"""Names of the argument that says whether a module is in train mode, or that it is not."""


def mode(call: Callable[..., Any], train: bool) -> dict[str, bool]:
    """The argument by which a call is in train mode or not, or nothing."""
    named = inspect.signature(call).parameters
    modes = dict.fromkeys(_TRAINS, train) | dict.fromkeys(_RESTS, not train)
    return next(({name: mode} for name, mode in modes.items() if name in named), {})


def with_its_keywords(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """The function, called with the keywords that it takes and without the others."""
    taken = {name for name in names if takes(function, name)}

    def called(point: Any, *inputs: Any, **keywords: Any) -> Any:
        return function(point, *inputs, **{name: given for name, given in keywords.items() if name in taken})

    return called


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function may be called with this keyword."""
    parameters = inspect.signature(function).parameters.values()
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (parameter.name == name and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD))
        for parameter in parameters
    )


def name(function: Any) -> str:
    """What a function is called in a message."""
    return getattr(function, "__name__", type(function).__name__)
