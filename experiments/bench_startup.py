"""Seconds from the command to the first step: ``python -m experiments.bench_startup --config=configs/digits_cresnet8_line.py``.

The benchmark starts a program that does the same as `jsubspace.main` up to its first step, and splits its time. *Import*
lasts until all modules are loaded, *data* until the pipeline is ready, *state* until the endpoints are initialised, and
*compile* until the first step has been taken. The first start has an empty compilation cache. The following starts have
the cache that the first one filled.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

PROGRAM = """
import json, sys, time
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
from jsubspace.training import parallel
settings = runpy.run_path(sys.argv[2])["get_config"]()
settings.data.dir = sys.argv[3]
program.use_compilation_cache()
parallel.use_cpu_cores()
jax.devices()
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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        for i in range(1 + arguments.warm):
            command = [sys.executable, "-c", PROGRAM, str(time.time()), arguments.config, arguments.data_dir]
            output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
            times = json.loads(output.splitlines()[-1])
            split = ", ".join(f"{name} {wall:.1f} and {cpu:.1f} s" for name, (wall, cpu) in times.items())
            wall, cpu = (sum(seconds) for seconds in zip(*times.values(), strict=True))
            print(f"{'full' if i else 'empty'} cache: {wall:6.1f} s, of CPU {cpu:.1f} s  ({split})", flush=True)


if __name__ == "__main__":
    main()
