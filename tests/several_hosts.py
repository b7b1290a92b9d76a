"""Starts several processes on this machine that train together, as the hosts of one run would."""

import json
import os
import socket
import subprocess
import sys

import quick_compiling
from places import REPOSITORY

PROGRAM = """
import json, sys, time
from jsubspace import program, runs
from jsubspace.preemption import Preemption
from jsubspace.runs import config, run
from jsubspace.training import hosts
from jsubspace.training.progress import Progress

def main():
    arguments = json.loads(sys.argv[1])
    step, evaluate = Progress.step, run.evaluate
    Progress.step = lambda self, count: (time.sleep(arguments["pause"]), step(self, count))
    run.evaluate = lambda *arguments: print("evaluating", flush=True) or evaluate(*arguments)
    several = arguments["hosts"] > 1
    with hosts.joined(arguments["timeout"], arguments["heartbeat"]) if several else Preemption() as preemption:
        settings = config.default()
        for field, value in arguments["fields"].items():
            config.change(settings, field, value)
        runs.train(settings, arguments["workdir"], preemption)

program.call(main)
"""

FIELDS = {
    "data.name": "digits",
    "model.name": "mlp",
    "model.depth": "2",
    "model.width": "8",
    "optimizer.num_epochs": "1",
    "optimizer.warmup_epochs": "0",
    "evaluation.num_points": "3",
    "evaluation.batch_size": "128",
    "evaluation.num_resamples": "20",
    "log_every_steps": "4",
    "checkpoint_every_epochs": "1",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def started(address, index, count, devices, workdir, fields, *, timeout=60, heartbeat=100, pause=0, program=PROGRAM):
    """A process: one of ``count`` hosts. It pauses after each step, if the moment of a signal is to be inside training."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {quick_compiling.FLAGS}",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(count),
        "JAX_PROCESS_ID": str(index),
        "PYTHONPATH": str(REPOSITORY),
    }
    arguments = {"hosts": count, "workdir": str(workdir), "fields": FIELDS | fields}
    arguments |= {"timeout": timeout, "heartbeat": heartbeat, "pause": pause}
    return subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(count, devices, workdir, data_dir, differ=({}, {}), **fields):
    """(exit code, error output) of each of ``count`` processes with so many devices each."""
    address = f"localhost:{free_port()}"
    fields = {"data.dir": data_dir} | fields
    processes = [started(address, i, count, devices, workdir, fields | differ[i]) for i in range(count)]
    outputs = [process.communicate(timeout=500)[1] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]
