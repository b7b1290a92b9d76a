"""The one reader of JSON, the one mechanism of schemas, and files of arrays: what they refuse, before it costs anything."""

import ast
import io
import json
import os
import pathlib
import zipfile

import numpy as np
import pytest
from places import REPOSITORY

from jsubspace import shown
from jsubspace.errors import UsageError
from jsubspace.storage import array_files, documents
from jsubspace.storage.array_files import Array
from jsubspace.storage.schema import Either, Flag, Listed, Mismatch, Named, Nullable, Number, OneOf, Record, Text, Whole

DEEP = 100_000

REFUSED = {
    "not JSON": ("{", "Expecting property name"),
    "deep lists": ("[" * DEEP, "nested deeper than 50"),
    "deep dictionaries": ('{"a":' * DEEP, "nested deeper than 50"),
    "deep behind strings": ('{"a\\\\": "\\"[[", "b": ' + "[" * DEEP, "nested deeper than 50"),
    "a name twice": ('{"a": 1, "b": 2, "a": 3}', "has the name 'a' twice"),
    "NaN": ("[NaN]", "it holds NaN"),
    "infinity": ("[-Infinity]", "it holds -Infinity"),
    "a large float": ("[1e400]", "it holds the number 1e400, which is too large"),
    "a large integer": ("1" + "0" * 400, "an integer of 401 digits"),
    "a huge integer": ("1" * 5000, "an integer of 5000 digits"),
    "half a character": ('"\\ud800"', "surrogates not allowed"),
    "half a name": ('{"\\uDfff": 1}', "surrogates not allowed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_file_of_ours_holds_is_refused(name, tmp_path):
    text, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        documents.from_json(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError, match=rf"a.json is damaged \(.*{message}.*\)\. Mend it\."):
        documents.read(tmp_path / "a.json", 10**6, "Mend it.")


def test_what_is_deep_but_in_text_is_read():
    content = {"a": "[" * DEEP + '\\"{', 'b\\": [[': [[{"c": "\U0001f600"}]]}
    assert documents.from_json(json.dumps(content)) == content
    assert documents.from_json(json.dumps([[]] * 1000)) == [[]] * 1000
    assert documents.from_json("[NaN, -Infinity]", nan_is_none=True) == [None, None]


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UsageError, match=r"is damaged .*utf-8"):
        documents.read(path, 100, "Mend it.")
    path.write_text("[1, 2]")
    with pytest.raises(UsageError, match=r"is damaged \(it has more than 5 bytes\)"):
        documents.read(path, 5, "Mend it.")
    assert documents.read(path, 6, "Mend it.") == [1, 2]
    with pytest.raises(UsageError, match=r"a.json is a list of length 2, and must be a dictionary"):
        documents.read(path, 6, "Mend it.", Record({}))
    path.unlink()
    os.mkfifo(path)  # Opening it would wait for ever.
    with pytest.raises(UsageError, match="it is not a file"):
        documents.read(path, 100, "Mend it.")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        documents.read(tmp_path / "b.json", 100, "Mend it.")


def test_nobody_else_parses_json_or_reads_a_file_of_arrays():
    for path in (REPOSITORY / "jsubspace").rglob("*.py"):
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        # The limits of a container's memory are files of the kernel.
        ours = {"documents.py": {"json.loads"}, "machine.py": {"path.read_text"}}.get(path.name, set())
        banned = {
            name for name in calls if name in ("json.load", "json.loads", "np.load") or name.endswith(".read_text")
        }
        assert banned <= ours, path


SCHEMA = Record(
    {"name": Text("[a-z]+"), "rows": Listed(Nullable(Number(0, 1)), 1)},
    optional={
        "seeds": Named(Whole(0)),
        "on": Flag(),
        "kind": OneOf((1, "a")),
        "size": Either((Whole(), Listed(Whole()))),
    },
)
GOOD = {"name": "a", "rows": [0.5, None, 1]}
WRONG = [
    ([], "x is a list of length 0, and must be a dictionary"),
    ({"name": "a"}, "x lacks the field 'rows'"),
    (GOOD | {"name": "A"}, r"x.name is 'A', and must be a line of text of the form \[a-z\]\+"),
    (GOOD | {"name": 5}, "x.name is 5"),
    (GOOD | {"rows": []}, "x.rows is a list of length 0, and must be a list of length 1 or more"),
    (GOOD | {"rows": [2]}, r"x.rows\[0\] is 2, and must be a number from 0 to 1"),
    (GOOD | {"rows": [float("nan")]}, r"x.rows\[0\] is nan"),
    (GOOD | {"rows": [True]}, r"x.rows\[0\] is True"),
    (GOOD | {"rows": [10**400]}, "an integer of more than 40 digits"),
    (GOOD | {"seeds": {"a": -1}}, "x.seeds.a is -1, and must be a whole number from 0 on"),
    (GOOD | {"seeds": {"a": 1.0}}, "x.seeds.a is 1.0"),
    (GOOD | {"seeds": {"\x1b[2J": 1}}, r"a name in x.seeds is '\\x1b\[2J'"),
    (GOOD | {"on": 1}, "x.on is 1, and must be true or false"),
    (GOOD | {"kind": True}, "x.kind is True, and must be 1 or 'a'"),
    (GOOD | {"size": [1, "x"]}, "x.size is a list of length 2, and must be a whole number or a list"),
]


@pytest.mark.parametrize(("content", "message"), WRONG)
def test_a_schema_names_the_place(content, message):
    SCHEMA.check(GOOD | {"more": object(), "seeds": {}, "on": True, "kind": "a", "size": [1]}, "x")
    with pytest.raises(Mismatch, match=message) as raised:
        SCHEMA.check(content, "x")
    assert len(str(raised.value)) < 300


DECLARED = {"a": Array("float32", (None, 2)), "names": Array("U", (None,))}


def saved(path: pathlib.Path, **arrays):
    np.savez(path, **{"a": np.zeros((3, 2), np.float32), "names": np.array(["x"])} | arrays)
    return path


def test_arrays_come_back(tmp_path):
    a = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    found = array_files.read(saved(tmp_path / "a.npz", a=a, more=np.ones(3)), DECLARED)
    assert found.keys() == {"a", "names"}
    np.testing.assert_array_equal(found["a"], a)
    assert found["names"].tolist() == ["x"]
    found["a"][0] = 0  # It can be written, like every array.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"a": np.zeros((3, 2))}, r"a is float64\[3, 2\], and must be float32\[any, 2\]"),
        ({"a": np.zeros((3, 1), np.float32)}, r"a is float32\[3, 1\]"),
        ({"names": np.array([{}], object)}, "names is object"),
        ({"a": np.asfortranarray(np.zeros((3, 2), np.float32))}, "a has .* bytes"),
    ],
)
def test_other_arrays_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        array_files.read(saved(tmp_path / "a.npz", **wrong), DECLARED)


def header_of(shape):
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(written, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return written.getvalue()


@pytest.mark.parametrize("shape", [(2**40, 2), (3, 2), (-1, 2)])
def test_arrays_that_are_smaller_than_they_say_cost_nothing(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("a.npy", header_of(shape))
    with pytest.raises(ValueError, match=r"which is not what its header says|has the shape"):
        array_files.read(tmp_path / "a.npz", {"a": DECLARED["a"]})


def test_what_is_compressed_is_refused(tmp_path):
    """Its few bytes may stand for any number of them."""
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros((10**6, 2), np.float32))
    assert (tmp_path / "a.npz").stat().st_size < 10**5
    with pytest.raises(ValueError, match="a is compressed"):
        array_files.read(tmp_path / "a.npz", {"a": DECLARED["a"]})


def test_text_of_a_stranger_is_shown_without_control_characters():
    assert shown.escaped("\x1b]0;owned\x07\x9b\u202e\u2028\ud800 ± ü é\n") == (
        "\\x1b]0;owned\\x07\\x9b\\u202e\\u2028\\ud800 ± ü é\n"
    )
    assert shown.cell("a|b\n\x1b[1m") == "a\\|b\\n\\x1b[1m"
    assert shown.label(r"$\frac{$ and \$") == r"\$\frac{\$ and \$"
