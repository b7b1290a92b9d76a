"""Tiny archives in the formats of the originals, and the real builders run on them.

``prepare_fake("cifar10", data_dir)`` prepares a data set of a few random images, as a user would with ``--manual_dir``.
It runs in a process of its own, because TFDS's own builders import TensorFlow and the tests must not. That process is
this file: it tells the builders the fakes' checksums in place of the originals', and leaves all else as it is.
"""

import functools
import gzip
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import numpy as np
from PIL import Image

from jsubspace import endings
from jsubspace.data import corruptions, prepare

TRAIN, TEST = 60, 20
"""Examples of the fakes of small images. All classes of cifar10 and fashion_mnist appear in both."""

CHECKSUMS = "checksums.json"
"""Size, SHA-256 and MD5 of every fake archive in a folder, as they were when it was made."""

SETS = ("digits", "fashion_mnist", "cifar10", "cifar100", "tiny_imagenet", "imagenet2012")
CORRUPTED_SETS = ("cifar10_corrupted", "tiny_imagenet_corrupted", "imagenet2012_corrupted")


def needs_tensorflow(name: str) -> bool:
    """Whether preparing the data set takes TensorFlow."""
    return "tensorflow" in corruptions.find(name)[0].needs


def has_tensorflow() -> bool:
    """Without importing it."""
    return importlib.util.find_spec("tensorflow") is not None


def prepare_fake(*names: str, data_dir: str | os.PathLike) -> None:
    """Prepares stand-ins of the data sets in ``data_dir``, from archives made for the purpose.

    Skips the test where one takes TensorFlow and there is none.
    """
    import pytest

    for name in names:
        if needs_tensorflow(name) and not has_tensorflow():
            pytest.skip(f"preparing {name} takes TensorFlow, which is not installed")
    with tempfile.TemporaryDirectory() as archives:
        for name in names:
            make(name, archives)
        done = run(*names, data_dir=data_dir, manual_dir=archives)
    if done.returncode:
        raise RuntimeError(f"preparing {names} failed:\n{done.stdout}\n{done.stderr}")


def prepare_all(data_dir: str | os.PathLike) -> None:
    """Every data set that a config can name, in one folder and one process."""
    prepare_fake(*SETS, data_dir=data_dir)


def run(
    *names: str, data_dir: str | os.PathLike, manual_dir: str | os.PathLike = "", hide: str = "", after: str = ""
) -> subprocess.CompletedProcess:
    """``python -m jsubspace.data.prepare NAME`` for each of the names, on fake archives.

    Args:
      names: of data sets.
      data_dir, manual_dir: as there.
      hide: a package that the process shall not find.
      after: Python that the process runs first.
    """
    return subprocess.run(
        command(*names, data_dir=data_dir, manual_dir=manual_dir, hide=hide, after=after),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )


def command(
    *names: str, data_dir: str | os.PathLike, manual_dir: str | os.PathLike = "", hide: str = "", after: str = ""
) -> list[str]:
    """The command line of `run`."""
    return [sys.executable, __file__, json.dumps([names, str(data_dir), str(manual_dir), hide, after])]


def environment() -> dict[str, str]:
    """Of a process that prepares; it may stand in any folder."""
    root = str(pathlib.Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}


def make(name: str, folder: str | os.PathLike) -> None:
    """Writes the fake archives of a data set, and their checksums, into ``folder``."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    family = name.partition("/")[0]
    if family not in _MAKERS:
        return  # It has none.
    known = json.loads((folder / CHECKSUMS).read_text()) if (folder / CHECKSUMS).exists() else {}
    for archive, content in _MAKERS[family](np.random.default_rng(0)).items():
        (folder / archive).write_bytes(content)
        known[archive] = [len(content), hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()]
    (folder / CHECKSUMS).write_text(json.dumps(known))


def labels(split: str, num_classes: int = 10) -> np.ndarray:
    """Of the fake small data sets: 0, 1, 2, ..., round and round."""
    return np.arange(TRAIN if split == "train" else TEST) % num_classes


def images(shape: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
    """``n`` smooth random uint8 images: noise, enlarged."""
    height, width, channels = shape
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n, 4, 4, channels), dtype=np.uint8)
    return np.stack([_resized(image, width, height) for image in small])


def jpeg(image: np.ndarray, mode: str = "RGB") -> bytes:
    """A JPEG file of uint8 ``[h, w, 3]``, converted to pillow's ``mode``: L has one channel, CMYK four."""
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, format="jpeg", quality=95)
    return buffer.getvalue()


def png(image: np.ndarray, mode: str) -> bytes:
    """A PNG file of uint8 ``[h, w, 3]``, converted to pillow's ``mode``: L has one channel, RGBA four."""
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, format="png")
    return buffer.getvalue()


def tiny_wnids() -> list[str]:
    """Of the 200 classes of the fake Tiny-ImageNet, in the order of its wnids.txt, which is not alphabetical."""
    return [f"n{i:08d}" for i in np.random.default_rng(0).permutation(200)]


@functools.cache
def imagenet_wnids() -> list[str]:
    """The 1,000 classes of ImageNet in TFDS's order."""
    import tensorflow_datasets as tfds

    return (tfds.core.tfds_path() / "datasets/imagenet2012/labels.txt").read_text().split()


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    grey = image.shape[-1] == 1
    resized = np.asarray(Image.fromarray(image[..., 0] if grey else image).resize((width, height), Image.BICUBIC))
    return resized[..., None] if grey else resized


def _fashion_mnist(rng: np.random.Generator) -> dict[str, bytes]:
    files = {}
    for split, name in (("train", "train"), ("test", "t10k")):
        y = labels(split)
        x = images((28, 28, 1), len(y), seed=len(y))
        for kind, header, content in (
            ("images-idx3", struct.pack(">IIII", 2051, len(y), 28, 28), x),
            ("labels-idx1", struct.pack(">II", 2049, len(y)), y.astype(np.uint8)),
        ):
            files[f"{name}-{kind}-ubyte.gz"] = gzip.compress(header + content.tobytes(), mtime=0)
    return files


def _cifar(num_classes: int, rng: np.random.Generator) -> dict[str, bytes]:
    def batch(split: str, rows: slice) -> bytes:
        y = labels(split, num_classes)
        x = images((32, 32, 3), len(y), seed=len(y)).transpose(0, 3, 1, 2).reshape(len(y), -1)
        columns = [y[:, None].astype(np.uint8)] if num_classes == 10 else [y[:, None].astype(np.uint8) % 20] * 1
        if num_classes == 100:  # the coarse label, then the fine one
            columns.append(y[:, None].astype(np.uint8))
        return np.concatenate([*columns, x], axis=1)[rows].tobytes()

    names = "\n".join(f"class {i}" for i in range(num_classes)).encode()
    if num_classes == 10:
        folder, files = (
            "cifar-10-batches-bin",
            {"test_batch.bin": batch("test", slice(None)), "batches.meta.txt": names},
        )
        for i in range(5):
            files[f"data_batch_{i + 1}.bin"] = batch("train", slice(i * TRAIN // 5, (i + 1) * TRAIN // 5))
    else:
        coarse = "\n".join(f"coarse class {i}" for i in range(20)).encode()
        folder, files = "cifar-100-binary", {"fine_label_names.txt": names, "coarse_label_names.txt": coarse}
        files |= {f"{split}.bin": batch(split, slice(None)) for split in ("train", "test")}
    content = _tar({f"{folder}/{name}": file for name, file in files.items()}, mode="w:gz")
    return {f"cifar-{num_classes}-binary.tar.gz": content}


def cifar10_c(corruption: str, severity: int) -> np.ndarray:
    """The images of the fake CIFAR-10-C: every corruption and severity has its own."""
    return images((32, 32, 3), TEST, seed=1000 + 10 * corruptions.CORRUPTIONS.index(corruption) + severity)


def _cifar10_c(rng: np.random.Generator) -> dict[str, bytes]:
    arrays = {"labels": np.tile(labels("test"), 5)}
    for corruption in corruptions.CORRUPTIONS:
        arrays[corruption] = np.concatenate([cifar10_c(corruption, severity) for severity in corruptions.SEVERITIES])
    files = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        files[f"CIFAR-10-C/{name}.npy"] = buffer.getvalue()
    return {"CIFAR-10-C.tar": _tar(files)}


def _tiny_imagenet(rng: np.random.Generator) -> dict[str, bytes]:
    """One training image a class and one test image for every fourth; some are grey, as in the original."""
    wnids, buffer = tiny_wnids(), io.BytesIO()
    x = images((64, 64, 3), len(wnids), seed=2)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "\n".join(wnids) + "\n")
        for i, (wnid, image) in enumerate(zip(wnids, x, strict=True)):
            file = jpeg(image, "L" if i % 10 == 0 else "RGB")
            archive.writestr(f"tiny-imagenet-200/train/{wnid}/images/{wnid}_0.JPEG", file)
            archive.writestr(f"tiny-imagenet-200/train/{wnid}/{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
        archive.writestr("tiny-imagenet-200/test/images/test_0.JPEG", jpeg(x[0]))
        lines = []
        for i, wnid in enumerate(wnids[::4]):
            archive.writestr(f"tiny-imagenet-200/val/images/val_{i}.JPEG", jpeg(x[4 * i], "L" if i == 3 else "RGB"))
            lines.append(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62")
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "\n".join(lines) + "\n")
    return {"tiny-imagenet-200.zip": buffer.getvalue()}


def _tiny_imagenet_c(rng: np.random.Generator) -> dict[str, bytes]:
    """All classes in fog of severity 1, two of them in the others."""
    archives = {}
    for name, types in (("Tiny-ImageNet-C.tar", corruptions.MAIN), ("Tiny-ImageNet-C-extra.tar", corruptions.EXTRA)):
        files = {}
        for corruption in types:
            for severity in corruptions.SEVERITIES:
                wnids = sorted(tiny_wnids()) if (corruption, severity) == ("fog", 1) else sorted(tiny_wnids())[:2]
                x = images((64, 64, 3), len(wnids), seed=100 * corruptions.CORRUPTIONS.index(corruption) + severity)
                for wnid, image in zip(wnids, x, strict=True):
                    files[f"Tiny-ImageNet-C/{corruption}/{severity}/{wnid}/val_{wnid}.JPEG"] = jpeg(image)
        archives[name] = _tar(files)
    return archives


IMAGENET_TRAIN = (("RGB", 300, 260), ("RGB", 224, 400), ("L", 256, 256), ("CMYK", 240, 250), ("RGB", 90, 70))
"""Mode, height and width of the training images of each class of the fake ImageNet: grey, four channels, and small."""

IMAGENET_CLASSES = (0, 1, 2, 3, 500, 501, 998, 999)
IMAGENET_VALIDATION = 12


def _imagenet(rng: np.random.Generator, train: bool = True) -> dict[str, bytes]:
    archives = {}
    if train:
        classes = {}
        for k in IMAGENET_CLASSES:
            wnid, files = imagenet_wnids()[k], {}
            for i, (mode, height, width) in enumerate(IMAGENET_TRAIN):
                files[f"{wnid}_{i}.JPEG"] = jpeg(images((height, width, 3), 1, seed=10 * k + i)[0], mode)
            classes[f"{wnid}.tar"] = _tar(files)
        archives["ILSVRC2012_img_train.tar"] = _tar(classes)
    validation = {}
    for i in range(IMAGENET_VALIDATION):
        image = images((280 + 5 * i, 320 - 3 * i, 3), 1, seed=10_000 + i)[0]
        mode = "L" if train and i == 5 else "RGB"
        validation[f"ILSVRC2012_val_{i + 1:08d}.JPEG"] = jpeg(image, mode)
    archives["ILSVRC2012_img_val.tar"] = _tar(validation)
    return archives


def _imagenet_c(rng: np.random.Generator) -> dict[str, bytes]:
    archives = _imagenet(rng, train=False)
    for i in range(1, 7):
        frost = images((600, 700, 3), 1, seed=i)[0]
        archives[f"frost{i}.{'png' if i <= 3 else 'jpg'}"] = png(frost, "RGB") if i <= 3 else jpeg(frost)
    return archives


def _tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


_MAKERS = {
    "fashion_mnist": _fashion_mnist,
    "cifar10": functools.partial(_cifar, 10),
    "cifar100": functools.partial(_cifar, 100),
    "cifar10_corrupted": _cifar10_c,
    "tiny_imagenet": _tiny_imagenet,
    "tiny_imagenet_corrupted": _tiny_imagenet_c,
    "imagenet2012": _imagenet,
    "imagenet2012_corrupted": _imagenet_c,
}


def _register(manual_dir: str) -> None:
    """Puts the fakes' sizes and checksums where the originals' stand."""
    import dataclasses

    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    from jsubspace.data import sets, tiny_imagenet_c

    known = {}
    if manual_dir and (path := pathlib.Path(manual_dir) / CHECKSUMS).exists():
        known = json.loads(path.read_text())

    def fake(url_infos):
        result = dict(url_infos or {})
        for url, original in result.items():
            name = original.filename or url.rpartition("/")[2]
            if name in known:
                size, sha256, _ = known[name]
                result[url] = checksums.UrlInfo(size=size, checksum=sha256, filename=name)
        return result

    for name, data_set in sets.SETS.items():
        sizes = tuple(known[archive][0] for archive in data_set.archives[: len(data_set.sizes)] if archive in known)
        sets.SETS[name] = dataclasses.replace(data_set, sizes=sizes if len(sizes) == len(data_set.sizes) else ())
    tiny_imagenet_c.TinyImagenetCorrupted.md5 = {
        name: known[name][2] if name in known else md5
        for name, md5 in tiny_imagenet_c.TinyImagenetCorrupted.md5.items()
    }
    # TFDS's Fashion-MNIST reads as many images as the original has.
    mnist = importlib.import_module("tensorflow_datasets.image_classification.mnist")
    if "train-images-idx3-ubyte.gz" in known:
        mnist._TRAIN_EXAMPLES, mnist._TEST_EXAMPLES = TRAIN, TEST
    create = tfds.core.download.DownloadManager.__init__

    @functools.wraps(create)
    def init(self, **kwargs):
        create(self, **kwargs)
        self._url_infos = fake(self._url_infos)

    tfds.core.download.DownloadManager.__init__ = init


class _Without:
    """A finder of modules that does not find one of them."""

    def __init__(self, missing: str, finder):
        self.missing, self.finder = missing, finder

    def find_spec(self, name, path=None, target=None):
        return None if name == self.missing else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def _main() -> None:
    names, data_dir, manual_dir, hide, after = json.loads(sys.argv[1])
    if hide:
        sys.meta_path[:] = [_Without(hide, finder) for finder in sys.meta_path]
    _register(manual_dir)
    exec(after, {})
    for name in names:
        argv = [name, f"--data_dir={data_dir}"]
        prepare.main([*argv, f"--manual_dir={manual_dir}"] if manual_dir else argv)


if __name__ == "__main__":
    endings.call(_main)
