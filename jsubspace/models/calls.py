"""How a user's function or module is called: with the keywords that it takes, in train or in evaluation mode."""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

_TRAINS = ("train", "training", "is_training", "is_train")
_RESTS = ("deterministic", "inference", "eval_mode")
"""Names of the argument that says whether a module is in train mode, or that it is not."""


def mode(call: Callable[..., Any], train: bool) -> dict[str, bool]:
    """The argument by which a call is in train mode or not, or nothing."""
    named = inspect.signature(call).parameters
    modes = dict.fromkeys(_TRAINS, train) | dict.fromkeys(_RESTS, not train)
    return next(({name: mode} for name, mode in modes.items() if name in named), {})


_MODES = re.compile(r"(^|_)(train|training|deterministic|infer|inference|eval|evaluation|test|testing)(_|$)")
_KEYS = re.compile(r"(^|_)(rng|rngs|prng)(_|$)|_key$")


def check_names(call: Callable[..., Any], what: str, takes_key: bool = False) -> None:
    """Raises a ValueError for an argument that looks like the mode, or like a key for dropout, and would never be given.

    Args:
      call: what is called.
      what: its name, for the message.
      takes_key: whether it gets a key by the argument ``key``.
    """
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(call).parameters.values()):
        return
    for parameter in inspect.signature(call).parameters.values():
        is_mode = parameter.default in (True, False, None) and _MODES.search(parameter.name) and not mode(call, True)
        is_key = takes_key and parameter.default is None and _KEYS.search(parameter.name) and not takes(call, "key")
        if is_mode or is_key:
            right = " or ".join(("train", "deterministic") if is_mode else ("key",))
            raise ValueError(
                f"{what} takes {parameter.name}, which nobody would set: it looks like "
                f"{'the mode, train or evaluation' if is_mode else 'the key for dropout'}. Name it {right}."
            )


def with_its_keywords(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """The function, called with the keywords that it takes and without the others. ``train`` may have any name of `mode`."""
    taken = {name for name in names if takes(function, name)}
    has_mode = "train" in names and "train" not in taken

    def called(point: Any, *inputs: Any, **keywords: Any) -> Any:
        given = {name: given for name, given in keywords.items() if name in taken}
        return function(point, *inputs, **given, **(mode(function, bool(keywords.get("train"))) if has_mode else {}))

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
