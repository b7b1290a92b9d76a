"""Every cell of the table in docs/frameworks.md names a test that pytest finds, or says why there is none."""

import contextlib
import io
import re

import pytest
from places import REPOSITORY

FEATURES = (
    "init_endpoints", "value_and_grad", "dropout", "BatchNorm", "measure", "uncertainty", "per_endpoint", "training.train",
    "FSDP", "export", "pretrained",
)  # fmt: skip
FRAMEWORKS = ["plain functions, dictionaries", "Flax linen", "Flax nnx", "Equinox"]


def rows_of(page):
    """The rows of the table as lists of cells, the header first."""
    lines = [line for line in page.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named_in(cell):
    return re.findall(r"`([\w/]+\.py::[^`]+)`", cell)


def wrong_cells(rows, found):
    """The cells, by feature and framework, that name no test or a test that does not exist."""
    wrong = []
    for feature, *cells in rows:
        for framework, cell in zip(FRAMEWORKS, cells, strict=True):
            says_why = cell.startswith("no: ") and len(cell.split()) > 5
            if not (named_in(cell) or says_why) or not set(named_in(cell)) <= found:
                wrong.append((feature, framework))
    return wrong


class Collected:
    """The names of all tests that pytest finds, from the folder tests/."""

    def __init__(self):
        self.names = set()

    def pytest_collection_finish(self, session):
        self.names = {item.nodeid.removeprefix("tests/") for item in session.items}


def test_every_cell_names_a_test_that_exists():
    header, *rows = rows_of((REPOSITORY / "docs" / "frameworks.md").read_text(encoding="utf-8"))
    assert header == ["feature", *FRAMEWORKS]
    assert all(any(feature in row[0] for row in rows) for feature in FEATURES)
    named = {name for row in rows for cell in row for name in named_in(cell)}
    files = sorted({str(REPOSITORY / "tests" / name.partition("::")[0]) for name in named})
    collected = Collected()
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files], [collected])
    assert code == 0, shown.getvalue()
    assert wrong_cells(rows, collected.names) == []


def test_what_is_wrong_would_be_noticed():
    test, found = "`a.py::test_it[x]`", {"a.py::test_it[x]"}
    rows = [
        ["one", test, "", "no: this cannot work in here at all", "no"],
        ["two", test, f"{test}, `a.py::other`", "yes", test],
    ]
    assert wrong_cells(rows, found) == [
        ("one", "Flax linen"),
        ("one", "Equinox"),
        ("two", "Flax linen"),
        ("two", "Flax nnx"),
    ]
