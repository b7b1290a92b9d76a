"""What follows from the table of settings: names, checks, lists, and the page ``docs/settings.md``.

python -m jsubspace.runs.settings > docs/settings.md
"""

import math
from collections.abc import Collection
from typing import Any

from jsubspace.runs.allowed import Choice
from jsubspace.runs.settings_table import COMPARED, GROUPS, HOSTS, PLACES, SETTINGS, Between, Setting

NAMED = {setting.name: setting for setting in SETTINGS}
"""Every setting by its full name, as ``optimizer.num_epochs``, in the order of the table."""

_MISSING = object()


def identifying() -> tuple[str, ...]:
    """The settings that identify a run: a folder with other values holds another run."""
    return tuple(setting.name for setting in SETTINGS if PLACES not in setting.may_differ)


def may_differ_between_hosts() -> tuple[str, ...]:
    """The settings that may differ between the hosts of one run."""
    return _that_may_differ(HOSTS)


def may_differ_between_compared_runs() -> tuple[str, ...]:
    """The settings that may differ between runs that are compared as one method."""
    return _that_may_differ(COMPARED)


def of_a_problem() -> tuple[str, ...]:
    """The settings of a problem of one's own: those that belong neither to images nor to the networks of the programs."""
    return tuple(setting.name for setting in SETTINGS if not setting.of_images)


def added_later() -> tuple[str, ...]:
    """The settings that the first version did not have."""
    return tuple(setting.name for setting in SETTINGS if setting.since)


def refusal(name: str, value: Any) -> str | None:
    """A message if a setting must not have this value, whatever the other settings are. None if it may.

    Example:
      >>> refusal("data.batch_size", 0)
      'config.data.batch_size is 0. It must be at least 1 and at most 1048576.'
    """
    setting = NAMED[name]
    if type(value) is not setting.type:
        kind = type(value).__name__
        return f"config.{name} is {value!r}, of type {kind}. It must be of type {setting.type.__name__}."
    if isinstance(value, float) and not math.isfinite(value):
        return f"config.{name} is {value}. It must be a finite number, {setting.allowed.words()}."
    if isinstance(value, str) and not value.isprintable() and value != value.encode(errors="ignore").decode():
        return f"config.{name} is {value!r}. It must be text that UTF-8 can hold."
    if not setting.allowed.accepts(value):
        return f"config.{name} is {value!r}. It must be {setting.allowed.words(value)}."
    return None


def flat(recorded: dict[str, Any]) -> dict[str, Any]:
    """Settings by their full names, as ``optimizer.num_epochs``, from nested dictionaries.

    Example:
      >>> flat({"seed": 0, "data": {"name": "digits"}})
      {'seed': 0, 'data.name': 'digits'}
    """
    found: dict[str, Any] = {}
    for name, content in recorded.items():
        inner = {f"{name}.{field}": v for field, v in flat(content).items()} if isinstance(content, dict) else {}
        found |= inner or {name: content}
    return found


def check_record(recorded: Any, needed: Collection[str]) -> None:
    """Checks the settings that a file of results has recorded, with lists where there were tuples.

    An older version may have recorded fewer settings, and another version may have recorded more.

    Args:
      recorded: the settings, as nested dictionaries.
      needed: the settings that must not be missing.

    Raises:
      ValueError: if one of those is missing, or a setting has a value that it must not have.
    """
    if not isinstance(recorded, dict):
        raise ValueError("it has no settings of the run")
    for name in NAMED:
        value = recorded
        for part in name.split("."):
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        if value is _MISSING:
            if name in needed:
                raise ValueError(f"config.{name} is missing")
        elif refused := refusal(name, tuple(value) if isinstance(value, list) else value):
            raise ValueError(refused.rstrip("."))


def page() -> str:
    """The page of the documentation, in Markdown: one table per group."""
    parts = [_HEAD]
    for group, sentence in GROUPS.items():
        rows = [_row(setting) for setting in SETTINGS if setting.name.rpartition(".")[0] == group]
        parts.append(f"## {group or 'The run'}\n\n{sentence}\n\n{_COLUMNS}\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


_HEAD = """# Settings

Every setting can be changed in a config file, as in `config.optimizer.num_epochs = 10`, and on the command line, as in
`--config.optimizer.num_epochs=10`. Some combinations are refused as well: `jsubspace/runs/limits.py` has these rules.

The last three columns make three claims:

- *resumes*: "same" means that the setting identifies a run, so a run resumes only with the same value. "may differ" means
  that the results do not depend on the value but for rounding, and a run may resume with another one. There is one exception:
  in a network of your own, BatchNorm without the axis name "batch" sees a device's part of a batch, and a run warns of it.
- *hosts*: whether the hosts of one run must have the same value.
- *compared*: whether runs that are compared as one method must have the same value.

A problem of your own ([own_problem.md](own_problem.md)) has all settings but `data.*`, `model.*`, `optimizer.label_smoothing`,
`evaluation.batch_size`, `evaluation.num_bins` and `evaluation.corruptions`, which its code decides. It has a group `problem`
of its own.

This page is made from the table in `jsubspace/runs/settings_table.py`. After a change of the table, write the page again:

    python -m jsubspace.runs.settings > docs/settings.md"""

_COLUMNS = """\
| setting | type | default | range | meaning | resumes | hosts | compared |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def _row(setting: Setting) -> str:
    kind = "text" if setting.type is str else setting.type.__name__
    words = setting.allowed.words()
    allowed = ", ".join(f"`{name}`" for name in setting.allowed.names) if isinstance(setting.allowed, Choice) else words
    claims = ["may differ" if place in setting.may_differ else "same" for place in Between]
    cells = [f"`{setting.name}`", kind, f"`{setting.default!r}`", allowed, setting.meaning, *claims]
    return f"| {' | '.join(cells)} |"


def _that_may_differ(between: Between) -> tuple[str, ...]:
    return tuple(setting.name for setting in SETTINGS if between in setting.may_differ)


if __name__ == "__main__":
    print(page(), end="")
