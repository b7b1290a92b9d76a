"""Several processes, one per host, that act as one program: how they connect, agree on the settings, and who writes.

All processes run the same program with the same settings. Each reads its share of every batch (`data.shards`), and a step
returns the same on all of them. So the first one writes for all, and nothing else is different.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jsubspace.errors import USAGE, UsageError, one_line
from jsubspace.preemption import Preemption
from jsubspace.storage import documents
from jsubspace.training import peers

TIMEOUT_SECONDS = 300
"""How long a host waits for the other hosts."""

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""``host:port`` of the first host, the number of hosts, and the number of this host.

TPU pods, SLURM and MPI provide them. Elsewhere they are set by hand.
"""

_LONGEST = 1 << 16


@contextlib.contextmanager
def joined(
    timeout_seconds: int = TIMEOUT_SECONDS, heartbeat_seconds: int = peers.HEARTBEAT_SECONDS
) -> Iterator[Preemption]:
    """Connects to the other hosts, listens to signals, and leaves them at the end. Enter it before jax looks for devices.

    If they do not connect in time, the program ends with a message and exit code 2. If one of them is lost later, the program
    ends with a message and exit code 75. An exception inside of this context ends the process, see `peers.together`.

    Args:
      timeout_seconds: how long to wait until all hosts have connected.
      heartbeat_seconds: a host that has given no sign of life for so long is lost.

    Raises:
      UsageError: if the environment does not name the hosts.
    """
    Preemption.current().leave()  # jax will listen for SIGTERM.
    count, index = (os.environ.get(name) for name in VARIABLES[1:])
    late = threading.Timer(timeout_seconds, _give_up, (timeout_seconds, count))
    late.daemon = True
    late.start()
    # Nothing has begun, and Python's handlers would wait until all have connected.
    _, interrupt = (signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT))
    try:
        peers.connect(
            heartbeat_seconds,
            num_processes=None if count is None else int(count),
            process_id=None if index is None else int(index),
            initialization_timeout=timeout_seconds + 60,  # Later than ours: JAX would abort with a stack of C++.
        )
    except RuntimeError as error:
        raise UsageError(
            f"cannot connect to the other hosts: {one_line(error)}. {VARIABLES[0]} must name a free port of the first host, and "
            "every host needs a number of its own."
        ) from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"--distributed does not know its hosts ({error}). Start it on a TPU pod, with srun or mpirun, or set "
            f"{', '.join(VARIABLES)} on every host."
        ) from error
    finally:
        late.cancel()
        signal.signal(signal.SIGINT, interrupt)
    with Preemption(peers.announcement()) as preemption, peers.together():
        yield preemption


def _give_up(timeout_seconds: int, count: str | None) -> None:
    """Ends the program from a second thread. Nothing else can interrupt the thread that waits."""
    first = os.environ.get(VARIABLES[0], "the first host")
    print(
        f"error: not all {count or ''} hosts connected within {timeout_seconds} seconds, or {first} cannot be reached. Start "
        "the same command on every host, and read the output of the hosts that did not connect.".replace("  ", " "),
        file=sys.stderr,
        flush=True,
    )
    os._exit(USAGE)


def is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def check_same(fields: dict[str, Any]) -> None:
    """Returns when all hosts have called it with the same settings.

    Args:
      fields: the settings that must agree, by their names.

    Raises:
      UsageError: on every host if one host has other values. Its message has the values that differ from the first host's.
    """
    if jax.process_count() == 1:
        return
    text = documents.to_json(fields).encode()
    here = documents.from_json(text)
    assert len(text) < _LONGEST
    sent = np.zeros(_LONGEST, np.uint8)
    sent[: len(text)] = np.frombuffer(text, np.uint8)
    first = documents.from_json(bytes(np.asarray(multihost_utils.broadcast_one_to_all(sent))).rstrip(b"\0"))
    different = [
        f"  {name}: {first.get(name)!r} on the first host, {here.get(name)!r} here"
        for name in sorted({*first, *here})
        if first.get(name) != here.get(name)
    ]
    others = np.ravel(multihost_utils.process_allgather(np.array(bool(different))))
    if different:
        raise UsageError("this host has other settings than the first:\n" + "\n".join(different))
    if others.any():
        raise UsageError(
            f"host {', '.join(map(str, np.flatnonzero(others)))} has other settings than this one. Its output says which settings "
            "differ. Start the same command on every host."
        )


def wait_for_all(name: str) -> None:
    """Returns when all hosts have called it with this ``name``."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
