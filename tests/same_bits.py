"""Compares the numbers of this checkout with another revision's, to the bit: ``python tests/same_bits.py --base=REV``.

Every method is trained for a few steps and exported by the public commands, once with the code of each revision, on one
machine. Everything that must not change is then compared: the rows of metrics.jsonl without their speed, the exported
networks, and the measurements in results.json. The script knows commands and file formats alone, so modules may move.

It prints one line per method and exits with 1 if a number differs. A newer revision may record more: a field that only
the base has is a difference, and a field that only this checkout has is not. It takes ten minutes on two busy cores.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from bits import differences
from forked_commands import Worker

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

SETTINGS: dict[str, Any] = {
    "model.name": "mlp",
    "model.depth": 1,
    "model.width": 16,
    "data.num_train": 400,  # three batches of 128 and a smaller one
    "optimizer.num_epochs": 2,
    "optimizer.warmup_epochs": 1,
    "evaluation.num_points": 3,
    "evaluation.num_random_points": 2,
    "evaluation.num_resamples": 20,
    "evaluation.batch_size": 128,
    "log_every_steps": 3,
    "checkpoint_every_epochs": 2,
    "num_devices": 1,
}

CRESNET = {"model.name": "cresnet", "model.depth": 8, "model.width": 4}
POINT = {"subspace.name": "point"}
SIMPLEX = {"subspace.name": "simplex", "subspace.num_endpoints": 3}


class Method(NamedTuple):
    """One training run.

    Attributes:
      fields: settings that differ from `SETTINGS`. The config file trains a line.
      end: alpha of an end, as the export takes it, or "" for a single network.
      starts: names of the methods whose runs it starts from.
    """

    fields: dict[str, Any]
    end: str = "0"
    starts: tuple[str, ...] = ()


def collecting(schedule: str, num_epochs: int, **fields: Any) -> Method:
    """A method that collects three networks, which are evaluated as a simplex."""
    budget = {"optimizer.schedule": schedule, "optimizer.num_epochs": num_epochs, "optimizer.num_collected": 3}
    return Method(POINT | budget | fields, "1,0,0")


METHODS: dict[str, Method] = {
    "standard": Method(POINT | {"keep_epochs": (1,), "checkpoint_every_epochs": 1, "evaluation.every_epochs": 1}, ""),
    "another seed": Method(POINT | {"seed": 1}, ""),
    "line": Method({"evaluation.ensemble": (-0.05, 1.05), "evaluation.random_points": "random,layerwise"}),
    "curve": Method({"subspace.name": "curve"}),
    "chain": Method({"subspace.name": "chain", "subspace.num_endpoints": 4}),
    "simplex": Method(
        SIMPLEX
        | {"evaluation.sharpness_batches": 1, "evaluation.plane_points": 3, "evaluation.num_stats_batches": 1}
        | {"evaluation.random_points": "random,layerwise,weightwise,gaussian"},
        "1,0,0",
    ),
    "layerwise line": Method({"subspace.layerwise": True}),
    "layerwise simplex": Method(SIMPLEX | {"subspace.layerwise": True}, "1,0,0"),
    "two samples": Method({"subspace.num_samples": 2}),
    "all pairs": Method(SIMPLEX | {"penalty.all_pairs": True}, "1,0,0"),
    "all leaves": Method({"penalty.all_leaves": True}),
    "beta 0": Method({"penalty.beta": 0.0}),
    "common start": Method({"subspace.shared_init": True}),
    "dropout": Method({"model.dropout_rate": 0.2}),
    "label smoothing": Method({"optimizer.label_smoothing": 0.1}),
    "label noise": Method({"data.label_noise": 0.3}),
    "rate per epoch": Method({"optimizer.per_epoch": True}),
    "bfloat16": Method({"model.dtype": "bfloat16"}),
    "SAM": Method(POINT | {"optimizer.sam_rho": 0.05}, ""),
    "swa_cyclic": collecting("swa_cyclic", 6),
    "swa_constant": collecting("swa_constant", 16),
    "snapshot": collecting("snapshot", 4),
    "fast_geometric": collecting("fast_geometric", 20),
    "stacked runs": Method(
        {"subspace.name": "simplex", "subspace.num_endpoints": 2, "optimizer.num_epochs": 0},
        "1,0",
        ("standard", "another seed"),
    ),
    "connector": Method(
        {"subspace.name": "curve", "subspace.fixed_ends": True, "penalty.beta": 0.0},
        "0",
        ("standard", "another seed"),
    ),
    "branch": Method(POINT | {"seed": 2, "start.epoch": 1}, "", ("standard",)),
    "started line": Method({}, "0", ("standard",)),
    "several devices": Method({"num_devices": 2}),
    "several devices, two samples": Method({"num_devices": 2, "subspace.num_samples": 2, "data.label_noise": 0.3}),
    "sharded endpoints": Method({"num_devices": 2, "shard_endpoints": True}),
    "sharded simplex": Method(
        SIMPLEX | {"num_devices": 2, "shard_endpoints": True, "penalty.all_pairs": True}, "1,0,0"
    ),
    "corruption": Method(
        {"data.name": "cifar10", "data.num_train": 0, "data.batch_size": 32, "evaluation.corruptions": "fog_1"}
    ),
    "cresnet line": Method(CRESNET),
    "cresnet, BatchNorm of each device": Method(CRESNET | {"num_devices": 2, "model.sync_batch_norm": False}),
    "cresnet, layerwise, PyTorch's BatchNorm": Method(
        CRESNET | {"subspace.layerwise": True, "model.unbiased_batch_stats": True, "penalty.all_leaves": True}
    ),
    "cresnet standard": Method(CRESNET | POINT | {"model.dropout_rate": 0.1}, ""),
}


def main() -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python tests/same_bits.py", description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="", help="the other revision (default: HEAD, or its parent without changes)")
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="these methods instead of all")
    parser.add_argument("--folder", type=pathlib.Path, help="where the runs are kept (default: a temporary folder)")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(METHODS):
        parser.error(f"--only names {sorted(unknown)}, but the methods are {', '.join(METHODS)}")
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base = arguments.base or parent()
        checkouts = {
            "base": stack.enter_context(checkout(base, folder.absolute() / "checkout")),
            "here": copied(folder.absolute() / "copy"),
        }
        print(f"{base} and {REPOSITORY}", flush=True)
        return compare_all(checkouts, folder.absolute(), chosen(arguments.only))


def chosen(only: Iterable[str]) -> list[str]:
    """The methods that ``--only`` names and the methods that they start from, in the order of `METHODS`."""
    names = set(only) or set(METHODS)
    names |= {start for name in names for start in METHODS[name].starts}
    return [name for name in METHODS if name in names]


def parent() -> str:
    """The revision before the change: HEAD if tracked files have changed since, else its parent."""
    return "HEAD" if git("status", "--porcelain", "--untracked-files=no").strip() else "HEAD~1"


def git(*arguments: str) -> str:
    """The output of git in this repository."""
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def checkout(revision: str, folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A work tree of ``revision``, which is removed in the end."""
    git("worktree", "add", "--detach", str(folder), revision)
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def copied(folder: pathlib.Path) -> pathlib.Path:
    """A copy of the package and the configs of this checkout, so that they may be edited during the comparison."""
    for name in ("jsubspace", "configs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def compare_all(checkouts: dict[str, pathlib.Path], folder: pathlib.Path, names: list[str]) -> int:
    """Trains every method with both checkouts, at the same time, prints what differs, and returns the exit code."""
    data = folder / "data"
    prepare(data, corrupted="corruption" in names)
    workers = {side: Worker(path, folder / "compiled") for side, path in checkouts.items()}
    different = 0
    for name in names:
        start = time.monotonic()
        folders = {side: folder / side / folder_of(name) for side in workers}
        for side, worker in workers.items():
            folders[side].mkdir(parents=True)
            worker.start(commands(name, folder / side, data), folders[side] / "log.txt")
        errors = [f"{side}: {error}" for side, worker in workers.items() if (error := worker.error())]
        found = errors or differences(folders["base"], folders["here"])
        different += bool(found)
        verdict = "equal" if not found else f"DIFFERENT in {len(found)}: {'; '.join(found[:3])}"
        print(f"{name:<40} {verdict} ({time.monotonic() - start:.0f} s)", flush=True)
    for worker in workers.values():
        worker.end()
    print(f"{len(names) - different} of {len(names)} methods are equal to the bit")
    return 1 if different else 0


def prepare(data: pathlib.Path, corrupted: bool) -> None:
    """The digits, and for the corruptions a stand-in of CIFAR-10."""
    commands = [["-m", "jsubspace.data.prepare", "digits", f"--data_dir={data}"]]
    if corrupted:
        sets = f"'cifar10', 'cifar10_corrupted/fog_1', data_dir={str(data)!r}"
        commands.append(["-c", f"import fake_archives; fake_archives.prepare_fake({sets})"])
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    for command in commands:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"the data cannot be prepared:\n{done.stderr}")


def folder_of(name: str) -> str:
    """The name of a method's folder."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def commands(name: str, runs: pathlib.Path, data: pathlib.Path) -> list[list[str]]:
    """A method's commands, after ``python -m``: the training, and the export of the midpoint and of an end."""
    method, folder = METHODS[name], runs / folder_of(name)
    starts = ",".join(str(runs / folder_of(start) / "run") for start in method.starts)
    fields = SETTINGS | method.fields | {"data.dir": data} | ({"start.runs": starts} if starts else {})
    workdir = f"--workdir={folder / 'run'}"
    train = ["jsubspace.main", "--config=configs/digits_cresnet8_line.py", workdir]
    midpoint = ["jsubspace.export", workdir, f"--to={folder / 'midpoint.safetensors'}"]
    end = ["jsubspace.export", workdir, f"--to={folder / 'end.safetensors'}", f"--alpha={method.end}"]
    return [[*train, *(f"--config.{field}={given}" for field, given in fields.items())], midpoint] + [end] * bool(
        method.end
    )


if __name__ == "__main__":
    sys.exit(main())
