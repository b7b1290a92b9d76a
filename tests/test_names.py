"""Every name of the library that the documents and docstrings mention is found in Python after ``import jsubspace``."""

import ast
import json
import re
import subprocess
import sys

import pytest
from places import REPOSITORY

import jsubspace

DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "experiments/*.md",
        "experiments/notebooks/*.py",
        "experiments/notebooks/*.ipynb",
    )
    for path in REPOSITORY.glob(pattern)
)
SOURCES = sorted((REPOSITORY / "jsubspace").rglob("*.py"))

OURS = re.compile(r"(?<![\w./-])jsubspace(?:\.[A-Za-z_]\w*)+")
FILES = re.compile(r"(?<![\w./-])jsubspace(?:/[\w{},]+)+(?:\.py)?")
QUOTED = re.compile(r"(?<!`)`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)`(?!`)")
DOUBLE = re.compile(r"``([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\([^`]*\))?``")
FILE_ENDINGS = (".py", ".json", ".npz", ".jsonl")

RESOLVER = """
import importlib, json, pkgutil, sys
import jsubspace

MODULES = {}
for module in pkgutil.walk_packages(jsubspace.__path__, "jsubspace."):
    MODULES.setdefault(module.name.rpartition(".")[2], []).append(module.name)

def found(names, start):
    for name in names:
        try:
            start = getattr(start, name)
        except (AttributeError, ImportError):
            fields = {**getattr(start, "__annotations__", {}), **getattr(start, "__dataclass_fields__", {})}
            if name not in fields:
                return False
            return True
    return True

def foreign(words):
    for i in range(len(words), 0, -1):
        try:
            return found(words[i:], importlib.import_module(".".join(words[:i])))
        except ImportError:
            continue
    return False

def resolves(name, module, scope):
    words = name.split(".")
    if words[0] == "jsubspace":
        return found(words[1:], jsubspace)
    if found(words[words[0] == "config" :], jsubspace.runs.config.default()):  # a setting
        return True
    if not module:  # a document: `schedules.NAMES` of any module with that name
        return any(found(words[1:], importlib.import_module(home)) for home in MODULES[words[0]])
    here = importlib.import_module(module)
    package = importlib.import_module(module.rpartition(".")[0]) if "." in module else jsubspace
    beside = [getattr(package, name) for _, name, _ in pkgutil.iter_modules(package.__path__)]
    places = [here, package, jsubspace, *beside]
    for word in scope:
        places.insert(0, getattr(places[0], word, places[0]))
    return any(found(words, place) for place in places) or foreign(words)

asked = json.load(sys.stdin)
print("\\n" + json.dumps([i for i, question in enumerate(asked) if not resolves(*question)]))
"""


def unresolved(asked):
    """Which of the questions (name, module or "", classes around it) have no answer in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-W", "error:jsubspace.:DeprecationWarning", "-c", RESOLVER],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    return [asked[i] for i in json.loads(done.stdout.splitlines()[-1])]


def text_of(path):
    """A document as its reader sees it: of a notebook the sources of the cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text


def module_of(path):
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULE_NAMES = {module_of(path).rpartition(".")[2] for path in SOURCES} - {"jsubspace"}


def docstrings(tree, scope=()):
    """(names of the functions and classes around, text) of every string that is a statement."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield scope, node.value.value
        inner = (*scope, node.name) if isinstance(node, ast.ClassDef) else scope
        yield from docstrings(node, inner)


def in_document(text):
    """Names of the library in a document: with ``jsubspace.`` before, or `module.name` for one of its modules."""
    return [*OURS.findall(text), *(name for name in quoted(text) if name.split(".")[0] in MODULE_NAMES and "." in name)]


def quoted(text):
    """Names between single backticks, which are not names of files."""
    return [name for name in QUOTED.findall(text) if not name.endswith(FILE_ENDINGS)]


def in_source(text):
    """(name, classes around it) of every reference in the docstrings of a module, and of every full name in its text."""
    yield from ((name, ()) for name in OURS.findall(text))
    tree = ast.parse(text)
    variables = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for scope, doc in docstrings(tree):
        yield from ((name, scope) for name in quoted(doc))
        code = (name for name in DOUBLE.findall(doc) if not name.endswith(FILE_ENDINGS))
        yield from ((name, scope) for name in code if name.split(".")[0] in MODULE_NAMES - variables)


def test_the_names_in_documents_resolve():
    asked = {(name, "", ()): path.name for path in DOCUMENTS for name in in_document(text_of(path))}
    assert len(asked) > 30
    assert [(asked[name, module, tuple(scope)], name) for name, module, scope in unresolved([*asked])] == []


def test_the_names_in_docstrings_resolve():
    asked = {(name, module_of(path), scope) for path in SOURCES for name, scope in in_source(path.read_text())}
    assert len(asked) > 200
    assert [(module, name) for name, module, scope in unresolved(sorted(asked))] == []


def test_every_module_is_reached_after_importing_the_package_alone():
    assert unresolved([[module_of(path), "", []] for path in SOURCES]) == []


def test_the_files_that_are_named_exist():
    named = {(path.name, name) for path in (*DOCUMENTS, *SOURCES) for name in FILES.findall(text_of(path))}
    assert {(path, name) for path, name in named if not (REPOSITORY / name).exists()} == set()


def test_what_does_not_resolve_is_noticed():
    asked = [
        ["jsubspace.no_such_name", "", []],
        ["schedules.NO_NAME", "", []],
        ["tree.no_function", "jsubspace.points", []],
        ["Nothing", "jsubspace.points", []],
    ]
    good = [
        ["jsubspace.runs.build.Run", "", []],
        ["jsubspace.main", "", []],
        ["tree.contract", "jsubspace.points", []],
        ["interpolate", "jsubspace.subspaces", []],
        ["coefficients", "jsubspace.subspaces", ["Line"]],
        ["jax.vmap", "jsubspace.points", []],
    ]
    assert unresolved(asked + good) == asked
    assert in_document("`tree.contract`, `jsubspace.midpoint` and ``x.y``; python -m jsubspace.main --config") == [
        "jsubspace.midpoint", "jsubspace.main", "tree.contract"
    ]  # fmt: skip


def test_the_former_name_of_a_module_works_and_warns():
    with pytest.warns(DeprecationWarning, match=r"jsubspace\.networks has moved to jsubspace\.exchange\.network_files"):
        assert jsubspace.networks is jsubspace.exchange.network_files
    with pytest.warns(DeprecationWarning, match=r"jsubspace\.metrics has moved"):
        from jsubspace import metrics
    assert metrics is jsubspace.evaluation.metrics
