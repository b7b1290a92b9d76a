"""The names that the API reference must have: what the package exports, and what the code of the guides uses.

The build of the documentation and ``tests/test_documentation.py`` both ask `missing`. Nothing of the library is imported.
"""

import ast
import pathlib
import re

DOCS = pathlib.Path(__file__).parent
REPOSITORY = DOCS.parent
EXPORTING = ("jsubspace", "jsubspace.merging", "jsubspace.training")
"""Packages with names that users call. All names of the other packages are in modules."""

NO_REFERENCE = ("jsubspace.examples", "jsubspace.configs")
"""Packages of code to read and to copy. The reference does not list their names."""


def exported() -> set[str]:
    """The names that the packages of `EXPORTING` export: ``from module import name as name`` and ``name = value``, no modules."""
    names = set()
    for package in EXPORTING:
        path = REPOSITORY.joinpath(*package.split("."), "__init__.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names |= {f"{package}.{alias.asname}" for alias in node.names if alias.asname}
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                names.add(f"{package}.{node.targets[0].id}")
    return {name for name in names if not _is_module(name) and not name.rpartition(".")[2].startswith("_")}


def used() -> dict[str, str]:
    """The names of the library in the Python blocks of README.md and of the guides, each with the page that uses it."""
    pages = [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))]
    return {name: page.name for page in pages for name in _names(page.read_text(encoding="utf-8"))}


def documented() -> set[str]:
    """The names and whole modules that the pages of the reference document."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    return set(re.findall(r"^\.\. auto(?!summary)\w+:: (\S+)", pages, re.MULTILINE))


def missing() -> dict[str, str]:
    """The names without an entry in the reference, each with the page that uses it."""
    wanted, have = dict.fromkeys(exported(), "jsubspace/__init__.py") | used(), documented()
    return {name: page for name, page in sorted(wanted.items()) if not {name, name.rpartition(".")[0]} & have}


def _names(page: str) -> set[str]:
    names = set()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        tree = ast.parse(block)
        homes = {"jsubspace": "jsubspace"}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jsubspace":
                homes |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        chains = [_chain(node, homes) for node in ast.walk(tree)]
        for chain in [*chains, *homes.values()]:
            if chain and not _is_module(chain) and not chain.startswith(NO_REFERENCE):
                names.add(_public(chain))
    return names


def _chain(node: ast.AST, homes: dict[str, str]) -> str:
    """The full name of an attribute, ``""`` if it is not an attribute of the library."""
    words: list[str] = []
    while isinstance(node, ast.Attribute):
        words.insert(0, node.attr)
        node = node.value
    return ".".join([homes[node.id], *words]) if isinstance(node, ast.Name) and node.id in homes else ""


def _public(chain: str) -> str:
    """The name itself, without attributes of its value: ``jsubspace.a.b.Class`` of ``jsubspace.a.b.Class.method``."""
    words = chain.split(".")
    for i in range(1, len(words)):
        if not _is_module(".".join(words[:i])):
            return ".".join(words[:i])
    return chain


def _is_module(name: str) -> bool:
    path = REPOSITORY.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()
