"""Seconds from the command to the first step: ``python -m experiments.bench_startup --config=configs/digits_cresnet8_line.py``.

The benchmark starts a program that does the same as `jsubspace.main` up to its first step, and splits its time. *Import*
lasts until all modules are loaded, *data* until the pipeline is ready, *state* until the endpoints are initialised, and
*compile* until the first step has been taken. The first start has an empty compilation cache. The following starts have
the cache that the first one filled. CPU time is printed beside the wall time, because a busy machine changes it less.

A table then says which packages the time of the imports goes to. A module's time is the smallest of several starts.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time

IMPORTS = """
import gc, importlib, sys
gc.disable()
relative = importlib.import_module
importlib.import_module = lambda name, package=None: (
    relative(name, package) if package else __import__(name) and sys.modules[name])
import jsubspace.main
"""
"""What the table of imports measures. A program imports without the collector (`jsubspace.collector`). Python's own table counts
what ``importlib.import_module`` imports as time of the module that calls it."""

PROGRAM = """
import gc, json, sys, time
gc.disable()  # As jsubspace.collector does.
started = float(sys.argv[1])
times = {}

def lap(name):
    global started
    now, cpu = time.time(), time.process_time()
    times[name] = round(now - started, 2), round(cpu - sum(spent for _, spent in times.values()), 2)
    started = now

import runpy
import jax
from jsubspace import main, program
from jsubspace.runs import build, feeding, stacks
from jsubspace.training import device_choice
settings = runpy.run_path(sys.argv[2])["get_config"]()
settings.data.dir = sys.argv[3]
program.use_compilation_cache()
device_choice.use_cpu_cores()
jax.devices()
gc.freeze()
gc.enable()
lap("import")
run = build.build(settings)
fed = feeding.feed(run)
steps, batch = next(fed.batches(0, None))
lap("data")
state = jax.block_until_ready(run.devices.put(stacks.init_state(run), run.shardings))
lap("state")
jax.block_until_ready(fed.program(len(steps))(state, batch, run.devices.put(run.key)))
lap("compile")
print(json.dumps(times))
"""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench_startup", description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/digits_cresnet8_line.py")
    parser.add_argument("--data_dir", default="", help="of prepared data")
    parser.add_argument("--warm", type=int, default=2, help="starts with a full cache")
    parser.add_argument("--imports", type=int, default=5, help="starts for the table of imports (0 for no table)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        environment = _environment() | {"JAX_COMPILATION_CACHE_DIR": cache}
        for i in range(1 + arguments.warm):
            command = [sys.executable, "-c", PROGRAM, str(time.time()), arguments.config, arguments.data_dir]
            output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
            times = json.loads(output.splitlines()[-1])
            wall, cpu = (
                f"{sum(part[clock] for part in times.values()):6.1f} s  ("
                + ", ".join(f"{name} {part[clock]:.1f} s" for name, part in times.items())
                + ")"
                for clock in (0, 1)
            )
            print(f"{'full' if i else 'empty'} cache: {wall}, CPU {cpu}", flush=True)
    if arguments.imports:
        print("\n" + imports(arguments.imports))


def imports(starts: int, most: int = 12) -> str:
    """The milliseconds of the imports by package, as Markdown. The last row has the packages beyond the first ``most``."""
    least: dict[str, int] = {}
    for _ in range(starts):
        command = [sys.executable, "-X", "importtime", "-c", IMPORTS]
        text = subprocess.run(command, env=_environment(), stderr=subprocess.PIPE, text=True, check=True).stderr
        for spent, module in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", text):
            least[module] = min(int(spent), least.get(module, int(spent)))
    packages, modules = collections.Counter[str](), collections.Counter[str]()
    for module, spent in least.items():
        packages[module.partition(".")[0]] += spent
        modules[module.partition(".")[0]] += 1
    listed = packages.most_common()
    rows = [(f"`{name}`", modules[name], spent) for name, spent in listed[:most]]
    rest = [name for name, _ in listed[most:]]
    rows.append((f"{len(rest)} others", sum(modules[name] for name in rest), sum(packages[name] for name in rest)))
    rows.append(("all", len(least), sum(least.values())))
    lines = [f"| {name} | {count} | {spent / 1000:.0f} |" for name, count, spent in rows]
    return "\n".join(["| package | modules | ms |", "| --- | --- | --- |", *lines])


def _environment() -> dict[str, str]:
    """This environment, but Python keeps compiled modules, as it does unless it is told not to."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


if __name__ == "__main__":
    main()
