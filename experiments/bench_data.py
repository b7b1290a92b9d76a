"""Does the data wait for the step, or the step for the data? ``python -m experiments.bench_data --set=imagenet2012``.

The benchmark prints images/s of a data set's pipeline alone, of the train step alone on zeros, and of both together. JPEG
pipelines are also compared with decoding and cropping alone. The same decoder then runs in as many processes, with nothing
read, shared, sent or joined. It runs in turn with the pipeline, round by round, because a busy machine's speed changes.

If the data set is not prepared, random images of its size take its place, and the output says so.
"""

import argparse
import collections
import multiprocessing
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jsubspace.data import imagenet, jpeg, memory, pipeline, prepare, sets, stand_in, workers
from jsubspace.data.batching import Batching
from jsubspace.errors import UsageError
from jsubspace.evaluation.devices import RUN_AHEAD
from jsubspace.runs import build, images, recipes
from jsubspace.training import device_choice

Batch = dict[str, np.ndarray]
Step = Callable[[Batch], Any]

BUFFERED = 4
"""The first batches do not count, because a pipeline may have made them ahead."""


RECIPES = {
    "digits": recipes.digits_cresnet8,
    "fashion_mnist": recipes.fashion_mnist_cresnet8,
    "cifar10": recipes.cifar10_cresnet20,
    "cifar100": recipes.cifar10_cresnet20,
    "tiny_imagenet": recipes.tiny_imagenet_resnet18,
    "imagenet2012": recipes.imagenet_resnet50,
}
"""The network for each data set, which trains a line."""


def make_step(data: pipeline.Pipeline, batch_size: int) -> Step:
    """A train step that takes a batch on the host and returns when it has begun, as the loop does."""
    config = RECIPES[data.data_set.name]("line")
    config.data.batch_size = config.evaluation.batch_size = batch_size
    run = build.assemble(config, images.problem_of(config, data), build.choose_devices(config))
    compiled = run.compiled_step()
    state, key = run.devices.run_once(run.init_state), run.devices.put(run.key)
    under_way: collections.deque[Any] = collections.deque()

    def step(batch: Batch) -> Any:
        nonlocal state
        arrays = batch["image"], batch["label"], batch["index"]
        (on_devices,) = run.devices.put_batches([arrays])
        state, info = compiled(state, on_devices, key)
        under_way.append(info)
        if len(under_way) > RUN_AHEAD:
            jax.block_until_ready(under_way.popleft())
        return info

    return step


def open_pipeline(
    data_set: sets.DataSet, data_dir: str, scratch: str, batch_size: int, num_workers: int | None
) -> tuple[pipeline.Pipeline, str]:
    """The pipeline, and a description of its images."""
    batching = Batching(batch_size, batch_size, seed=0, num_workers=num_workers)

    def from_disk(data_dir: str) -> pipeline.Pipeline:
        return pipeline.make_pipeline(data_set.name, data_dir, batching)

    try:
        return from_disk(data_dir), f"as prepared in {data_dir or prepare.default_data_dir()}"
    except UsageError:
        pass
    if data_set.in_memory:
        rng = np.random.default_rng(0)
        images = rng.integers(256, size=(50_000, *data_set.image_shape), dtype=np.uint8)
        examples = memory.Examples(images, rng.integers(data_set.num_classes, size=len(images), dtype=np.int32))
        data = memory.InMemory(data_set, examples, examples, batching)
        return data, "random images, NOT the data set"
    stand_in.prepare_imagenet(
        scratch, {"train": stand_in.examples(1024), data_set.test_split: stand_in.examples(batch_size)}
    )
    return from_disk(scratch), "random photographs, 500 x 375, quality 90, NOT the data set"


def rate(batches: Iterator[Batch], seconds: float, step: Step | None = None) -> float:
    """Images/s of ``batches``, each given to ``step``."""
    for _ in range(BUFFERED):
        batch = next(batches)
        if step is not None:
            step(batch)
    start, count, result = time.perf_counter(), 0, None  # type: float, int, Any
    while time.perf_counter() - start < seconds:
        batch = next(batches)
        count += len(batch["label"])
        if step is not None:
            result = step(batch)
    jax.block_until_ready(result)
    return count / (time.perf_counter() - start)


def decode_and_crop(encoded: list[bytes], size: int, seconds: float) -> tuple[float, float]:
    """Images/s of one process by the clock, and per second of a core's work."""
    jpeg.use_one_thread()
    rng, count, start, worked = random.Random(0), 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        image = jpeg.decode(encoded[count % len(encoded)])
        jpeg.resized_crop(image, jpeg.random_box(rng, *image.shape[:2]), size)
        count += 1
    return count / (time.perf_counter() - start), count / (time.process_time() - worked)


def core_seconds(pids: list[int]) -> float:
    """Seconds that cores have worked for this process and ``pids`` (Linux)."""
    total = time.process_time()
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def compare_with_decoder(data: imagenet.ImageNet, seconds: float, rounds: int) -> None:
    """Prints the rate of the pipeline and of its decoder alone, in the same number of processes.

    Rates are per second by the clock, which a busy machine spoils, and per second of the cores' work, main process included.
    """
    num_processes = data.num_workers or workers.num_cores()
    records, size = data.train.records, data.data_set.image_shape[0]
    encoded = [records.read(i)[1] for i in range(min(256, len(records)))]
    print(f"  {num_processes} processes, {np.mean([len(e) for e in encoded]) / 1000:.0f} kB per image, {jpeg.DECODER}")
    batches: Any = data.train_batches(0)
    next(batches)
    pids = [child.pid for child in multiprocessing.active_children() if child.pid]
    rows = []
    with multiprocessing.get_context("spawn").Pool(num_processes) as pool:

        def alone(seconds: float) -> tuple[float, float]:
            rates = pool.starmap(decode_and_crop, [(encoded, size, seconds)] * num_processes, chunksize=1)
            return sum(r for r, _ in rates), statistics.mean(r for _, r in rates)

        alone(0.5)  # starts the processes
        for _ in range(rounds):
            for _ in range(BUFFERED):
                next(batches)
            count, start, worked = 0, time.perf_counter(), core_seconds(pids)
            while time.perf_counter() - start < seconds:
                count += len(next(batches)["label"])
            through = count / (time.perf_counter() - start), count / (core_seconds(pids) - worked)
            time.sleep(BUFFERED * data.train.batch_size / through[0])  # The pipeline reads ahead, then rests.
            bare = alone(seconds)
            rows.append([*through, *bare, through[0] / bare[0], through[1] / bare[1]])
            print(
                "    pipeline {:.0f}/s, {:.0f}/core-s, alone {:.0f}/s, {:.0f}/core-s, ratios {:.0%}, {:.0%}".format(
                    *rows[-1]
                )
            )
    batches.close()
    clock, work, bare_clock, bare_work, by_clock, by_work = (
        statistics.median(column) for column in zip(*rows, strict=True)
    )
    print(f"  pipeline alone           {clock:8.0f} images/s, {work:6.0f} per second of a core")
    print(f"  decode and crop alone    {bare_clock:8.0f} images/s, {bare_work:6.0f} per second of a core")
    print(
        f"  the pipeline reaches     {by_clock:8.0%} by the clock, {by_work:6.0%} by the cores' work (medians of {rounds})"
    )


def bench(name: str, data_dir: str, batch_size: int, num_workers: int | None, seconds: float, rounds: int) -> None:
    """Prints one data set's rates."""
    with tempfile.TemporaryDirectory() as scratch:
        data, what = open_pipeline(sets.find(name), data_dir, scratch, batch_size, num_workers)
        print(f"{name}: {what}, batches of {batch_size}")
        if isinstance(data, imagenet.ImageNet):
            compare_with_decoder(data, seconds, rounds)
        else:
            print(f"  pipeline alone           {rate(data.train_batches(0), seconds):8.0f} images/s")
        step = make_step(data, batch_size)
        zeros = {key: np.zeros_like(value) for key, value in next(data.train_batches(0)).items()}
        zeros["index"] = np.arange(batch_size, dtype=np.int32)
        print(f"  step alone, on zeros     {rate(iter(lambda: zeros, None), seconds, step):8.0f} images/s")
        batches: Any = data.train_batches(0)
        print(f"  both together            {rate(batches, seconds, step):8.0f} images/s")
        batches.close()


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench_data", description="Measures data pipelines and the train step."
    )
    parser.add_argument("--set", default="", help=f"one of {', '.join(sets.SETS)} (default: each)")
    parser.add_argument(
        "--data_dir", default="", help=f"the folder of prepared data (default: {prepare.default_data_dir()})"
    )
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--num_workers", type=int, default=None, help="processes that decode (default: one per core)")
    parser.add_argument("--seconds", type=float, default=5.0, help="the duration of each measurement")
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds in which the pipeline and its decoder run in turn"
    )
    arguments = parser.parse_args(argv)
    device_choice.use_cpu_cores()
    try:
        for name in [arguments.set] if arguments.set else sets.SETS:
            bench(
                name,
                arguments.data_dir,
                arguments.batch_size,
                arguments.num_workers,
                arguments.seconds,
                arguments.rounds,
            )
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
