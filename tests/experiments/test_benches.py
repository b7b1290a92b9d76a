"""The benchmarks' commands run: they call the package in many places, and nothing else would notice a moved name."""

import os
import re
import subprocess
import sys

import pytest
from places import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ("bench_step --batch_size=8 --methods line --rounds=1 --steps=1", r"line +[\d.]+ ms  ratio "),
        ("bench_evaluate --train=128 --test=64 --width=2 --points=3 --rounds=1", r"at once is [\d.]+ times as fast"),
        (
            "bench_points --points=3 --rounds=1 --batches=1",
            r"first call \| \d+[\s\S]*\| wall \| ensembles \| [\d.]+ \|",
        ),
        ("bench_startup --warm=0 --imports=1", r"empty cache: +[\d.]+ s  \(import [\s\S]*\| `jax` \| \d+ \| \d+ \|"),
        ("bench_dense --cases=line --rounds=1 --steps=2", r"\| line \| [\d.]+ \| [\d.]+ \| "),
        ("bench_loop --rounds=1 --steps=9 --steps_per_dispatch=3", r"loop +[\d.]+ ms   over scan [\d.]+ \("),
        (
            "bench_gpu --networks cresnet20 resnet50 --ways line --steps=2 --rounds=1 --output={}/rows.json",
            r"cresnet20/line: \d+ images/s[\s\S]*resnet50/line: \d+ images/s[\s\S]*6 rows, 14 not done",
        ),
        ("bench_data --set=digits --seconds=0.2 --rounds=1", r"both together +\d+ images/s"),
    ],
)
def test_a_benchmark_runs(arguments, printed, data_dir, tmp_path):
    module, *options = arguments.format(tmp_path).split()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "JSUBSPACE_DATA_DIR": data_dir}
    command = [sys.executable, "-m", f"experiments.{module}", *options]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(printed, done.stdout), done.stdout
