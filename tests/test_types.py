"""A user's program with types passes mypy and basedpyright against the installed wheel. ``make release-check`` asks both."""

import shutil
import subprocess
import sys
import sysconfig

import pytest
from places import REPOSITORY

PROGRAM = REPOSITORY / "tests" / "typed_program.py"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The interpreter of an environment that has the wheel, and the other packages of this environment."""
    folder = tmp_path_factory.mktemp("types")
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    checkout = folder / "checkout"
    for name in (".ci", "configs", "jsubspace"):
        shutil.copytree(REPOSITORY / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE", "pyproject.toml", "setup.py"):
        shutil.copy(REPOSITORY / name, checkout)
    subprocess.run([sys.executable, "-c", build], cwd=checkout, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    python = folder / "environment" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    place = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    with open(f"{place.stdout.strip()}/others.pth", "w") as file:
        file.write(sysconfig.get_path("purelib"))
    return python


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_a_program_of_a_user_has_types(installed, tmp_path, checker):
    pytest.importorskip(checker)  # basedpyright is in the extra `release`
    shutil.copy(PROGRAM, tmp_path)
    commands = {
        "mypy": ["mypy", "--strict", f"--python-executable={installed}"],
        "basedpyright": ["basedpyright", f"--pythonpath={installed}", "--level=error"],
    }
    done = subprocess.run(
        [sys.executable, "-m", *commands[checker], PROGRAM.name], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_program_runs(tmp_path, monkeypatch):
    """Its types are true: it runs, in a loop and as a run."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "program"}
    exec(compile(PROGRAM.read_text(encoding="utf-8"), PROGRAM.name, "exec"), names)
    x = names["jax"].random.normal(names["jax"].random.key(2), (64, 8))
    y = names["jnp"].argmax(x[:, :3], axis=1)
    report = names["in_a_loop"](names["Ring"](), x, y)
    assert 0 <= report.center.accuracy <= 1
    assert (tmp_path / "network.safetensors").exists()
    names["as_a_run"](names["np"].asarray(x), names["np"].asarray(y), "run")
    assert (tmp_path / "run" / "results.json").exists()
