"""Several processes, one per host, that act as one program: how they connect, agree on the settings, and who writes.

All processes run the same program with the same settings. Each reads its share of every batch (`data.shards`), and a step
returns the same on all of them. So the first one writes for all, and nothing else is different.
"""

import json
import os
import sys
import threading
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jsubspace.errors import USAGE, UsageError

TIMEOUT_SECONDS = 300
"""How long a host waits for the other hosts."""

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""``host:port`` of the first host, the number of hosts, and the number of this host.

TPU pods, SLURM and MPI provide them. Elsewhere they are set by hand.
"""

_LONGEST = 1 << 16


def join(timeout_seconds: int = TIMEOUT_SECONDS) -> None:
    """Connects to the other hosts. Call it before jax looks for devices.

    If they do not connect in time, the program ends with a message and exit code 2.

    Raises:
      UsageError: if the environment does not name the hosts.
    """
    count, index = (os.environ.get(name) for name in VARIABLES[1:])
    late = threading.Timer(timeout_seconds, _give_up, (timeout_seconds, count))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            num_processes=None if count is None else int(count),
            process_id=None if index is None else int(index),
            initialization_timeout=timeout_seconds + 60,  # Later than ours: JAX would abort with a stack of C++.
        )
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"--distributed does not know its hosts ({error}). Start it on a TPU pod, with srun or mpirun, or set "
            f"{', '.join(VARIABLES)} on every host."
        ) from error
    finally:
        late.cancel()


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
    here = json.loads(json.dumps(fields))
    text = json.dumps(here).encode()
    assert len(text) < _LONGEST
    sent = np.zeros(_LONGEST, np.uint8)
    sent[: len(text)] = np.frombuffer(text, np.uint8)
    first = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(sent))).rstrip(b"\0"))
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
