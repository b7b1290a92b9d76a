"""The imports are the design: the core needs jax alone, and every module imports only from above it."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "jsubspace"

# In this order; a module may import from the ones before it in its own group and from the groups it names.
CORE = [
    "types",
    "tree",
    "subspaces",
    "points",
    "penalties",
    "shares",
    "gradients",
    "batch_stats",
    "ensembles",
    "metrics",
    "estimates",
    "connectors",
    "averaging",
    "curvature",
    "planes",
]
RUNTIME = [
    "optim",
    "schedules",
    "train_state",
    "train_step",
    "parallel",
    "hosts",
    "checksums",
    "checkpoint",
    "journal",
    "writer",
    "lock",
    "preemption",
    "survey",
    "config",
    "limits",
    "folders",
    "recipes",
    "build",
    "evaluation",
    "landscape",
    "results",
    "report",
    "figures",
    "stacks",
    "loop",
    "program",
    "main",
    "evaluate",
    "compare",
    "networks",
    "authors",
    "export",
]
ANYONE = {"types", "errors"}  # vocabulary; errors imports nothing
FRAMEWORKS_OF_THE_CORE = {"jax", "numpy"}
MANY_DEVICES = {"pmap", "shard_map", "Mesh", "make_mesh", "NamedSharding"}
SEE_A_CONFIG = {
    "config",
    "limits",
    "folders",
    "recipes",
    "build",
    "results",
    "report",
    "stacks",
    "loop",
    "evaluate",
    "main",
    "export",
}


def modules():
    """Every module under jsubspace/, by its dotted name without the package's: tree, models.cresnet, ..."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imports(tree):
    """(foreign top-level packages, own modules) that a module imports, at its top or inside functions."""
    foreign, own = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            own_names = [f"jsubspace.{alias.name}" for alias in node.names]
            names = own_names if node.module == "jsubspace" else [node.module]
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


def group(name):
    return name.split(".")[0]


def test_every_module_has_its_place():
    top = {name for name in MODULES if name and "." not in name and group(name) not in ("models", "data")}
    assert top <= {*CORE, *RUNTIME, *ANYONE}, "add the new module to the list at its place, in DESIGN's order"
    assert {"tree", "subspaces", "points", "penalties", "gradients", "batch_stats"} <= top
    assert not [name for name in MODULES if name.rpartition(".")[2].startswith("util")]


@pytest.mark.parametrize("name", [name for name in CORE if name in MODULES])
def test_the_core_imports_jax_alone_and_points_down_the_list(name):
    foreign, own = imports(MODULES[name])
    assert foreign <= FRAMEWORKS_OF_THE_CORE
    assert own <= {*CORE[: CORE.index(name)], *ANYONE}


@pytest.mark.parametrize("name", [name for name in RUNTIME if name in MODULES])
def test_the_runtime_points_down_the_list(name):
    _, own = imports(MODULES[name])
    above = {*CORE, *ANYONE, *RUNTIME[: RUNTIME.index(name)]}
    families = {"models", "data"} if name in SEE_A_CONFIG else set()
    assert not [other for other in own if other and other not in above and group(other) not in families]


@pytest.mark.parametrize("name", [name for name in MODULES if group(name) in ("models", "data")])
def test_models_and_data_know_nothing_of_the_rest(name):
    _, own = imports(MODULES[name])
    assert not [other for other in own if other not in ANYONE and group(other) != group(name)]


def test_types_and_errors_import_nothing_of_ours():
    for name in ANYONE:
        assert imports(MODULES[name])[1] == set()


def test_one_file_knows_of_many_devices():
    assert {name for name, tree in MODULES.items() if MANY_DEVICES & set(names_used(tree))} <= {"parallel"}


@pytest.mark.parametrize(
    ("package", "may"),
    [
        ("orbax", {"checkpoint"}),
        ("ml_collections", SEE_A_CONFIG),
        ("tensorboardX", {"writer"}),
        ("tensorflow", set()),
        ("clu", set()),
    ],
)
def test_who_may_import_what(package, may):
    assert {name for name, tree in MODULES.items() if package in imports(tree)[0]} <= may


def test_the_public_names_come_from_the_core():
    foreign, own = imports(MODULES[""])
    assert foreign == set()
    assert own <= {*CORE, *ANYONE}


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
        "def f():\n  from orbax import checkpoint\n  return jax.pmap(f)\n"
    )
    assert imports(tree) == ({"flax", "orbax"}, {"tree", "models.layers"})
    assert "pmap" in set(names_used(tree))
