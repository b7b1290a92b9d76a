"""One of two hosts is killed, stopped or preempted: the other ends with one message, and both resume to the same bits."""

import contextlib
import json
import random
import signal
import time

import pytest
from several_hosts import FIELDS, free_port, run, started
from whole_runs import final_state, same, without_speed

from jsubspace.errors import PREEMPTED, USAGE, UsageError
from jsubspace.runs import config
from jsubspace.storage.schema import Mismatch
from jsubspace.storage.writer import read_rows
from jsubspace.training import peers

LONG = {
    "optimizer.num_epochs": "40",
    "checkpoint_every_epochs": "4",
    "evaluation.every_epochs": "16",
    "model.depth": "1",
    "data.num_validation": "237",
    "data.batch_size": "400",  # The digits that are left are three equal batches.
}
STEPS = 40 * 3

SECONDS = 20
"""The heartbeats' limit in these tests. A host that is lost in silence must be noticed in this time."""

CONNECTING = 60
"""How long a host waits for the other at the start. The machine may be busy."""

UGLY = ("Traceback", "Check failure", "terminate called", "Fatal Python error", "core dumped")


WAITING = """
import json, sys, time
import jax
from jsubspace import program
from jsubspace.errors import UsageError
from jsubspace.training import hosts

def main():
    arguments = json.loads(sys.argv[1])
    with hosts.joined(arguments["timeout"], arguments["heartbeat"]):
        print("connected", flush=True)
        if str(jax.process_index()) in arguments["fields"].get("refusing", ""):
            raise UsageError(f"host {jax.process_index()} refuses")
        time.sleep(arguments["pause"])

program.call(main)
"""


class Pair:
    """Two processes that train together in a folder."""

    def __init__(self, address, workdir, fields, **arguments):
        self.workdir = workdir
        arguments = {"timeout": CONNECTING, "heartbeat": SECONDS, "pause": 0.02} | arguments
        self.processes = [started(address, i, 2, 1, workdir, fields, **arguments) for i in range(2)]

    def rows(self):
        file = self.workdir / "metrics.jsonl"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def wait_for_rows(self, count):
        """Returns when the run has written so many rows, or when one of the processes has ended."""
        while self.rows() < count and all(process.poll() is None for process in self.processes):
            time.sleep(0.02)

    def ends(self, timeout, which=(0, 1)):
        """(exit code, error output) of the processes, within so many seconds."""
        ended = []
        for process in [self.processes[i] for i in which]:
            _, text = process.communicate(timeout=timeout)
            assert not [word for word in UGLY if word in text], text
            ended.append((process.returncode, text))
        return ended


@contextlib.contextmanager
def pair(*arguments, **more):
    two = Pair(*arguments, **more)
    try:
        yield two
    finally:
        for process in two.processes:
            process.kill()
            process.communicate()


def settings_of(fields):
    settings = config.default()
    for field, value in (FIELDS | fields).items():
        config.change(settings, field, value)
    return settings


@pytest.fixture(scope="module")
def fields(data_dir):
    return LONG | {"data.dir": data_dir}


@pytest.fixture(scope="module")
def undisturbed(fields, tmp_path_factory):
    """The folder of a run of two hosts that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    for code, output in run(2, 1, folder, fields["data.dir"], **LONG):
        assert code == 0, output
    return folder


def same_run(folder, other, fields):
    """Asserts that two runs have the same bits."""
    same(*(final_state(settings_of(fields), path) for path in (folder, other)))
    assert without_speed(read_rows(folder)) == without_speed(read_rows(other))
    one, two = (json.loads((path / "results.json").read_text()) for path in (folder, other))
    assert one.pop("seconds") != two.pop("seconds")
    assert one == two


def saved(workdir):
    return {int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()}


def test_hosts_are_preempted_together_and_lost_alone_and_resume_to_the_same_bits(undisturbed, fields, tmp_path):
    workdir, address = tmp_path / "run", f"localhost:{free_port()}"
    with pair(address, workdir, fields) as two:
        two.wait_for_rows(8)  # Twelve steps have seven rows.
        two.processes[1].send_signal(signal.SIGTERM)
        ended = two.ends(30)
    step = max(saved(workdir))
    for code, text in ended:
        assert code == PREEMPTED
        assert f"stopped by preemption and saved after step {step}. The same command resumes from there.\n" in text
    assert 12 <= step < STEPS
    with pair(address, workdir, fields) as two:
        two.wait_for_rows(two.rows() + 4)
        two.processes[1].kill()
        ((code, text),) = two.ends(SECONDS, [0])
    assert code == PREEMPTED
    assert text.count(peers.LOST) == 1
    assert "results.json" not in [path.name for path in workdir.iterdir()]
    for code, text in run(2, 1, workdir, fields["data.dir"], **LONG):
        assert code == 0, text
    same_run(undisturbed, workdir, fields)


def waiting(tmp_path, **fields):
    return pair(f"localhost:{free_port()}", tmp_path, fields, program=WAITING, pause=60)


@pytest.mark.slow
def test_a_host_that_only_waits_is_told_of_the_loss(tmp_path):
    """No collective fails here. jax's service is gone, and jax would end the other host by SIGABRT."""
    with waiting(tmp_path) as two:
        for process in two.processes:
            assert process.stdout.readline() == "connected\n"
        two.processes[0].kill()
        ((code, text),) = two.ends(SECONDS, [1])
    assert code == PREEMPTED
    assert text.count(peers.LOST) == 1


@pytest.mark.slow
def test_an_error_of_one_host_ends_the_others_with_another_message(tmp_path):
    with waiting(tmp_path, refusing="1") as two:
        (code, text), (own, own_text) = two.ends(CONNECTING + peers.LEAVING_SECONDS + SECONDS)
    assert (code, own) == (PREEMPTED, USAGE)
    assert peers.LOST in text
    assert "error: host 1 refuses\n" in own_text
    assert peers.LOST not in own_text


def test_an_error_of_all_hosts_ends_each_with_its_own_message(tmp_path):
    with waiting(tmp_path, refusing="01") as two:
        ended = two.ends(CONNECTING + peers.LEAVING_SECONDS)
    for i, (code, text) in enumerate(ended):
        assert code == USAGE
        assert f"error: host {i} refuses\n" in text
        assert peers.LOST not in text


ATTACKS = [
    (moment, number, host)
    for moment, hosts in (("training", (0, 1)), ("start", (1,)), ("start", (0,)), ("evaluation", (0, 1)))
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM)
    for host in hosts
]


def attack(two, moment, number, host, chance):
    """Sends a signal to a host at a random moment, and asserts how both hosts end. Returns what happened, as a line."""
    if moment == "start":
        time.sleep(chance.uniform(0, 20))
    elif moment == "training":
        two.wait_for_rows(two.rows() + chance.randrange(1, 8))
        time.sleep(chance.uniform(0, 0.1))
    else:
        assert "evaluating\n" in iter(two.processes[0].stdout.readline, "")  # gloo writes there too.
        time.sleep(chance.uniform(0, 1.5))
    before = [process.poll() for process in two.processes]
    two.processes[host].send_signal(number)
    began = time.monotonic()
    ((code, text),) = two.ends(SECONDS + CONNECTING + peers.LEAVING_SECONDS + 10, [1 - host])
    seconds = time.monotonic() - began
    if number == signal.SIGSTOP:
        two.processes[host].send_signal(signal.SIGCONT)
    ((own, own_text),) = two.ends(SECONDS + CONNECTING + peers.LEAVING_SECONDS + 10, [host])
    what = f"{moment}, {number.name} to host {host} {before}: {own}, the other {code} after {seconds:.1f} s"
    print(what, text[-300:], own_text[-300:], sep="\n  ", flush=True)
    if code == USAGE:
        assert moment == "start", what
        assert "not all 2 hosts connected" in text
    elif code == PREEMPTED:
        assert (peers.LOST in text) + ("stopped by preemption" in text) == 1, text
        assert seconds < SECONDS + peers.LEAVING_SECONDS, what
    else:
        assert (moment, code) == ("evaluation", 0), what
    allowed = {signal.SIGKILL: {-9}, signal.SIGTERM: {PREEMPTED, -15}, signal.SIGSTOP: {PREEMPTED, USAGE}}[number]
    assert own in allowed | {0} if moment == "evaluation" else allowed, what
    return what


@pytest.mark.slow
def test_attacks_at_random_moments(undisturbed, fields, tmp_path):
    chance, address = random.Random(0), f"localhost:{free_port()}"
    for moment, number, host in ATTACKS:
        (tmp_path / "run" / "results.json").unlink(missing_ok=True)  # The run may have ended before it was attacked.
        with pair(address, tmp_path / "run", fields) as two:
            attack(two, moment, number, host, chance)
    for code, output in run(2, 1, tmp_path / "run", fields["data.dir"], **LONG):
        assert code == 0, output
    same_run(undisturbed, tmp_path / "run", fields)


def test_ordinary_errors_are_no_loss():
    """A path, a field and a closed pipe may have the words of a lost host."""
    full = UsageError("cannot write")
    full.__cause__ = OSError(28, "No space left on device", "/runs/heartbeat/metrics.jsonl")
    damaged = UsageError("damaged")
    damaged.__cause__ = Mismatch("results.json.connector lacks the field 'barrier'")
    for error in (full, damaged, BrokenPipeError(32, "Broken pipe")):
        assert not peers.is_loss(error)
    assert peers.is_loss(RuntimeError("UNAVAILABLE: the coordination service has gone"))
