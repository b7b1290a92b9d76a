"""What a user gets who has no checkout: the wheel trains by name of a config, and the sdist runs its tests."""

import ast
import email
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import CONFIGS, REPOSITORY

import jsubspace
from jsubspace.runs import command_line

FOLDERS = (".ci", ".github", "configs", "constraints", "docs", "experiments", "jsubspace", "tests")
FILES = (
    "*.md",
    "CITATION.cff",
    "LICENSE",
    "Makefile",
    "MANIFEST.in",
    "pyproject.toml",
    "setup.py",
    ".gitattributes",
    ".gitignore",
    ".pre-commit-config.yaml",
)
RECORD = runpy.run_path(str(REPOSITORY / "constraints" / "record.py"))
BUILD = "from setuptools import build_meta; build_meta.build_sdist({0!r}); build_meta.build_wheel({0!r})"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy, so that nothing is written into the repository."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for path in (path for pattern in FILES for path in REPOSITORY.glob(pattern)):
        shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def built(checkout, tmp_path_factory):
    """The sdist and the wheel."""
    out = tmp_path_factory.mktemp("dist")
    files = {path.relative_to(checkout).as_posix() for path in checkout.rglob("*") if path.is_file()}
    done = subprocess.run([sys.executable, "-c", BUILD.format(str(out))], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return files, sdist, wheel


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="only git knows which files are of the project")
def test_the_checkout_is_what_git_tracks():
    """Otherwise the tests below would not miss a new file beside the old ones."""
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    tracked = {pathlib.PurePosixPath(name) for name in listed.splitlines()}
    other = {path for path in tracked if path.parts[0] not in FOLDERS and not any(map(path.match, FILES))}
    assert other == set()


def test_the_sdist_is_the_checkout(built):
    files, sdist, _ = built
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert files - held == set()


def test_the_wheel_holds_the_package_and_the_configs(built):
    files, _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {name for name in files if name.startswith("jsubspace/") and ".egg-info" not in name}
    assert held == package | {f"jsubspace/configs/{path.name}" for path in CONFIGS.glob("*.py")}
    assert "jsubspace/py.typed" in held


def test_the_wheel_declares_what_it_needs(built):
    with zipfile.ZipFile(built[2]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        declared = email.message_from_bytes(archive.read(name))
    assert declared["Requires-Python"] == ">=3.11"
    needed = {Requirement(text).name for text in declared.get_all("Requires-Dist") if "extra ==" not in text}
    assert {"jax", "requests"} <= needed
    assert "chex" not in needed


def test_every_package_that_is_imported_is_declared():
    declared = {canonicalize_name(Requirement(text).name) for text in RECORD["requirements"]()}
    homes = metadata.packages_distributions()
    for path in (REPOSITORY / "jsubspace").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"jsubspace"}:
                if name in homes:
                    assert declared & {canonicalize_name(home) for home in homes[name]}, (path, name)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_constraints_have_every_dependency(python):
    text = (REPOSITORY / "constraints" / f"python{python}.txt").read_text(encoding="utf-8")
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    untested = set(re.findall(r"^# Not tested on this Python: (\S+)$", text, re.MULTILINE))
    assert untested <= {"tensorflow-cpu"}
    for wanted in map(Requirement, RECORD["requirements"]()):
        name = canonicalize_name(wanted.name)
        if name not in untested | set(RECORD["UNRECORDED"]):
            assert wanted.specifier.contains(versions[name]), (wanted, versions.get(name))


def test_the_oldest_versions_are_the_lower_bounds():
    """If not: python constraints/record.py, and .ci/test_wheel oldest."""
    text = (REPOSITORY / "constraints" / "oldest.txt").read_text(encoding="utf-8")
    assert text == RECORD["oldest"]()
    assert {"jax", "flax", "optax", "matplotlib"} <= set(re.findall(r"^([\w-]+)==", text, re.MULTILINE))


def test_the_citation_names_the_paper_and_no_second_version():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert "version" not in cited  # It would be a second place for it.
    (paper,) = cited["references"]
    assert paper["title"] == "Learning Neural Network Subspaces"
    assert paper["authors"][0]["family-names"] == "Wortsman"
    assert (paper["volume"], paper["start"], paper["year"]) == (139, 11217, 2021)


def test_the_workflows_are_pinned_and_run_commands_that_exist():
    """Their schemas, and what an attacker could do with them, are checked by ``make release-check``."""
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    workflows = {
        path.stem: yaml.safe_load(path.read_text()) for path in (REPOSITORY / ".github" / "workflows").iterdir()
    }
    assert set(workflows) == {"tests", "docs", "release"}
    for name, workflow in workflows.items():
        assert workflow["permissions"] == {}, name
        for job in workflow["jobs"].values():
            assert "timeout-minutes" in job
            for step in job["steps"]:
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step.get("uses", f"a@{'0' * 40}")), step
                assert "${{" not in step.get("run", ""), step
                made = re.match(r"make ([\w-]+)", step.get("run", ""))
                assert made is None or made[1] in targets, step
                ours = re.match(r"\.ci/\w+", step.get("run", ""))
                assert ours is None or os.access(REPOSITORY / ours[0], os.X_OK), step
    publish = workflows["release"]["jobs"]["publish"]
    assert (publish["permissions"], publish["needs"]) == ({"id-token": "write"}, "build")
    matrix = workflows["tests"]["jobs"]["wheel"]["strategy"]["matrix"]["include"]
    assert {(row["python"], row["versions"]) for row in matrix} == {
        ("3.11", "oldest"), ("3.12", "newest"), ("3.13", "newest"), ("3.13", "nightly"),
    }  # fmt: skip


def test_the_changelog_has_its_lists():
    """The version stands in `__version__` alone, and the first section names it."""
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    title, lists = re.search(r"^## (.+)$", text, re.MULTILINE)[1], re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert jsubspace.__version__ in title
    assert lists[:3] == ["Added", "Changed", "Fixed"]


def test_links_of_the_readme_work_in_an_index(built):
    with zipfile.ZipFile(built[2]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        declared = email.message_from_bytes(archive.read(name))
    links = re.findall(r"\]\(([^)]*)\)", declared.get_payload())
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert any(link.startswith("https://raw.githubusercontent.com/") and link.endswith(".png") for link in links)
    assert {"Documentation", "Changelog", "Issues"} <= {
        url.partition(",")[0] for url in declared.get_all("Project-URL")
    }


def test_the_closure_of_dependencies():
    versions, missing = RECORD["closure"](["jax>=0.10", "no-such-package", "setuptools"])
    assert {"jax", "jaxlib", "numpy", "scipy"} <= set(versions)
    assert "pytest" not in versions
    assert missing == ["no-such-package"]
    assert versions["jax"] == metadata.version("jax")


def test_no_text_names_an_index_where_the_name_is_not_ours():
    """Until the package is published, whoever takes the name there would get our users' machines."""
    command = re.compile(r"pip3? install[^\n`)]*?['\"\s]jsubspace(?![\w/]|[^\n]* @ git)(?:\[|['\"`\s.]|$)")
    assert command.search("pip install 'jsubspace[tpu]'")
    assert command.search("`pip install --upgrade jsubspace`")
    for pattern in ("*.md", "jsubspace/**/*.py", "configs/*.py", "docs/*.md", "experiments/**/*.md", "experiments/**/*.py",
                    "experiments/notebooks/*.ipynb", "setup.py", "Makefile", "constraints/*"):  # fmt: skip
        for path in REPOSITORY.glob(pattern):
            assert not command.search(path.read_text(encoding="utf-8")), path


def test_a_config_is_found_by_name(built, tmp_path, monkeypatch):
    """In a checkout and in an installation. A file of this path comes first."""
    assert set(command_line.shipped()) == {path.stem for path in CONFIGS.glob("*.py")}
    with zipfile.ZipFile(built[2]) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "site" / "configs").mkdir()  # of another package, which has no name for it
    monkeypatch.setattr(jsubspace, "__file__", str(tmp_path / "site" / "jsubspace" / "__init__.py"))
    inside = tmp_path / "site" / "jsubspace" / "configs" / "digits_cresnet8_line.py"
    assert command_line.shipped()["digits_cresnet8_line"] == inside
    monkeypatch.chdir(tmp_path)
    for given in ("digits_cresnet8_line", "digits_cresnet8_line.py", "configs/digits_cresnet8_line.py"):
        assert command_line.find_file(given) == inside
    (tmp_path / "configs").mkdir()
    mine = tmp_path / "configs" / "digits_cresnet8_line.py"
    mine.touch()
    assert command_line.find_file("configs/digits_cresnet8_line.py").absolute() == mine
    assert command_line.find_file("digits_cresnet8_line") == inside


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_makefile_takes_paths_with_spaces(tmp_path):
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "setup.py").touch()
    binaries = tmp_path / "an environment" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text('#!/bin/sh\nfor word in "$@"; do echo "[$word]"; done\n')
    (binaries / "python").chmod(0o755)
    variables = {"VENV": "an environment", "CONFIG": "my configs/a b.py", "WORKDIR": "my runs/it's a"}
    command = ["make", "--silent", *(f"{name}={value}" for name, value in variables.items())]
    said = subprocess.run([*command, "demo"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    install, train = said[: said.index("[-m]\n[jsub")], said[said.index("[-m]\n[jsub") :]
    assert install == "[-m]\n[pip]\n[install]\n[--quiet]\n[--editable]\n[.[demo]]\n"
    assert train == "[-m]\n[jsubspace.main]\n[--config=my configs/a b.py]\n[--workdir=my runs/it's a]\n"
    again = subprocess.run([*command[:-1], "demo"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert again == "[-m]\n[jsubspace.main]\n[--config=my configs/a b.py]\n"
    plain = [word for word in command if not word.startswith("CONFIG=")]
    said = subprocess.run([*plain, "demo"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == "[-m]\n[experiments.demo]\n[--runs=my runs/it's a]\n"
    subprocess.run([*command, "clean"], cwd=tmp_path, check=True)
    assert not binaries.parent.exists()


@pytest.mark.slow
def test_the_wheel_trains_in_an_empty_folder(built, tmp_path):
    """In a clean environment, with the versions of ``constraints/``. pip takes them from the index that it is set to."""
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    constraint = f"--constraint={REPOSITORY / 'constraints' / f'python{version}.txt'}"
    # With PYTHONPATH, pip would find this checkout, and install nothing.
    own = {"HOME": str(tmp_path / "home"), "JAX_PLATFORMS": "cpu"}
    ours = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")} | own
    subprocess.run([python, "-m", "pip", "install", "--quiet", constraint, f"{built[2]}[demo]"], check=True, env=ours)
    subprocess.run([python, "-m", "pip", "check"], check=True, env=ours)
    empty = tmp_path / "empty"
    empty.mkdir()
    small = ["optimizer.num_epochs=1", "optimizer.warmup_epochs=0", "evaluation.num_points=3", "model.width=4"]
    command = [
        python,
        "-m",
        "jsubspace.main",
        "--config=digits_cresnet8_line",
        *(f"--config.{field}" for field in small),
    ]
    for arguments in (command, [python, "-m", "jsubspace.evaluate", "--workdir=runs/digits_cresnet8_line"]):
        done = subprocess.run(arguments, cwd=empty, env=ours, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "midpoint" in done.stdout
    run = empty / "runs" / "digits_cresnet8_line"
    assert (run / "results.json").is_file()
    assert (run / "figures" / "accuracy.png").is_file()
    assert list(run.glob("events.*")) or list(run.rglob("*tfevents*"))


@pytest.mark.slow
def test_the_sdist_runs_its_tests(built, tmp_path):
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/test_subspaces.py",
        "tests/test_readme.py",
    ]
    done = subprocess.run(
        command, cwd=source, env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
