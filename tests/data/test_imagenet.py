"""The ImageNet pipeline on tiny photographs in its format, against Pillow, NumPy and itself."""

import dataclasses
import io
import itertools
import multiprocessing
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tarfile
import textwrap
import time

import numpy as np
import pytest
from PIL import Image

from jsubspace.data import imagenet, jpeg, labels, pipeline, sets, stand_in
from jsubspace.data.batching import Batching
from jsubspace.data.imagenet import ImageNet
from jsubspace.data.shards import Shard
from jsubspace.errors import UsageError
from jsubspace.preemption import SIGNALS

pytest.importorskip("grain")

SIDE, TRAIN, TEST = 28, 53, 11
SMALL = dataclasses.replace(sets.find("imagenet2012"), image_shape=(SIDE, SIDE, 3))


def photograph(i: int, mode: str = "RGB", **options) -> bytes:
    rng = np.random.default_rng(i)
    image = Image.fromarray(stand_in.photograph(rng, int(rng.integers(30, 70)), int(rng.integers(30, 70))))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, **{"format": "jpeg", "quality": 90, **options})
    return buffer.getvalue()


def examples(count: int, first: int = 0) -> list[stand_in.Example]:
    """Each has a label of its own; among them are a grey one, one in CMYK and one that is a PNG."""
    odd = {3: ("L", {}), 4: ("CMYK", {}), 5: ("RGB", {"format": "png"}), 6: ("RGB", {"progressive": True})}
    found = []
    for i in range(first, first + count):
        mode, options = odd.get(i, ("RGB", {}))
        found.append((f"n{i:08}.JPEG", photograph(i, mode, **options), i))
    return found


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("data"))
    stand_in.prepare_imagenet(folder, {"train": examples(TRAIN), "validation": examples(TEST, 100)})
    return folder


@pytest.fixture
def load(data_dir):
    def load(data_dir: str = data_dir, shard: Shard | None = None, **changes) -> ImageNet:
        settings = {"batch_size": 10, "eval_batch_size": 4, "seed": 0, "num_workers": 0, **changes}
        return imagenet.load(SMALL, data_dir, Batching(**settings), shard)

    return load


def take(batches, count: int) -> list[dict]:
    found = list(itertools.islice(batches, count))
    batches.close()
    return found


def assert_equal(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


def join(batches: list[dict], key: str) -> np.ndarray:
    return np.concatenate([batch[key] for batch in batches])


def test_every_example_once_an_epoch_in_an_order_of_seed_and_epoch(load):
    data = load()
    assert data.steps_per_epoch == 6
    batches = take(data.train_batches(0), 18)
    assert [len(b["label"]) for b in batches] == [10, 10, 10, 10, 10, 3] * 3
    epochs = [join(batches[i : i + 6], "label") for i in (0, 6, 12)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(TRAIN))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert list(join(take(load(seed=1).train_batches(0), 6), "label")) != list(epochs[0])
    for batch in batches:
        assert batch["image"].dtype == np.uint8
        assert batch["image"].shape[1:] == (SIDE, SIDE, 3)
        np.testing.assert_array_equal(batch["index"], np.arange(len(batch["label"])))


def test_an_image_is_cropped_anew_each_epoch_by_its_place_in_it_alone(load):
    tens, sevens = (take(load(batch_size=size).train_batches(0), steps) for size, steps in ((10, 12), (7, 16)))
    np.testing.assert_array_equal(join(tens, "image"), join(sevens, "image"))
    first, second = (
        {int(x): i for x, i in zip(join(e, "label"), join(e, "image"), strict=True)} for e in (tens[:6], tens[6:])
    )
    assert not any(np.array_equal(first[i], second[i]) for i in first)


@pytest.mark.parametrize("start", [1, 5, 6, 17])
def test_starts_at_any_step_and_reads_nothing_of_what_was_before(load, start, monkeypatch):
    expected = take(load().train_batches(0), 20)[start:]
    data = load()
    seen, read = set(), imagenet.Records.read
    monkeypatch.setattr(imagenet.Records, "read", lambda self, i: seen.add(i) or read(self, i))
    resumed = take(data.train_batches(start), 1)
    time.sleep(0.1)
    assert len(seen) <= 60  # the batch, and what is read ahead
    assert_equal(resumed + take(data.train_batches(start + 1), 19 - start), expected)


def test_starts_at_once_at_a_late_step(load):
    batch = take(load().train_batches(10**9), 1)[0]
    assert len(batch["label"]) == 10


def test_processes_and_threads_make_the_same_and_processes_leave_nothing(load):
    before = shared_memory()
    one, two, threads = (load(num_workers=n, batch_size=40, eval_batch_size=40) for n in (1, 2, 0))
    batches = two.train_batches(3)
    found = [next(batches)]
    assert len(multiprocessing.active_children()) == 2
    assert_equal(found + take(batches, 4), take(threads.train_batches(3), 5))
    assert not multiprocessing.active_children()
    assert_equal(list(one.test_batches()), list(threads.test_batches()))
    assert not multiprocessing.active_children()
    assert shared_memory() <= before


@pytest.mark.parametrize("num_hosts", [2, 3])
def test_hosts_share_each_batch(load, num_hosts):
    settings = {"batch_size": 12, "eval_batch_size": 6}
    whole = load(**settings)
    hosts = [load(**settings, shard=Shard(i, num_hosts)) for i in range(num_hosts)]

    def joined(streams: list[list[dict]]) -> list[dict]:
        """What each reads whole, the last batch of an epoch that the hosts do not divide, they have alike."""
        batches = []
        for parts in zip(*streams, strict=True):
            if "index" in parts[0] and all(part["index"][0] == 0 for part in parts):
                assert_equal(list(parts[1:]), [parts[0]] * (num_hosts - 1))
                assert len(parts[0]["label"]) % num_hosts
                batches.append(parts[0])
            else:
                batches.append({key: join(list(parts), key) for key in parts[0]})
        return batches

    assert_equal(joined([take(h.train_batches(2), 8) for h in hosts]), take(whole.train_batches(2), 8))
    assert_equal(joined([list(h.test_batches()) for h in hosts]), list(whole.test_batches()))
    sizes = {len(batch["label"]) for batch in take(hosts[0].train_batches(0), 4)}
    assert sizes == {12 // num_hosts}


def test_hosts_must_divide_a_batch(load):
    with pytest.raises(UsageError, match="eval_batch_size is 4, but it must be a multiple of 3, the number of hosts"):
        load(batch_size=12, shard=Shard(0, 3))


def test_test_images_are_torchvisions_to_the_bit_and_each_comes_once(load):
    batches = list(load().test_batches())
    assert {len(b["label"]) for b in batches} == {4}
    mask = join(batches, "mask")
    assert mask.sum() == TEST
    assert mask[:TEST].all()
    found = dict(zip(join(batches, "label")[mask], join(batches, "image")[mask], strict=True))
    for _, encoded, label in examples(TEST, 100):
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        w, h = image.size
        resized = (32, 32 * h // w) if w < h else (32 * w // h, 32)
        image = image.resize(resized, Image.Resampling.BILINEAR)
        left, top = (round((n - SIDE) / 2.0) for n in image.size)
        expected = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))
        np.testing.assert_array_equal(found[label], expected)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (256, 256), (500, 90)])
def test_central_crop_at_full_size(height, width):
    image = stand_in.photograph(np.random.default_rng(0), height, width)
    short = min(height, width)
    resized = Image.fromarray(image).resize((256 * width // short, 256 * height // short), Image.Resampling.BILINEAR)
    left, top = (round((n - 224) / 2.0) for n in resized.size)
    np.testing.assert_array_equal(
        jpeg.central_crop(image, 256, 224), np.asarray(resized.crop((left, top, left + 224, top + 224)))
    )


@pytest.mark.parametrize(
    "box", [(0, 0, 375, 500), (10, 37, 300, 260), (100, 80, 224, 224), (5, 7, 230, 170), (50, 60, 110, 140)]
)
@pytest.mark.parametrize("mirror", [False, True])
def test_resized_crops_are_pillows_but_for_the_filter(box, mirror):
    """Tolerance: mean difference below 1.5 of 256 levels, none above 32: an area's mean against a triangle's."""
    top, left, h, w = box
    image = jpeg.decode(stand_in.encode(stand_in.photograph(np.random.default_rng(0))))
    expected = Image.fromarray(image).crop((left, top, left + w, top + h)).resize((224, 224), Image.Resampling.BILINEAR)
    expected = np.asarray(expected).astype(int)[:, :: -1 if mirror else 1]
    difference = np.abs(jpeg.resized_crop(image, box, 224, mirror) - expected)
    assert difference.mean() < 1.5
    assert difference.max() <= 32
    moved = np.abs(np.roll(expected, 1, axis=1) - expected)
    assert difference.mean() < moved.mean() / 3  # The tolerance would notice one pixel's shift.


def test_the_fallback_decodes_the_same_and_crops_as_pillow_does(monkeypatch):
    encoded = stand_in.encode(stand_in.photograph(np.random.default_rng(0)))
    decoded = jpeg.decode(encoded)
    monkeypatch.setattr(jpeg, "cv2", None)
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    np.testing.assert_array_equal(jpeg.decode(encoded), decoded)
    expected = Image.fromarray(decoded).crop((20, 10, 300, 310)).resize((224, 224), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(
        jpeg.resized_crop(decoded, (10, 20, 300, 280), 224, True)[:, ::-1], np.asarray(expected)
    )


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"progressive": True}),
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"format": "png"}),
        ("RGBA", {"format": "png"}),
    ],
)
def test_every_kind_of_image_becomes_rgb(mode, options):
    encoded = photograph(0, mode, **options)
    image = jpeg.decode(encoded)
    np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.dtype == np.uint8


def boxes_of_numpy(rng: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    """Random resized crops written down a second time: all attempts at once, the first that fits wins."""
    area = height * width * rng.uniform(0.08, 1, (count, 10))
    ratio = (3 / 4) * (16 / 9) ** rng.random((count, 10))
    w, h = np.rint(np.sqrt(area * ratio)).astype(int), np.rint(np.sqrt(area / ratio)).astype(int)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    chosen = np.arange(count), fits.argmax(axis=1)
    w, h = w[chosen], h[chosen]
    top, left = np.floor(rng.random(count) * (height - h + 1)), np.floor(rng.random(count) * (width - w + 1))
    boxes = np.stack([top, left, h, w], axis=1).astype(int)
    ch, cw = (height, round(height * 4 / 3)) if width / height > 4 / 3 else (round(width * 4 / 3), width)
    boxes[~fits.any(axis=1)] = (height - ch) // 2, (width - cw) // 2, ch, cw
    return boxes


@pytest.mark.parametrize(("height", "width"), [(375, 500), (200, 200), (60, 500), (500, 120)])
def test_crop_boxes_have_torchvisions_distribution(height, width):
    rng, count = random.Random(0), 20_000
    found = np.array([jpeg.random_box(rng, height, width) for _ in range(count)])
    expected = boxes_of_numpy(np.random.default_rng(0), height, width, count)

    def columns(boxes: np.ndarray) -> list[np.ndarray]:
        top, left, h, w = boxes.T.astype(float)
        return [top, left, h, w, h * w, w / h, top + h / 2, left + w / 2]

    assert (found[:, :2] >= 0).all()
    assert (found[:, :2] + found[:, 2:] <= (height, width)).all()
    for a, b in zip(columns(found), columns(expected), strict=True):
        values = np.union1d(a, b)
        cdfs = [np.searchsorted(np.sort(x), values, side="right") / count for x in (a, b)]
        assert np.abs(cdfs[0] - cdfs[1]).max() < 1.95 * np.sqrt(2 / count)  # Kolmogorov-Smirnov, 0.1 %


def test_half_of_the_images_are_mirrored(load, monkeypatch):
    seen = []
    monkeypatch.setattr(jpeg, "resized_crop", lambda image, box, size, mirror: seen.append(mirror) or image[:1, :1])
    take(load().train_batches(0), 60)
    assert 0.4 < np.mean(seen) < 0.6


def test_label_noise_is_that_of_data_in_memory_and_leaves_images_alone(load):
    clean, noisy = take(load().train_batches(0), 6), take(load(label_noise=0.4).train_batches(0), 6)
    np.testing.assert_array_equal(join(clean, "image"), join(noisy, "image"))
    data = load()
    in_files = np.array([data.train.records.read(i)[2] for i in range(TRAIN)])
    renamed = dict(zip(in_files, labels.add_noise(in_files, 0.4, 1000), strict=True))
    expected = [renamed[label] for label in join(clean, "label")]
    np.testing.assert_array_equal(join(noisy, "label"), expected)
    assert (join(noisy, "label") != join(clean, "label")).sum() == int(TRAIN * 0.4)
    assert_equal(list(load(label_noise=0.4).test_batches()), list(load().test_batches()))


def test_the_step_only_normalises(load):
    data = load()
    images = np.random.default_rng(0).integers(256, size=(2, SIDE, SIDE, 3), dtype=np.uint8)
    expected = (images / 255 - np.array(SMALL.mean)) / np.array(SMALL.std)
    np.testing.assert_allclose(data.preprocess(images), expected, atol=1e-5)
    np.testing.assert_allclose(data.augment(None, images, None), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "num_workers"), [("cut", 0), ("garbage", 0), ("empty", 0), ("label", 0), ("cut", 1)]
)
def test_a_damaged_record_is_named(load, tmp_path, damage, num_workers):
    good = photograph(0)
    record = {
        "cut": ("bad.JPEG", good[: len(good) // 2], 1),
        "garbage": ("bad.JPEG", b"\xff\xd8 not an image", 1),
        "empty": ("bad.JPEG", b"", 1),
        "label": ("bad.JPEG", good, -1),
    }[damage]
    stand_in.prepare_imagenet(str(tmp_path), {"train": [*examples(5), record], "validation": [record]})
    data = load(data_dir=str(tmp_path), batch_size=6, num_workers=num_workers)
    expected = rf"example \d of train in {tmp_path}.*\(bad.JPEG\).*" + ("label -1" if damage == "label" else "readable")
    with pytest.raises(UsageError, match=expected):
        take(data.train_batches(0), 1)
    if not num_workers:
        with pytest.raises(UsageError, match="example 0 of validation"):
            list(data.test_batches())
    assert not multiprocessing.active_children()


def test_a_damaged_file_is_named(load, tmp_path):
    stand_in.prepare_imagenet(str(tmp_path), {"train": examples(20), "validation": examples(1)})
    (file,) = tmp_path.glob("imagenet2012/5.1.0/*-train.array_record*")
    content = bytearray(file.read_bytes())
    quarter = len(content) // 4  # The end of the file, with the number of records, is whole.
    content[quarter : quarter + 2000] = bytes(2000)
    file.write_bytes(content)
    data = load(data_dir=str(tmp_path))
    with pytest.raises(UsageError, match=r"example \d+ of train in .*Delete the folder and prepare"):
        take(data.train_batches(0), 2)


def test_a_missing_split_is_named(load, tmp_path):
    stand_in.prepare_imagenet(str(tmp_path), {"train": examples(2)})
    with pytest.raises(UsageError, match=r"has no validation split.*ILSVRC2012_img_val.tar"):
        load(data_dir=str(tmp_path))


def test_data_that_is_not_there_is_explained(tmp_path):
    with pytest.raises(UsageError, match=r"jsubspace.data.prepare imagenet2012"):
        pipeline.make_pipeline("imagenet2012", str(tmp_path), Batching(2, 2, seed=0))


def test_make_pipeline_reads_it_at_full_size(data_dir):
    data = pipeline.make_pipeline("imagenet2012", data_dir, Batching(3, 2, seed=0, num_workers=0))
    assert take(data.train_batches(0), 1)[0]["image"].shape == (3, 224, 224, 3)
    assert take(data.test_batches(), 1)[0]["image"].shape == (2, 224, 224, 3)


def shared_memory() -> set[str]:
    """Without the semaphores of joblib, which other tests may make at the same time."""
    names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    return {name for name in names if not name.startswith("sem.loky")}


def test_processes_leave_signals_to_the_run_and_one_that_dies_is_reported(load):
    """Ctrl-C goes to all of a group. The run still needs batches to finish its step and save."""
    batches = load(num_workers=1).train_batches(0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    if os.path.isdir("/proc/self"):  # It was deaf from its birth on: it imports before it can ignore anything.
        status = pathlib.Path(f"/proc/{worker.pid}/status").read_text()
        blocked = int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16)
        assert all(blocked >> number - 1 & 1 for number in SIGNALS)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for number in SIGNALS:
        os.kill(worker.pid, number)
    assert_equal(list(itertools.islice(batches, 10)), take(load().train_batches(1), 10))
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UsageError, match=r"a process that decodes images ended.*-9"):
        take(batches, 20)
    assert not multiprocessing.active_children()


def test_no_room_for_the_images_is_reported(load, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    monkeypatch.setattr("os.path.isdir", lambda path: True)
    batches = load(num_workers=1).train_batches(0)
    with pytest.raises(UsageError, match="/dev/shm has 0 MB left"):
        next(batches)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
def test_a_killed_run_leaves_no_processes(data_dir, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(f"""
            import multiprocessing, time
            from jsubspace.data import pipeline
            from jsubspace.data.batching import Batching

            if __name__ == "__main__":
                data = pipeline.make_pipeline("imagenet2012", {data_dir!r}, Batching(4, 2, seed=0, num_workers=2))
                batches = data.train_batches(0)
                next(batches)
                print(*[child.pid for child in multiprocessing.active_children()], flush=True)
                time.sleep(60)
        """)
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(pathlib.Path(imagenet.__file__).parents[2]), *sys.path]),
    }
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as run:
        children = [int(pid) for pid in run.stdout.readline().split()]
        assert len(children) == 2
        run.kill()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(map(is_running, children)):
        time.sleep(0.1)
    assert not any(map(is_running, children))


def is_running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_official_builders_files_are_read(tmp_path):
    """Tiny archives in ILSVRC's format through TFDS's own builder."""
    pytest.importorskip("tensorflow")
    import tensorflow_datasets as tfds

    def tar(files: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    synsets = ["n01440764", "n01443537"]
    train = {f"{s}.tar": tar({f"{s}_{i}.JPEG": photograph(i) for i in range(3)}) for s in synsets}
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(tar(train))
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(
        tar({f"ILSVRC2012_val_{i:08}.JPEG": photograph(i) for i in range(1, 5)})
    )
    builder = tfds.builder("imagenet2012", data_dir=str(tmp_path / "data"), file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=str(tmp_path))
    builder.download_and_prepare(download_config=config, file_format="array_record")
    data = imagenet.load(SMALL, str(tmp_path / "data"), Batching(4, 3, seed=0, num_workers=0))
    assert sorted(join(take(data.train_batches(0), 2), "label")) == [0, 0, 0, 1, 1, 1]
    batches = list(data.test_batches())
    assert join(batches, "mask").sum() == 4
