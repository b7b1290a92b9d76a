"""A signal at any moment of a program's life: one line, a documented code, and the same command again."""

import os
import signal
import subprocess
import sys
import weakref

import numpy as np
import pytest
from places import REPOSITORY

import jsubspace
from jsubspace import compare, errors, evaluate, export, merge, runs
from jsubspace.data import prepare, sets
from jsubspace.errors import Preempted
from jsubspace.evaluation import plots
from jsubspace.exchange import averages, network_files
from jsubspace.preemption import Preemption
from jsubspace.runs import adapters, landscape, per_example, results


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A finished run with figures."""
    from jsubspace.runs import config

    settings = config.default()
    settings.data.name, settings.data.dir = "digits", data_dir
    settings.model.name, settings.model.depth, settings.model.width = "mlp", 1, 8
    settings.optimizer.num_epochs, settings.optimizer.warmup_epochs = 1, 0
    settings.evaluation.num_points, settings.evaluation.num_resamples = 3, 100
    settings.num_devices = 1
    workdir = tmp_path_factory.mktemp("finished")
    runs.train(settings, workdir)
    return workdir


@pytest.fixture
def dropped(monkeypatch):
    """Sends a signal where Python drops the exception, before a function is called for the first time."""
    monkeypatch.setattr(Preemption, "_wake", lambda self: False)  # The next check must notice.

    def before(owner, name):
        function, calls = getattr(owner, name), []

        def interrupted(*args, **kwargs):
            calls.append(name)
            if len(calls) == 1:
                value = type("Empty", (), {})()
                reference = weakref.ref(value, lambda _: os.kill(os.getpid(), signal.SIGINT))
                del value, reference
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, interrupted)
        return calls

    return before


PLACES = {
    "statistics": (adapters, "train_batches"),
    "batches": (adapters, "scored"),
    "scores per example": (per_example, "write"),
    "report": (results, "_validation"),
    "figures": (plots, "axes"),
    "results": (results, "describe"),
}
"""Units of work in an evaluation, in their order."""


@pytest.mark.parametrize("place", PLACES)
def test_evaluation_asks_between_its_units(place, finished, dropped):
    calls, before = dropped(*PLACES[place]), (finished / "results.json").stat().st_mtime_ns
    with Preemption(), pytest.raises(Preempted, match="stopped by SIGINT"):
        evaluate.evaluate(finished)
    assert len(calls) == 1
    assert (finished / "results.json").stat().st_mtime_ns == before


def test_the_largest_eigenvalue_asks_between_its_products(finished, dropped):
    dropped(landscape.curvature, "largest_eigenvalue")
    with Preemption(), pytest.raises(Preempted):
        evaluate.evaluate(finished, {"evaluation.sharpness_batches": "1"})


def test_a_test_during_training_does_not_raise(tiny_mlp, tmp_path, dropped):
    """The step is saved first."""
    tiny_mlp.evaluation.every_epochs = 1
    dropped(adapters, "train_batches")
    with Preemption(), pytest.raises(Preempted, match="saved after step 12"):
        runs.train(tiny_mlp, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "12").is_dir()


def test_export_asks_until_it_writes(finished, dropped, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export", f"--workdir={finished}", f"--to={tmp_path / 'network'}"])
    dropped(export, "trained_endpoints")
    with Preemption(), pytest.raises(Preempted):
        export.main()
    assert list(tmp_path.iterdir()) == []
    save = network_files.save

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        save(*arguments)

    monkeypatch.setattr(network_files, "save", interrupted)
    with Preemption() as signals:
        export.main()
        assert signals.received() == "SIGTERM"
    assert "network is the network" in capsys.readouterr().out


def test_merge_asks_between_leaves(dropped, tmp_path):
    files = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for i, file in enumerate(files):
        jsubspace.save(file, {"a": np.full(3, float(i)), "b": np.ones(2)})
    calls = dropped(averages, "_add")
    with Preemption(), pytest.raises(Preempted):
        merge.averaged(files, tmp_path / "merged.safetensors")
    assert len(calls) == 1
    assert sorted(tmp_path.iterdir()) == files


def test_compare_asks_between_runs_and_rows(finished, dropped, tmp_path):
    dropped(per_example, "read")
    with Preemption(), pytest.raises(Preempted):
        compare.main([str(finished), f"--out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_prepare_asks_between_data_sets(dropped, monkeypatch, tmp_path):
    monkeypatch.setattr(prepare.corruptions, "find", lambda name: [sets.find("digits"), sets.find("digits")])
    monkeypatch.setattr(prepare, "_prepare_one", lambda *arguments: tmp_path)
    calls = dropped(prepare, "_prepare_one")
    with Preemption(), pytest.raises(Preempted):
        prepare.prepare("digits")
    assert len(calls) == 1


ENDS = {
    "kill(TERM); time.sleep(9)": 75,
    "kill(INT); time.sleep(9)": 75,
    "kill(HUP); time.sleep(9)": 75,
    "weakref_kill(TERM); time.sleep(9)": 75,
    "weakref_kill(TERM)": 0,  # Its work was done.
    "signals().hold(); kill(TERM)": 0,
    "kill(USR1); time.sleep(9)": 75,
    "kill(USR2); time.sleep(9)": 75,
    "kill(XCPU); time.sleep(9)": 75,
    "signals().hold(); kill(TERM); kill(TERM); time.sleep(9)": 143,
    "signals().hold(); kill(INT); kill(INT); time.sleep(9)": 130,
    "signals().hold(); kill(TERM); kill(INT); time.sleep(9)": 130,
    "signals().hold(); kill(TERM); time.sleep(0.01); kill(HUP); time.sleep(1)": 0,  # systemd with SendSIGHUP=yes
    "signals().hold(); kill(TERM); kill(HUP); kill(USR1); kill(XCPU); time.sleep(1)": 0,
    "signals().hold(); kill(USR1); kill(TERM); time.sleep(1)": 0,  # The limit that Slurm warned of.
    "signals().hold(); kill(USR1); kill(TERM); kill(TERM); time.sleep(9)": 143,
    "signals().hold(); kill(HUP); kill(HUP)": 0,  # A terminal that is closed hangs up twice.
    "swallowed(TERM); raise RuntimeError('a library was interrupted')": 75,
    "swallowed(TERM); raise UsageError('the disk is full')": 2,
    "wrapped(TERM)": 75,
    "signals().leave(); kill(INT); time.sleep(9)": 130,  # as several hosts leave signals to Orbax
    "sys.exit(2)": 2,
    "sys.exit(None)": 0,
    "sys.stderr = Killing(sys.stderr); raise UsageError('no such run')": 75,  # while it tells of the error
    "atexit.register(kill, INT); atexit.register(kill, TERM)": 0,
    "atexit.register(kill, TERM); raise UsageError('no such run')": 2,
}
"""What a program does, and the code that it ends with."""

PROGRAM = """
import atexit, os, sys, time, weakref
from signal import SIGHUP as HUP, SIGINT as INT, SIGTERM as TERM, SIGUSR1 as USR1, SIGUSR2 as USR2, SIGXCPU as XCPU
from jsubspace import endings
from jsubspace.errors import UsageError
from jsubspace.preemption import Preemption

signals = Preemption.current

def kill(number):
    os.kill(os.getpid(), number)

def weakref_kill(number):
    value = type("Empty", (), {})()
    reference = weakref.ref(value, lambda _: kill(number))
    del value

def swallowed(number):
    try:
        kill(number)
    except BaseException:
        pass

def wrapped(number):
    try:
        kill(number)
    except BaseException as error:
        raise UsageError("cannot save") from error

class Killing:
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        sys.stderr = self.stream
        kill(TERM)

for number in (HUP, INT, TERM, USR1, USR2, XCPU):
    import signal
    signal.signal(number, signal.default_int_handler if number == INT else signal.SIG_DFL)  # pytest may ignore some.
for case in sys.argv[1:]:
    print(f"CASE {case}", file=sys.stderr, flush=True)
    if not (pid := os.fork()):
        endings.run(lambda: exec(case))
    print("CODE", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=sys.stderr, flush=True)
"""


def test_how_a_process_ends():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *ENDS], cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=True
    )
    cases = [part.partition("\n") for part in done.stderr.split("CASE ")[1:]]
    found = {case: text for case, _, text in cases}
    assert {case: int(text.split("CODE ")[1]) for case, text in found.items()} == ENDS
    assert not [text for text in found.values() if "Traceback" in text or "ignored" in text]
    assert "stopped by SIGTERM, with RuntimeError: a library was interrupted." in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_a_program_imports(number, tmp_path):
    """The first import of all is jax, and here it is interrupted."""
    (tmp_path / "jax.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(9)\n")
    for name in ("main", "compare", "data.prepare"):
        done = subprocess.run(
            [sys.executable, "-m", f"jsubspace.{name}", "-m", "x"],
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        line = f"stopped by {number.name}. Run the same command again. Nothing had begun.\n"
        assert (done.returncode, done.stderr) == (errors.PREEMPTED, line)


def test_a_process_that_only_imports_the_library_is_left_alone(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("import jsubspace, signal\n")
    (tmp_path / "theirs" / "main.py").write_text(
        "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    (tmp_path / "sitecustomize.py").write_text(start)
    done = subprocess.run(
        [sys.executable, "-m", "theirs.main", "jsubspace.main"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
    )  # fmt: skip
    assert done.stdout == "True\nTrue\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_warning_that_is_ignored_already_ends_nothing(number):
    """Under nohup a closed terminal ends nothing."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Preemption() as signals:
            os.kill(os.getpid(), number)
            assert signals.received() is None
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("stream", [1, 2])
def test_a_closed_terminal_does_not_stop_the_end(stream):
    """After SIGHUP, a terminal that is gone refuses what is printed. The program ends with its code all the same."""
    code = (
        "import os, pty, signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # The tests may run under nohup.
        "from jsubspace import endings\nours, theirs = pty.openpty()\n"
        f"os.dup2(theirs, {stream})\nos.close(ours)\n"
        "def main():\n  try:\n    os.kill(os.getpid(), signal.SIGHUP)\n  finally:\n"
        "    print('x', flush=True)\n    print('y', file=sys.stderr, flush=True)\n"
        "endings.run(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == errors.PREEMPTED, done.stderr
