"""Writes the versions of this environment to ``constraints/python3.X.txt``: ``python constraints/record.py``.

Run it in an environment in which the whole test suite has passed. The file has the packages that jsubspace needs, the
packages that these need, and nothing else that happens to be installed. ``constraints/oldest.txt`` is written too. It has
the lower bounds of ``setup.py``, with which ``.ci/test_wheel oldest`` runs.
"""

import pathlib
import runpy
import sys
from importlib import metadata
from unittest import mock

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = pathlib.Path(__file__).parent

UNRECORDED = ("setuptools", "wheel", "pip")
"""Packages that install other packages. A constraint on them would also hold for every package that is built."""

ON_REQUEST = ("tpu", "cuda")
"""Extras that need a machine with this device. jax chooses the versions of their packages."""

APART = ("docs", "release")
"""Extras that no test uses."""

TOOLS = ("dev", "tensorflow")
"""Extras without an oldest version: what runs the tests, and TensorFlow, which only prepares data."""


def requirements(without: tuple[str, ...] = ON_REQUEST + APART) -> list[str]:
    """What setup.py asks for, with the extras that the tests use, or with all extras but the ones that are named."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(HERE.parent / "setup.py"))
    given = setup.call_args.kwargs
    extras = [needs for name, needs in given["extras_require"].items() if name not in without]
    return sorted({requirement for needs in (given["install_requires"], *extras) for requirement in needs})


def oldest() -> str:
    """The lower bounds of setup.py as constraints: the text of ``oldest.txt``."""
    lines = [
        "# The oldest versions that setup.py allows. To install them:",
        "#   pip install --constraint constraints/oldest.txt '.[demo]'",
        "# `python constraints/record.py` writes this file.",
    ]
    for requirement in map(Requirement, requirements(ON_REQUEST + APART + TOOLS)):
        (bound,) = requirement.specifier
        lines.append(f"{canonicalize_name(requirement.name)}=={bound.version}")
    return "\n".join(lines) + "\n"


def closure(wanted: list[str]) -> tuple[dict[str, str], list[str]]:
    """The installed versions by package name, and the names of packages that are not installed."""
    versions: dict[str, str] = {}
    missing = set()
    waiting, seen = [Requirement(text) for text in wanted], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if str(requirement) in seen or name in UNRECORDED:
            continue
        seen.add(str(requirement))
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.add(name)
            continue
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            extras = ("", *requirement.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return dict(sorted(versions.items())), sorted(missing)


def main() -> None:
    """Writes the file of this Python, and the file of the oldest versions."""
    versions, missing = closure(requirements())
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [
        f"# The versions that the tests ran with on Python {python}, on Linux and x86-64. To install them:",
        f"#   pip install --constraint constraints/python{python}.txt '.[demo]'",
        "# `python constraints/record.py` writes this file.",
        *(f"# Not tested on this Python: {name}" for name in missing),
        *(f"{name}=={version}" for name, version in versions.items()),
    ]
    (HERE / f"python{python}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (HERE / "oldest.txt").write_text(oldest(), encoding="utf-8")


if __name__ == "__main__":
    main()
