"""The commit, the versions and the machine that made a recorded number."""

import importlib.metadata
import pathlib
import platform
import subprocess

from jsubspace.data.workers import num_cores


def commit() -> str:
    """The commit of this repository, or "" without git.

    It ends with ``+`` if tracked files have changed since. Recorded results do not count, because they do not change how
    results are made.
    """

    def git(*arguments: str) -> str:
        try:
            here = pathlib.Path(__file__).parent
            return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return ""

    head = git("rev-parse", "--short", "HEAD").strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)experiments/results")
    return head + ("+" if changed.strip() else "")


def versions(*packages: str) -> dict[str, str]:
    """The versions of Python, jax, Flax and ``packages``."""
    names = ("jax", "flax", *packages)
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def machine() -> str:
    """The processor, as far as the system names it, and how many of its cores this process may use."""
    model = platform.processor() or platform.machine()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{num_cores()} cores, {model}"
