"""Kills and interrupts runs at random moments: ``python -m experiments.stress --kills=200`` and ``--signals=1000``.

A small MLP is trained on the digits, by every method in turn and with a checkpoint after each epoch. The first run is
undisturbed, and the second run is attacked and started again until it ends. In the end parameters, optimizer state, metrics,
TensorBoard points and results must equal the undisturbed run's, bit for bit.

``--kills`` attacks training by SIGKILL, and sometimes by SIGTERM. The moments are drawn at random from the whole run and from
inside its saves. Between two lives a checkpoint is sometimes damaged: a bit is flipped, or a file is cut or deleted. The
report is ``report.json``.

``--signals`` attacks training, evaluation, export and comparison by SIGTERM and SIGINT, sometimes by a second signal after a
short time. The moments are uniform over the whole life of a process, from its start to its exit. Every exit code must be
documented for what was sent, and no output may have a traceback. The report is ``signals.json``.

``--problem=FILE`` kills the training of a problem of your own, which the config file defines (docs/own_problem.md), in the
place of all methods.

Every life is a process of its own that runs ``python -m jsubspace.main``. It is forked from a process that has done the
imports. One in twenty lives under signals is a new Python, which imports. The reports are written after each life. Started
again with the same folder, the command resumes.
"""

import argparse
import os
import pathlib
import sys

import jax
import matplotlib.pyplot  # noqa: F401  This and the others that are not used: what each life would import again.
import orbax.checkpoint  # noqa: F401
import tensorboardX  # noqa: F401
import tensorflow_datasets  # noqa: F401

import jsubspace.runs.run  # noqa: F401
from experiments.lib.kills import Kills
from experiments.lib.life import in_a_process
from experiments.lib.signals import Signals
from jsubspace import program
from jsubspace.data import prepare


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.stress", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=0, help="kill until the report has this number of kills")
    parser.add_argument(
        "--signals", type=int, default=0, help="send signals until the report has this number of signals"
    )
    parser.add_argument("--minutes", type=float, default=0, help="stop after this time, or before")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the moments and the damage")
    parser.add_argument(
        "--folder",
        type=pathlib.Path,
        default=pathlib.Path("runs/stress"),
        help="the folder of the runs and the reports",
    )
    parser.add_argument("--problem", type=pathlib.Path, help="a config file with get_problem(config), for --kills")
    arguments = parser.parse_args()
    if bool(arguments.kills > 0) == bool(arguments.signals > 0):
        parser.error("say --kills=N or --signals=N")
    if arguments.problem and not arguments.kills:
        parser.error("--problem goes with --kills=N")
    compiled = (arguments.folder / "compiled").absolute()
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    folder, problem = arguments.folder.absolute(), arguments.problem and arguments.problem.absolute()
    if problem is None:
        in_a_process(
            lambda: str(prepare.prepare("digits"))
        )  # Its readers have threads, which a forked life would lack.
    attack = Kills(folder, arguments.seed, problem) if arguments.kills > 0 else Signals(folder, arguments.seed)
    sys.exit(0 if attack.run(max(arguments.kills, arguments.signals), arguments.minutes) else 1)


if __name__ == "__main__":
    program.run(main)
