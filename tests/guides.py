"""Executes the code blocks of a guide, so that tests ask what they leave behind."""

import re
from typing import Any

from places import REPOSITORY

DOCS = REPOSITORY / "docs"


def with_code() -> list[str]:
    """The names of the guides that have blocks of Python."""
    return [path.name for path in sorted(DOCS.glob("*.md")) if _blocks(path.name)]


def execute(guide: str) -> dict[str, Any]:
    """The names that all blocks of a page define, one after the other, in the current folder."""
    names: dict[str, Any] = {}
    for code in _blocks(guide):
        exec(compile(code, guide, "exec"), names)
    return names


def _blocks(guide: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / guide).read_text(encoding="utf-8"), re.DOTALL)
