"""The dry run of a release: ``make release-check``. It builds, checks and installs what would be published.

    python .ci/release.py [--tag=v0.1.0]

Everything is written into ``build/release``. The files to publish are in ``build/release/dist``.
"""

import argparse
import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

REPOSITORY = pathlib.Path(__file__).parent.parent
FOLDER = REPOSITORY / "build" / "release"
DIST = FOLDER / "dist"
TEMPLATES = REPOSITORY / ".github" / "ISSUE_TEMPLATE"


def version() -> str:
    """The version, from its one place."""
    text = (REPOSITORY / "jsubspace" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def check_texts(tag: str | None) -> None:
    """The tag, if there is one, and the first section of CHANGELOG.md name the version, and its lists have their names."""
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    title, body = re.search(r"^## (.+)\n((?:(?!^## ).*\n)*)", changelog, re.MULTILINE).groups()
    lists = re.findall(r"^### (.+)$", body, re.MULTILINE)
    require(version() in title, f"the first section of CHANGELOG.md is {title!r} and must name version {version()}")
    require(lists[:3] == ["Added", "Changed", "Fixed"], f"CHANGELOG.md has the lists {lists}")
    if tag is not None:
        require(tag == f"v{version()}", f"the tag is {tag!r} and the version is {version()}")
        require("Unreleased" not in title, "CHANGELOG.md still says that the version is unreleased: write its date")


def check_schemas() -> None:
    """CITATION.cff, the workflows and the templates keep their schemas, and zizmor finds nothing in the workflows."""
    for schema, *paths in (
        ("vendor.citation-file-format", REPOSITORY / "CITATION.cff"),
        ("vendor.github-workflows", *sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))),
        ("vendor.dependabot", REPOSITORY / ".github" / "dependabot.yml"),
        ("vendor.github-issue-config", TEMPLATES / "config.yml"),
        ("vendor.github-issue-forms", *sorted(set(TEMPLATES.glob("*.yml")) - {TEMPLATES / "config.yml"})),
    ):
        run("check-jsonschema", "--builtin-schema", schema, *paths)
    run("zizmor", "--offline", "--pedantic", "--quiet", REPOSITORY / ".github")


def build() -> pathlib.Path:
    """Builds the sdist, and from it the wheel, and checks their metadata and contents. Returns the wheel."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, REPOSITORY)
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    tracked = set(output("git", "ls-files").splitlines())
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    require(not tracked - held, f"the sdist lacks {sorted(tracked - held)[:5]}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        declared = email.message_from_bytes(archive.read(metadata))
    package = {name for name in tracked if name.startswith("jsubspace/")}
    package |= {f"jsubspace/{name}" for name in tracked if re.fullmatch(r"configs/\w+\.py", name)}
    strange = {name for name in names if ".dist-info/" not in name} ^ package
    require(not strange, f"the wheel and the package differ in {sorted(strange)[:5]}")
    require(declared["Version"] == version(), f"the wheel has version {declared['Version']}")
    require("](docs/" not in declared.get_payload(), "README.md has links that do not work outside of the repository")
    return wheel


def install(wheel: pathlib.Path) -> pathlib.Path:
    """A clean environment outside of the repository's sight, with the wheel. Returns its interpreter."""
    python = FOLDER / "environment" / "bin" / "python"
    run(sys.executable, "-m", "venv", FOLDER / "environment")
    run(python, "-m", "pip", "install", "--quiet", wheel)
    run(python, "-m", "pip", "check")
    return python


def check_first_example(python: pathlib.Path) -> None:
    """The first block of Python in README.md prints a table, in the clean environment and in an empty folder."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    said = output(python, "-c", code, cwd=empty())
    require("midpoint" in said, f"README's first example printed {said!r}")
    print(said)
    run(
        python,
        "-m",
        "jsubspace.main",
        "--config=digits_cresnet8_line",
        "--help",
        cwd=empty(),
        stdout=subprocess.DEVNULL,
    )


def check_types(python: pathlib.Path) -> None:
    """A user's program has types that mypy and basedpyright accept, against the installed wheel."""
    program = empty() / "typed_program.py"
    shutil.copy(REPOSITORY / "tests" / "typed_program.py", program)
    run(sys.executable, "-m", "mypy", "--strict", f"--python-executable={python}", program, cwd=empty())
    run("basedpyright", f"--pythonpath={python}", "--level=error", program, cwd=empty())


def empty() -> pathlib.Path:
    """A folder without a checkout."""
    folder = FOLDER / "empty"
    folder.mkdir(exist_ok=True)
    return folder


def environment() -> dict[str, str]:
    """The environment of all commands. With PYTHONPATH, Python would find a checkout instead of the wheel."""
    beside = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "PATH": beside,
        "JAX_PLATFORMS": "cpu",
    }


def run(*command: object, **options: object) -> None:
    """Runs a command and ends if it fails."""
    print("$", *command, flush=True)
    done = subprocess.run([*map(str, command)], env=environment(), **{"cwd": REPOSITORY, **options})
    require(done.returncode == 0, f"{command[0]} ended with {done.returncode}")


def output(*command: object, cwd: pathlib.Path = REPOSITORY) -> str:
    """What a command prints."""
    done = subprocess.run([*map(str, command)], env=environment(), cwd=cwd, stdout=subprocess.PIPE, text=True)
    require(done.returncode == 0, f"{command[0]} ended with {done.returncode}")
    return done.stdout


def require(claim: bool, message: str) -> None:
    """Ends with the message if the claim is false."""
    if not claim:
        sys.exit(f"error: {message}.")


def main() -> None:
    """All checks, the quick ones first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", help="the tag of the release; it must name the version")
    options = parser.parse_args()
    check_texts(options.tag or None)
    check_schemas()
    wheel = build()
    python = install(wheel)
    check_first_example(python)
    check_types(python)
    print(f"ready to publish: {', '.join(path.name for path in sorted(DIST.iterdir()))}")


if __name__ == "__main__":
    main()
