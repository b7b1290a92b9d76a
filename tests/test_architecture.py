"""The imports are the design: every package imports from the packages before it, and the core needs jax alone."""

import ast
import re
import subprocess
import sys

import pytest
from places import REPOSITORY

PACKAGE = REPOSITORY / "jsubspace"

ORDER = ("core", "storage", "evaluation", "merging", "training", "runs", "programs", "examples")
"""A package imports from itself and from the packages before it. The files of ``jsubspace/`` are the core or programs."""

BESIDE = ("data", "models", "exchange")
"""These packages import the core and storage. From `runs` on, everything may import them."""

PROGRAMS = ("main", "evaluate", "compare", "export", "merge", "program")

FOREIGN = {
    "core": {"jax", "numpy"},
    "evaluation": {"jax", "numpy", "matplotlib"},
    "merging": {"jax", "numpy", "scipy", "matplotlib"},
}
"""What some packages import of others' packages, at most. jax needs scipy, and alignment takes its linear assignment."""

ONLY_HERE = {
    "orbax": {"storage.checkpoint", "exchange.orbax_trees"},
    "ml_collections": {"runs", "programs"},
    "tensorboardX": {"storage.writer"},
    "etils": {"storage.bucket_paths"},
    "fsspec": {"storage.bucket_paths"},
    "huggingface_hub": {"exchange.hub"},
    "tensorflow": set(),
    "clu": set(),
}
"""Packages, and the modules or packages that may import them."""

FOUND_AT = {"training": {"runs.config", "runs.problem", "runs.run"}}
"""Where users find names that a later package defines. They are imported when somebody asks for them (`lazy`)."""

MANY_DEVICES = {"pmap", "shard_map", "Mesh", "make_mesh", "NamedSharding"}


def modules():
    """Every module under jsubspace/, by its dotted name without the package's: tree, models.cresnet, ..."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = ast.parse(path.read_text())
    return found


MODULES = modules()


def package_of(name):
    """The package of a module, by its dotted name."""
    first = name.split(".")[0]
    if first in (*ORDER, *BESIDE):
        return first
    return "programs" if first in PROGRAMS else "core"


def imports(tree):
    """(foreign top-level packages, own modules) that a module imports, at its top or inside functions."""
    foreign, own = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            inside = node.module == "jsubspace" or node.module.removeprefix("jsubspace.") in (*ORDER, *BESIDE)
            names = [f"{node.module}.{alias.name}" for alias in node.names] if inside else [node.module]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "jsubspace":
                own.add(rest)
            else:
                foreign.add(package)
    return foreign - set(sys.stdlib_module_names), own


def names_used(tree):
    """Identifiers in the code; docstrings and comments may say what they like."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from (alias.name for alias in node.names)


def allowed(package):
    """The packages from which ``package`` may import."""
    if package in BESIDE:
        return {package, "core", "storage"}
    before = set(ORDER[: ORDER.index(package) + 1])
    return before | set(BESIDE) if package in ("runs", "programs", "examples") else before


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_every_module_imports_from_before(name):
    foreign, own = imports(MODULES[name])
    package = package_of(name)
    own -= FOUND_AT.get(name, set())
    assert not {other for other in own if other and package_of(other) not in allowed(package)}
    assert foreign <= FOREIGN.get(package, foreign)


def test_names_that_are_found_elsewhere_import_nothing_later():
    program = "import sys, jsubspace.training; print(sorted(name for name in sys.modules if 'jsubspace.runs' in name))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout == "[]\n"


def test_no_module_is_called_utils():
    assert not [name for name in MODULES if name.rpartition(".")[2].startswith("util")]


def test_types_and_errors_import_nothing_of_ours():
    for name in ("types", "errors"):
        assert imports(MODULES[name])[1] == set()


def test_one_file_knows_of_many_devices():
    """And one knows where the arrays of a user's own loop lie."""
    found = {name for name, tree in MODULES.items() if MANY_DEVICES & set(names_used(tree))}
    assert found <= {"training.parallel", "state_places"}


@pytest.mark.parametrize("package", ONLY_HERE)
def test_who_may_import_what(package):
    found = {name for name, tree in MODULES.items() if package in imports(tree)[0]}
    assert not {name for name in found if not {name, package_of(name)} & ONLY_HERE[package]}


def test_no_file_is_long():
    """One idea, one file: half of them have 150 lines at most, none has more than 300, and the program is a page."""
    lengths = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert max(lengths.values()) <= 300, max(lengths, key=lengths.get)
    assert sorted(lengths.values())[len(lengths) // 2] <= 150
    assert lengths[PACKAGE / "main.py"] <= 60


def test_few_files_know_of_a_config():
    """What a config says reaches the rest as arguments."""
    words = {path for path in PACKAGE.rglob("*.py") if "config" in re.findall(r"\w+", path.read_text())}
    assert len(words) < 16, sorted(str(path.relative_to(PACKAGE)) for path in words)


def test_importing_the_package_is_light():
    """No TensorFlow, absl, Orbax, Flax or Optax, and no device is touched: a program may still choose its platform."""
    program = """
import sys
import jsubspace
heavy = {"tensorflow", "tensorflow_datasets", "absl.flags", "orbax", "flax", "optax", "ml_collections", "matplotlib"}
print(sorted(heavy & set(sys.modules)))
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert result.stdout.split("\n")[:2] == ["[]", "False"]


def test_the_checks_would_notice():
    """The parser sees imports in every form, also inside functions."""
    tree = ast.parse(
        "import flax.linen as nn\nfrom jsubspace import tree\nfrom jsubspace.models.layers import Conv\n"
        "from jsubspace.runs import build\ndef f():\n  from orbax import checkpoint\n  return jax.pmap(f)\n"
    )
    assert imports(tree) == ({"flax", "orbax"}, {"tree", "models.layers", "runs.build"})
    assert "pmap" in set(names_used(tree))
    assert [package_of(name) for name in ("tree", "models.layers", "runs.build", "main")] == [
        "core", "models", "runs", "programs"
    ]  # fmt: skip
    assert "runs" not in allowed("training") and "data" in allowed("runs")  # noqa: PT018
