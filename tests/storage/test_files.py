"""Files are there in full or not at all, whatever happens, and one module makes them."""

import ast
import errno
import os
import pathlib

import pytest
from places import REPOSITORY

from jsubspace.storage import files

WRITERS = {
    "mkdir", "makedirs", "unlink", "remove", "removedirs", "rename", "renames", "rmdir", "rmtree", "symlink_to", "hardlink_to",
    "touch", "write_text", "write_bytes", "copyfile", "copytree", "move", "NamedTemporaryFile", "TemporaryDirectory",
    "mkdtemp", "mkstemp", "truncate", "savefig", "savez", "savez_compressed", "save_file", "fdopen",
}  # fmt: skip
"""Calls of these names, in any module, change what is on a disk."""

ELSEWHERE = {
    ("data/workers.py", "unlink"): "shared memory",
    ("storage/lock.py", "truncate"): "the content of a lock, which means nothing",
}
"""Calls of such a name that change no file, and why."""


def writes(tree):
    """The calls in a module that write, make, rename or remove a file, except calls of `files`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        name = node.func.attr if owner is not None else getattr(node.func, "id", "")
        if isinstance(owner, ast.Name) and owner.id in ("files", "dataclasses"):
            continue
        modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        opens = name == "open" and any(isinstance(mode, str) and set(mode) & set("wax+") for mode in modes)
        if name in ("savefig", "savez") and isinstance(node.args[0], ast.Name) and node.args[0].id == "file":
            continue  # into a file of `files.new_file`
        if name in WRITERS or opens or (name == "replace" and len(node.args) == 1 and not node.keywords):
            yield name


def test_one_module_writes():
    found = {
        (path.relative_to(REPOSITORY / "jsubspace").as_posix(), name)
        for path in (REPOSITORY / "jsubspace").rglob("*.py")
        for name in writes(ast.parse(path.read_text(encoding="utf-8")))
    }
    ours = ("storage/files.py", "storage/bucket_files.py")
    assert {(path, name) for path, name in found if path not in ours} - set(ELSEWHERE) == set()
    importers = [path for path in (REPOSITORY / "jsubspace").rglob("*.py") if "bucket_files" in path.read_text("utf-8")]
    assert {path.stem for path in importers} == {"files", "checksums"}
    assert ("storage/files.py", "mkdir") in found
    text = (
        "path.write_text('')\nfigure.savefig(path)\nopen(path, 'wb')\npath.replace(other)\nos.mkdir(path)\nopen(path)"
    )
    assert list(writes(ast.parse(text))) == ["write_text", "savefig", "open", "replace", "mkdir"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file"
    files.write_text(path, "before")

    def fail_in_a_file():
        with files.new_file(path) as file:
            file.write(b"half")
            raise error

    def fail_in_a_folder():
        with files.new_folder(tmp_path / "folder") as folder:
            files.write_text(folder / "half", "half")
            raise error

    for fail in (fail_in_a_file, fail_in_a_folder):
        with pytest.raises(type(error)):
            fail()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_leftovers_are_known_and_removed_and_nothing_else_is(tmp_path):
    ours = ["a.json.12.partial", "config.json.partial", "net.safetensors.7.partial"]
    others = ["film.mkv.partial", "a.json", ".12.partial", "notes.partial.txt"]
    for name in [*ours, *others]:
        (tmp_path / name).write_text("")
    (tmp_path / "net.7.partial").mkdir()
    (tmp_path / "net.7.partial" / "network").write_text("")
    assert {path.name for path in tmp_path.iterdir() if files.is_leftover(path)} == {*ours, "net.7.partial"}
    files.remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_no_write_follows_a_link(tmp_path):
    """A folder from a stranger may have links where our files will be."""
    precious = tmp_path / "precious"
    precious.write_text("1")
    partial = tmp_path / f"results.json.7{files.PARTIAL}"
    for name in ("results.json", partial.name, "log", "lock"):
        (tmp_path / name).symlink_to(precious)
    files.write_text(tmp_path / "results.json", "2")
    for opened in (files.Appended, files.lock_file):
        for name in ("log", "lock"):
            with pytest.raises(OSError, match="symbolic links"):
                opened(tmp_path / name)
    assert precious.read_text() == "1"
    assert (tmp_path / "results.json").read_text() == "2"
    assert not (tmp_path / "results.json").is_symlink()


def test_a_check_leaves_no_trace(tmp_path, monkeypatch):
    files.check_writable(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        files.check_writable(pathlib.Path("/proc"))
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(files.os, "O_TMPFILE", 1 << 30)  # a flag that no file system knows
    files.check_writable(tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_next_write_removes_what_a_killed_process_left_and_nothing_of_a_living_one(tmp_path):
    for name in ("net.1.partial", "network.2.partial"):
        (tmp_path / name).write_text("")
    (tmp_path / "net.3.partial").mkdir()
    (tmp_path / "net.3.partial" / "half").write_text("")
    with files.new_file(tmp_path / "net") as other:
        files.write_text(tmp_path / "net", "mine")
        assert len([path for path in tmp_path.iterdir() if path.name.startswith("net.")]) == 1
        other.write(b"the other's")
    assert (tmp_path / "net").read_text() == "the other's"
    assert sorted(os.listdir(tmp_path)) == ["net", "network.2.partial"]


def test_an_error_names_the_file_and_not_its_partial_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory") as raised:
        files.write_text(tmp_path / "folder", "")
    assert (raised.value.filename, raised.value.filename2) == (str(tmp_path / "folder"), None)
    with pytest.raises(OSError, match="too long") as raised:
        files.write_text(tmp_path / ("n" * 300), "")
    assert raised.value.filename == str(tmp_path / ("n" * 300))


@pytest.mark.parametrize("number", [errno.ENOTEMPTY, errno.ENOENT])
def test_a_folder_is_removed_while_others_work_in_it(tmp_path, monkeypatch, number):
    """A thread makes or removes a file between the listing of the folder and its removal."""
    folder, rmtree, left = tmp_path / "3.orbax-checkpoint-tmp", files.shutil.rmtree, [2]

    def disturbed(path):
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number), str(path))
        rmtree(path)

    folder.mkdir()
    monkeypatch.setattr(files.shutil, "rmtree", disturbed)
    files.remove(folder)
    assert not folder.exists()
