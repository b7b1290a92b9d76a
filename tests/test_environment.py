"""Whatever the user's account, names, terminal and signals are: one message, a documented exit code, nothing written."""

import io
import os
import pathlib
import pwd
import re
import subprocess
import sys

import jax
import pytest
from absl import app, flags
from absl.testing import flagsaver
from places import REPOSITORY

from jsubspace import compare, endings, errors, evaluate, export, main, paths, program
from jsubspace.data import prepare, sets
from jsubspace.errors import UsageError
from jsubspace.runs import command_line

LONG = "x" * 300
NO_UTF8 = os.fsdecode(b"w\xff")
TRAIN = "--config=digits_cresnet8_line"

# ml_collections loads a config file as Python 3.12 would not have it.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def run_main(argv):
    app.define_help_flags()
    with flagsaver.flagsaver():
        flags.FLAGS["config"].present = 0
        command_line.parse(["main", *argv])
        main.main()


PROGRAMS = {
    "main": run_main,
    "evaluate": lambda argv: evaluate.main(),
    "export": lambda argv: export.main(),
    "compare": lambda argv: compare.main(),
    "prepare": prepare.main,
}


@pytest.fixture
def start(tmp_path, monkeypatch, capsys):
    """Runs a program in an empty folder, and returns its exit code, its output and what it printed about an error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", str(tmp_path / "data"))

    def run(name, *argv):
        monkeypatch.setattr(sys, "argv", [name, *argv])
        code = 0
        try:
            program.call(lambda: PROGRAMS[name](list(argv)))
        except SystemExit as end:
            code = end.code
        assert list(tmp_path.iterdir()) == []
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def homeless(monkeypatch):
    """A process as in many containers: no HOME, and a number of a user that no account has."""

    def nobody(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert os.path.expanduser("~") == "~"


@pytest.mark.parametrize(
    ("name", "argv", "message"),
    [
        ("main", [TRAIN, f"--workdir={LONG}"], "--workdir is 'x+...': File name too long"),
        ("main", [TRAIN, f"--workdir={'a/' * 2200}"], "--workdir is 'a/.*File name too long"),
        ("main", [TRAIN, f"--workdir={NO_UTF8}"], r"--workdir is 'w\\udcff': this name is not UTF-8"),
        ("main", [TRAIN, "--workdir=~nosuch/run"], "--workdir is '~nosuch/run': the home folder of the user 'nosuch'"),
        ("main", [f"--config={LONG}"], "--config is 'x+...': File name too long"),
        ("main", [TRAIN, f"--config.data.dir={LONG}"], "the folder of the data is 'x+...': File name too long"),
        ("main", [TRAIN, f"--config.data.dir={NO_UTF8}"], "text that UTF-8 can hold"),
        ("main", [TRAIN, "--config.data.dir=~nosuch"], "the home folder of the user 'nosuch' is not known"),
        ("main", [TRAIN, "--config.data.dir=a\0b"], "a path has no NUL in it"),
        ("main", [TRAIN, f"--config.start.runs={LONG}"], "config.start.runs is .*: File name too long"),
        ("evaluate", [f"--workdir={LONG}"], "--workdir is .*: File name too long"),
        ("evaluate", [f"--workdir={NO_UTF8}"], "--workdir is .*not UTF-8"),
        ("evaluate", ["--workdir=~nosuch"], "--workdir is .*'nosuch' is not known"),
        ("export", ["--workdir=run", f"--to={LONG}"], "--to is .*: File name too long"),
        ("export", ["--workdir=run", f"--to={NO_UTF8}"], "--to is .*not UTF-8"),
        ("export", ["--workdir=~nosuch", "--to=x"], "--workdir is .*'nosuch' is not known"),
        ("compare", [LONG], "RUN is .*: File name too long"),
        ("compare", ["~nosuch"], "RUN is .*'nosuch' is not known"),
        ("prepare", ["digits", f"--data_dir={LONG}"], "File name too long"),
        ("prepare", ["digits", "--data_dir=~nosuch/x"], "'nosuch' is not known"),
        ("prepare", ["digits", f"--data_dir={NO_UTF8}"], "not UTF-8"),
        ("prepare", ["tiny_imagenet", f"--manual_dir={LONG}"], "--manual_dir is .*: File name too long"),
    ],
)
def test_names_that_no_file_can_have(name, argv, message, start):
    code, out, err = start(name, *argv)
    assert (code, out) == (errors.USAGE, "")
    assert re.fullmatch(f"error: .*{message}.*\n", err), err


def test_links_in_a_circle_and_folders_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=r"--to is .*loop/x': Too many levels of symbolic links"):
        paths.expanded(tmp_path / "loop" / "x", "--to")

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "lstat", refuse)
    with pytest.raises(UsageError, match=r"--to is 'x': Permission denied"):
        paths.expanded("x", "--to")


def test_what_a_path_may_be(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.expanded("~/run", "--workdir") == f"{tmp_path}/run"
    assert paths.expanded("gs://bucket/run", "--workdir") == "gs://bucket/run"
    (tmp_path / "file").touch()
    assert paths.expanded(tmp_path / "file" / "x", "--workdir").endswith("file/x")  # Who makes it says what is wrong.


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_without_a_home(name, start, homeless, monkeypatch):
    monkeypatch.delenv("JSUBSPACE_DATA_DIR")
    code, out, err = start(name, "--help")
    assert (code, err) == (0, "")
    assert "help" in out


def test_without_a_home_the_data_need_a_folder(start, homeless, monkeypatch):
    monkeypatch.delenv("JSUBSPACE_DATA_DIR")
    for name, argument in (("main", TRAIN), ("prepare", "digits")):
        code, _, err = start(name, argument)
        assert code == errors.USAGE
        assert re.fullmatch(
            "error: .*this user has no home folder. Name a folder by the variable JSUBSPACE_DATA_DIR, .*\n", err
        )
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", "~nosuch/data")
    assert "JSUBSPACE_DATA_DIR is '~nosuch/data'" in start("prepare", "digits")[2]
    assert not prepare.is_prepared(sets.find("digits"), "~nosuch/of/a/stranger")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_no_compiled_program_is_kept(monkeypatch):
    was = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    program.use_compilation_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", NO_UTF8)
    program.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == was


def test_output_that_is_ascii_alone(monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}

    def say():
        print("0.9 ± 0.1 at α = 0.5, 3 − 2")
        raise UsageError("é/w\udcff is 5²")

    with monkeypatch.context() as patched:
        for name, stream in streams.items():
            patched.setattr(sys, name, stream)
        with pytest.raises(SystemExit):
            endings.call(say)
    printed = {name: stream.buffer.getvalue() for name, stream in streams.items()}
    assert printed == {"stdout": b"0.9 +- 0.1 at alpha = 0.5, 3 - 2\n", "stderr": b"error: \\xe9/w\\udcff is 5^2\n"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "a.png"), "No space left on device: a.png"),
        (PermissionError(13, "Permission denied", b"a"), "Permission denied: a"),
        (OSError(18, "Invalid cross-device link", "a", None, "b"), "Invalid cross-device link: a: b"),
        (BrokenPipeError(32, "Broken pipe"), "Broken pipe"),
        (ConnectionError("no route"), "no route"),
    ],
)
def test_what_the_system_refuses(error, message, capsys):
    def fail():
        raise error

    with pytest.raises(SystemExit) as end:
        endings.call(fail)
    assert end.value.code == errors.USAGE
    assert capsys.readouterr().err == f"error: {message}. Change this, and run the same command again.\n"


@pytest.mark.parametrize(
    "error", [RuntimeError("initialize backend"), AssertionError(), KeyError("x"), ValueError("y")]
)
def test_mistakes_of_the_library_keep_their_traceback(error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        endings.call(fail)
    assert caught.value is error


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no such device")
def test_output_to_a_full_disk(monkeypatch, capsys):
    """Python keeps the output until the end. Then it would exit with 120, and name no reason."""
    with open("/dev/full", "w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as end:
            endings.call(lambda: print("x"))
        full.flush()  # as Python does at the end
    assert end.value.code == errors.USAGE
    assert capsys.readouterr().err == "error: No space left on device. Change this, and run the same command again.\n"


def process(code, **environment):
    """Python code in a process of its own."""
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=variables)


def test_a_platform_that_jax_does_not_find():
    code = "import jax; from jsubspace import endings; endings.call(jax.devices)"
    platforms = ("nosuch", "cuda")
    for platform, done in [(platform, process(code, JAX_PLATFORMS=platform)) for platform in platforms]:
        error = done.communicate()[1]
        assert done.returncode == errors.USAGE
        asked = f"JAX_PLATFORMS is '{platform}'. Unset it, or install jax for this platform."
        assert re.fullmatch(f"error: jax finds no device.* {asked}\n", error), error


def test_interrupted_while_it_prepares(tmp_path):
    """Ctrl-C between two examples. TFDS removes its unfinished folder, and the same command starts again."""
    code = f"""
import os, signal
from jsubspace import endings
from jsubspace.data import digits, prepare
whole = digits.Digits._generate_examples
def interrupted(self, images, labels):
    yield next(whole(self, images, labels))
    os.kill(os.getpid(), signal.SIGINT)
    yield from ()
digits.Digits._generate_examples = interrupted
endings.run(lambda: prepare.main(["digits", "--data_dir={tmp_path}"]))
"""
    done = process(code)
    error = done.communicate()[1]
    assert done.returncode == errors.PREEMPTED
    assert error.endswith("\nstopped by SIGINT. Run the same command again. What was saved is kept.\n")
    assert "Traceback" not in error
    assert list((tmp_path / "digits").iterdir()) == []


def test_a_module_that_is_a_program_names_its_log():
    """As a program it is called __main__, and its log would not be the library's."""
    for path in (REPOSITORY / "jsubspace").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "__main__" not in text or "getLogger(__name__)" not in text, path
