"""Signals end a program at any moment: a step is finished and saved first, and a second signal ends the process at once."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import jax
import numpy as np
import pytest
from whole_runs import final_state

from jsubspace import errors, program, runs
from jsubspace import preemption as preemption_lib
from jsubspace.errors import Preempted
from jsubspace.preemption import SIGNALS, Preemption
from jsubspace.runs import build
from jsubspace.runs.run import train_endpoints
from jsubspace.storage.checkpoint import Checkpoints
from jsubspace.storage.journal import Journal
from jsubspace.storage.writer import read_rows


def steps_in(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_kept_where_a_loop_holds_it_and_raises_elsewhere(number):
    before = [signal.getsignal(n) for n in SIGNALS]
    message = f"stopped by {number.name}. Run the same command again."

    def hold(preemption):
        with preemption.held():
            assert preemption.received() is None
            os.kill(os.getpid(), number)
            assert preemption.received() == number.name
            preemption.check()
            held.append(number)

    held = []
    with Preemption() as preemption, pytest.raises(Preempted, match=message):
        hold(preemption)
    assert held == [number]
    with Preemption(), pytest.raises(Preempted, match=message):
        os.kill(os.getpid(), number)
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_nothing_is_installed_outside_of_the_main_thread_or_if_it_is_not_entered():
    before = [signal.getsignal(n) for n in SIGNALS]
    found = []

    def enter():
        with Preemption() as preemption:
            found.append(([signal.getsignal(n) for n in SIGNALS], preemption.received()))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(before, None)]
    with Preemption().held():
        assert [signal.getsignal(n) for n in SIGNALS] == before


class Dropper:
    """Python drops what a ``__del__`` raises."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


def in_a_weakref():
    value = Dropper.__new__(type("Empty", (), {}))
    reference = weakref.ref(value, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del value
    assert reference() is None


def in_a_del():
    Dropper()


def in_the_garbage_collector():
    def collected(phase, info):
        gc.callbacks.remove(collected)
        os.kill(os.getpid(), signal.SIGTERM)

    gc.callbacks.append(collected)
    gc.collect()


PLACES = [in_a_weakref, in_a_del, in_the_garbage_collector]


@pytest.mark.parametrize("place", PLACES)
def test_what_python_drops_is_raised_once_more(place, capfd):
    with Preemption() as preemption:
        place()
        assert preemption.received() == "SIGTERM"
        with pytest.raises(Preempted):
            time.sleep(20)
    assert "ignored" not in capfd.readouterr().err


def test_a_main_thread_that_waits_is_woken():
    """A signal that another thread takes, or that arrives just before a wait for a lock, does not end the wait."""
    with Preemption():
        (listener,) = (thread for thread in threading.enumerate() if thread.name == "preemption")
        threading.Timer(0.2, lambda: signal.pthread_kill(listener.ident, signal.SIGTERM)).start()
        with pytest.raises(Preempted):
            threading.Event().wait(60)


@pytest.mark.parametrize("place", PLACES)
def test_what_python_drops_is_raised_at_the_next_check(place, monkeypatch):
    monkeypatch.setattr(Preemption, "_wake", lambda self: False)
    with Preemption():
        place()
        with pytest.raises(Preempted):
            preemption_lib.check()
    preemption_lib.check()


def test_other_exceptions_that_python_drops_are_still_told():
    class Broken:
        def __del__(self):
            raise KeyError("told")

    told, before = [], sys.unraisablehook
    sys.unraisablehook = told.append
    try:
        with Preemption():
            Broken()
    finally:
        sys.unraisablehook = before
    assert [dropped.exc_type for dropped in told] == [KeyError]


class HalfMade:
    def __del__(self):
        raise AttributeError("half made")


def test_what_a_signal_leaves_half_made_does_not_complain(monkeypatch):
    """A signal during the creation of an asyncio loop left a loop whose __del__ failed."""
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with Preemption():
        with pytest.raises(Preempted):
            os.kill(os.getpid(), signal.SIGTERM)
        HalfMade()
    assert told == []


def test_a_signal_does_not_leave_orbax_half_way(tmp_path):
    steps = []
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def restore():
        with Preemption(), checkpoints._told("restore from"):
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("restored")

    with pytest.raises(Preempted):
        restore()
    assert steps == ["restored"]
    with checkpoints:
        pass


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_even_what_does_not_return_to_python(number, code):
    program = (
        "import hashlib\nfrom jsubspace.preemption import Preemption\n"
        "with Preemption() as preemption, preemption.held():\n"
        "  print('ready', flush=True)\n  hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # minutes, in C
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert (
        f"{number.name}: ending as soon as possible. Send it once more to end at once.".encode()
        in process.stderr.readline()
    )
    assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code


def test_a_run_goes_on_from_the_very_step(tiny_mlp, tmp_path, monkeypatch):
    """Interrupted inside an epoch and inside a window of the log, by a signal and as a notebook's Ctrl-C."""
    tiny_mlp.num_devices = 1
    run = build.build(tiny_mlp)
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    train_endpoints(run, tmp_path / "whole", Preemption())
    add = Journal.add

    def interrupt_at(step_of_interruption, interruption):
        def add_and_interrupt(self, step, info):
            add(self, step, info)
            if step == step_of_interruption:
                interruption()

        monkeypatch.setattr(Journal, "add", add_and_interrupt)

    def stopped():
        with Preemption() as preemption:
            return train_endpoints(run, tmp_path / "stopped", preemption)

    def terminated():
        """What systemd sends with SendSIGHUP=yes."""
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGHUP)

    interrupt_at(17, terminated)
    with pytest.raises(SystemExit) as exit_info:
        program.call(stopped)
    assert exit_info.value.code == errors.PREEMPTED == 75
    assert steps_in(tmp_path / "stopped") == [12, 17]

    def ctrl_c():
        raise KeyboardInterrupt

    interrupt_at(29, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train_endpoints(run, tmp_path / "stopped", Preemption())
    assert steps_in(tmp_path / "stopped") == [17, 24]

    monkeypatch.setattr(Journal, "add", add)
    stopped()
    states = [final_state(tiny_mlp, tmp_path / name) for name in ("whole", "stopped")]
    jax.tree.map(np.testing.assert_array_equal, *states)
    rows = [
        [{name: row[name] for name in row if name != "images_per_second"} for row in read_rows(tmp_path / name)]
        for name in ("whole", "stopped")
    ]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0] if row["kind"] == "train"] == [5, 10, 15, 20, 25, 30, 35, 36]


def test_a_signal_after_the_last_step_ends_training_before_evaluation(tiny_mlp, tmp_path, monkeypatch):
    tiny_mlp.optimizer.num_epochs, tiny_mlp.optimizer.warmup_epochs = 1, 0
    save = Checkpoints.save

    def save_and_interrupt(self, state, step, *rest):
        save(self, state, step, *rest)
        if step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "save", save_and_interrupt)
    with Preemption(), pytest.raises(Preempted):
        runs.train(tiny_mlp, tmp_path / "run")
    assert steps_in(tmp_path / "run")[-1] == 12
    assert not (tmp_path / "run" / "per_example.npz").exists()
    assert runs.train(tiny_mlp, tmp_path / "run")["finished"]


def test_machines_that_train_together_ask_orbax(tiny_mlp, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "reached_preemption", lambda self, step: step == 3)
    with pytest.raises(Preempted, match="stopped by preemption and saved after step 3"):
        runs.train(tiny_mlp, tmp_path / "run")
    assert steps_in(tmp_path / "run") == [3]
