"""Runs commands of the package with the code of a checkout, without importing jax again for each."""

import gc
import importlib
import json
import os
import pathlib
import runpy
import subprocess
import sys
import traceback
from collections.abc import Sequence

IMPORTS = [
    "jax",
    "flax",
    "optax",
    "orbax.checkpoint",
    "ml_collections.config_flags",
    "matplotlib.pyplot",
    "tensorboardX",
    "tensorflow_datasets",
    "safetensors.numpy",
]
"""What every command would import again. They are imported once, before the commands are forked."""

LATER_IMPORTS = [
    "jsubspace.data.digits", "jsubspace.runs.run", "jsubspace.runs.figures", "jsubspace.runs.comparison_figure",
    "array_record.python.array_record_module", "jaxlib.mlir.dialects.mhlo", "matplotlib.backends.backend_agg", "sklearn.datasets",
    "tensorflow_datasets.core.dataset_metadata", "tensorflow_datasets.core.data_sources.array_record",
]  # fmt: skip
"""Modules of this checkout, and others that commands import when they need them, for a worker with very many commands."""


class Worker:
    """A process with the code of one checkout, which runs commands.

    Args:
      checkout: its folder.
      compiled: a folder for compiled programs, unless the environment names one.
      imports: modules that are imported before the commands are forked, besides those of every command.
      flags: more flags of XLA.
    """

    def __init__(
        self, checkout: pathlib.Path, compiled: pathlib.Path, imports: Sequence[str] = (), flags: str = ""
    ) -> None:
        flags = f"--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count=2 {flags}"
        own = {"PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "MPLBACKEND": "agg"}
        cache = {"JAX_COMPILATION_CACHE_DIR": str(compiled)}
        self._process = subprocess.Popen(
            [sys.executable, __file__, *imports],
            cwd=checkout, env=cache | os.environ | own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, commands: list[list[str]], log: pathlib.Path) -> None:
        """Starts commands, each as after ``python -m``, one after the other. `error` waits for them."""
        self._process.stdin.write(json.dumps({"commands": commands, "log": str(log)}) + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]

    def error(self) -> str:
        """The error that ended the commands, or ""."""
        return self.ending()[0]

    def ending(self) -> tuple[str, int]:
        """The error that ended the commands, or "", and the exit code of the last command."""
        return tuple(json.loads(self._process.stdout.readline()))  # type: ignore[union-attr]

    def end(self) -> None:
        """Ends the process."""
        self._process.communicate()


def work() -> None:
    """The worker's process: reads orders, and forks a process for each command."""
    for name in (*IMPORTS, *sys.argv[1:]):
        importlib.import_module(name)
    gc.freeze()  # The commands do not look for garbage among all that has been imported.
    for line in sys.stdin:
        order, error, code = json.loads(line), "", 0
        for command in order["commands"]:
            if code:
                break
            code = os.waitstatus_to_exitcode(os.waitpid(forked(command, order["log"]), 0)[1])
            if code:
                last = (pathlib.Path(order["log"]).read_text(errors="replace").strip().splitlines() or [""])[-1]
                error = f"{command[0]} failed: {last}"
        print(json.dumps([error, code]), flush=True)


def forked(command: list[str], log: str) -> int:
    """The id of a process that runs ``python -m`` with ``command``."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        with open(log, "a") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        sys.argv = command
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        if not sys.modules["jsubspace"].__file__.startswith(os.getcwd()):  # type: ignore[union-attr]
            print("the code is another checkout's", file=sys.stderr)
            code = 71
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    work()
