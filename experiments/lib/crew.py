"""Trains the jobs that are missing, several at once, and records the commit, machine and time of each."""

import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.lib import jobs, provenance
from experiments.lib.jobs import Job
from jsubspace.errors import DIVERGED, PREEMPTED, UsageError
from jsubspace.preemption import Preemption

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

ONE_CORE = "--xla_cpu_multi_thread_eigen=false"
"""XLA's threads for single operations gain nothing on small images. Without them a job is one core's work."""


def finish(
    declared: Sequence[Job], root: pathlib.Path, at_once: int, after: Callable[[Job], None] | None = None
) -> None:
    """Trains the missing jobs of ``declared`` and the missing jobs that they start from. An interrupted job resumes.

    Args:
      declared: jobs to be finished.
      root: the folder of their folders.
      at_once: how many are trained at once.
      after: is called with every job that has been trained, one job at a time. With it, a job that diverges is a result:
        its row of `trained` says so in ``diverged``.

    Raises:
      UsageError: if a job fails. The message has the last line of its log.
      Preempted: after a signal. The jobs under way have been saved.
    """
    ordered = jobs.in_order(declared)
    made = trained(ordered, root)

    def is_done(job: Job) -> bool:  # A run may have ended just before this program was killed, and was not noted.
        return jobs.results(job, root) is not None and (after is None or job.name in made)

    missing = [job for job in ordered if not is_done(job)]
    if not missing:
        return
    print(f"{len(missing)} of {len(ordered)} runs to do, {at_once} at once, in {root}", flush=True)
    crew = _Crew(root, len(missing), after)
    with Preemption(), concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        # In this order a job that waits for another never keeps the other from being started.
        futures: dict[Job, concurrent.futures.Future[None]] = {}
        try:
            for job in missing:
                before = [futures[start] for start in job.starts if start in futures]
                futures[job] = pool.submit(crew.train, job, before)
            for future in concurrent.futures.as_completed(futures.values()):
                future.result()
        except BaseException:
            crew.stop()
            raise


def trained(declared: Sequence[Job], root: pathlib.Path) -> dict[str, dict[str, Any]]:
    """For each job that `finish` has trained in ``root``: the commit, the seconds and the machine, by the job's name.

    ``cpu_seconds`` do not depend on other work of the machine. A job that was interrupted has the seconds of its last part.
    """
    path, names = root / "trained.jsonl", {job.name for job in jobs.in_order(declared)}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = (json.loads(line) for line in lines)
    return {row.pop("run"): row for row in rows if row["run"] in names}


def _with_one_core() -> str:
    """The flags of this process for XLA, and `ONE_CORE`."""
    return f"{os.environ.get('XLA_FLAGS', '')} {ONE_CORE}".strip()


class _Crew:
    """Trains jobs in processes of their own, and ends them together."""

    def __init__(self, root: pathlib.Path, total: int, after: Callable[[Job], None] | None) -> None:
        self._root, self._total, self._done, self._after = root, total, 0, after
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopped, self._lock = False, threading.Lock()

    def train(self, job: Job, before: Sequence[concurrent.futures.Future[None]]) -> None:
        """Trains one job, after the jobs that it starts from."""
        for future in before:
            future.result()
        log = (self._root / job.name).with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with log.open("ab") as output:
            with self._lock:
                if self._stopped:
                    return
                # The process has a session of its own: the terminal's SIGINT reaches it through `stop` alone.
                process = subprocess.Popen(
                    [sys.executable, *job.command(self._root)],
                    cwd=REPOSITORY,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | ({"XLA_FLAGS": _with_one_core()} if job.scenario.one_core else {}),
                    start_new_session=True,
                )
                self._processes.add(process)
            made_at, (code, cpu_seconds) = provenance.commit(), _ended(process)
        self._processes.discard(process)
        if code == PREEMPTED or (self._stopped and code):
            return
        diverged = code == DIVERGED and self._after is not None
        last = ""
        if code:
            last = " ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:])
        if code and not diverged:
            raise UsageError(f"{job.name} ended with exit code {code}: {last} (the whole log is {log})")
        with self._lock:
            self._done += 1
            seconds = round(time.monotonic() - start, 1)
            row = {"run": job.name, "commit": made_at, "seconds": seconds, "cpu_seconds": cpu_seconds}
            row |= {"machine": provenance.machine()} | ({"diverged": last} if diverged else {})
            with (self._root / "trained.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"[{self._done}/{self._total}] {job.name}: {seconds:.0f} s", flush=True)
            if self._after is not None:
                self._after(job)

    def stop(self) -> None:
        """Asks every job to save and end. The threads of `train` wait until all have ended."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.send_signal(signal.SIGTERM)


def _ended(process: "subprocess.Popen[bytes]") -> tuple[int, float]:
    """Waits for the end of a process. Returns its exit code, and the seconds of all cores that it and its children took."""
    try:
        _, status, used = os.wait4(process.pid, 0)
    except ChildProcessError:  # `stop` looked first whether it had ended.
        return process.wait(), 0.0
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, round(used.ru_utime + used.ru_stime, 1)
