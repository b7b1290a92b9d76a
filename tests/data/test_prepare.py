"""Preparing data: what goes wrong is one message and exit code 2; what is interrupted is done right the next time."""

import os
import signal
import subprocess
import sys
import time

import fake_archives
import pytest

from jsubspace import endings
from jsubspace.data import examples, pipeline, prepare, sets
from jsubspace.data.batching import Batching
from jsubspace.errors import UsageError


def message(capsys, *argv):
    """What the command says when it refuses: one message, no stack trace."""
    with pytest.raises(SystemExit) as end:
        endings.call(lambda: prepare.main(list(argv)))
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert "error: " in printed  # after TFDS's progress
    assert "Traceback" not in printed
    return printed


def refusal(done):
    """The same of a process."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr[done.stderr.rindex("error: ") :]


@pytest.fixture(scope="module")
def tiny_archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_archives")
    fake_archives.make("tiny_imagenet", folder)
    return folder


@pytest.fixture
def every_package(monkeypatch):
    """The check for packages, which comes first, finds all of them."""
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: True)


def test_the_command_prepares_and_repeats(tmp_path):
    command = [sys.executable, "-m", "jsubspace.data.prepare", "digits", f"--data_dir={tmp_path}"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=fake_archives.environment())
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"digits is ready in {tmp_path}/digits/1.0.0\n")
    assert len(examples.read(sets.find("digits"), str(tmp_path), "test")) == 360


def test_unknown_name(capsys, tmp_path):
    assert "did you mean 'fashion_mnist'" in message(capsys, "fashion-mnist", f"--data_dir={tmp_path}")


def test_missing_archive(capsys, every_package, tmp_path):
    (tmp_path / "ILSVRC2012_img_val.tar").touch()
    said = message(capsys, "imagenet2012", f"--data_dir={tmp_path}/data", f"--manual_dir={tmp_path}")
    assert f"{tmp_path} has no ILSVRC2012_img_train.tar. " in said
    assert "put these archives there: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar." in said


def test_imagenet_without_manual_dir_says_that_it_cannot_be_downloaded(capsys, every_package, tmp_path):
    said = message(capsys, "imagenet2012", f"--data_dir={tmp_path}")
    assert (
        "imagenet2012 cannot be downloaded by a program: get ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar" in said
    )
    assert "--manual_dir" in said


def test_truncated_imagenet_archive(capsys, every_package, tmp_path):
    for name in sets.find("imagenet2012").archives:
        (tmp_path / name).write_bytes(b"0" * 512)
    said = message(capsys, "imagenet2012", f"--data_dir={tmp_path}/data", f"--manual_dir={tmp_path}")
    assert (
        "ILSVRC2012_img_train.tar is not the original and may be incomplete: it has 512 bytes instead of 147897477120"
        in said
    )


def test_damage_inside_an_imagenet_archive(tmp_path):
    """Of the right size and broken all the same: what the tar's reader finds."""
    if not fake_archives.has_tensorflow():
        pytest.skip("preparing imagenet2012 takes TensorFlow, which is not installed")
    fake_archives.make("imagenet2012", tmp_path)
    archive = tmp_path / "ILSVRC2012_img_train.tar"
    content = bytearray(archive.read_bytes())
    content[0:512] = b"\xff" * 512
    archive.write_bytes(content)
    said = refusal(fake_archives.run("imagenet2012", data_dir=tmp_path / "data", manual_dir=tmp_path))
    assert "an archive of imagenet2012 is incomplete or damaged" in said


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("tiny_imagenet", "truncated"),
        ("tiny_imagenet_corrupted", "one bit"),
        ("cifar10", "one bit"),
        pytest.param("tiny_imagenet", "one bit", marks=pytest.mark.slow),
        pytest.param("tiny_imagenet_corrupted", "truncated", marks=pytest.mark.slow),
        pytest.param("cifar10", "truncated", marks=pytest.mark.slow),
    ],
)
def test_archive_that_is_not_the_original(name, damage, tmp_path):
    if fake_archives.needs_tensorflow(name) and not fake_archives.has_tensorflow():
        pytest.skip(f"preparing {name} takes TensorFlow, which is not installed")
    fake_archives.make(name, tmp_path)
    archive = next(path for path in sorted(tmp_path.iterdir()) if path.suffix in (".zip", ".tar", ".gz"))
    content = bytearray(archive.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    said = refusal(fake_archives.run(name, data_dir=tmp_path / "data", manual_dir=tmp_path))
    assert archive.name in said
    assert "is not the original and may be incomplete" in said
    assert "Download it again" in said


def test_missing_tensorflow(tmp_path):
    fake_archives.make("cifar10", tmp_path)
    done = fake_archives.run("cifar10", data_dir=tmp_path / "data", manual_dir=tmp_path, hide="tensorflow")
    said = refusal(done)
    assert (
        "preparing cifar10 needs the package tensorflow: pip install '.[tensorflow]' in the folder of jsubspace's source. Training does not."
        in said
    )


def test_tiny_imagenet_needs_no_tensorflow(tmp_path, tiny_archives):
    done = fake_archives.run("tiny_imagenet", data_dir=tmp_path, manual_dir=tiny_archives, hide="tensorflow")
    assert done.returncode == 0, done.stderr
    assert len(examples.read(sets.find("tiny_imagenet"), str(tmp_path), "validation")) == 50


def test_data_dir_that_cannot_be_made(capsys, tmp_path):
    (tmp_path / "file").touch()
    said = message(capsys, "digits", f"--data_dir={tmp_path}/file/data")
    assert f"cannot prepare digits in {tmp_path}/file/data: " in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_data_dir_that_must_not_be_written(capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert f"cannot prepare digits in {tmp_path}: " in message(capsys, "digits", f"--data_dir={tmp_path}")


@pytest.mark.parametrize("name", ["cifar10", "tiny_imagenet", "imagenet2012"])
def test_training_on_data_that_is_not_prepared_says_how(name, tmp_path):
    with pytest.raises(UsageError) as raised:
        prepare.prepared(sets.find(name), str(tmp_path))
    said = str(raised.value)
    assert f"{name} is not prepared in {tmp_path}." in said
    assert f"python -m jsubspace.data.prepare {name} --data_dir={tmp_path}" in said
    assert "--manual_dir=FOLDER" in said
    assert all(archive in said for archive in sets.find(name).archives)
    assert ("pip install '.[tensorflow]'" in said) == fake_archives.needs_tensorflow(name)
    assert "with a network" in said or name == "imagenet2012"


def test_data_that_needs_no_archive_is_prepared_on_demand(tmp_path):
    data = pipeline.make_pipeline("digits", str(tmp_path), Batching(8, 8, seed=0))
    assert len(data.train) == 1437


def test_killed_in_the_middle_then_repeated(tmp_path, tiny_archives):
    """kill -9 between two examples; the second run starts anew, leaves nothing behind, and its data are right."""
    stop_at_the_hundredth = f"""
import itertools, pathlib, time
from jsubspace.data import tiny_imagenet
whole = tiny_imagenet._train
def slow(archive):
    yield from itertools.islice(whole(archive), 100)
    pathlib.Path({str(tmp_path)!r}, "reached").touch()
    time.sleep(600)
tiny_imagenet._train = slow
"""
    data_dir = tmp_path / "data"
    command = fake_archives.command(
        "tiny_imagenet", data_dir=data_dir, manual_dir=tiny_archives, after=stop_at_the_hundredth
    )
    with subprocess.Popen(
        command, env=fake_archives.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 50
        while not (tmp_path / "reached").exists():
            assert process.poll() is None, "the process ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    leftovers = list((data_dir / "tiny_imagenet").glob("incomplete*"))
    assert leftovers, "the process was killed too early for this test to mean anything"
    with pytest.raises(UsageError, match="not prepared"):
        prepare.prepared(sets.find("tiny_imagenet"), str(data_dir))

    done = fake_archives.run("tiny_imagenet", data_dir=data_dir, manual_dir=tiny_archives)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (data_dir / "tiny_imagenet").iterdir()] == ["1.0.0"]
    train = examples.read(sets.find("tiny_imagenet"), str(data_dir), "train")
    assert sorted(train.labels) == list(range(200))


def test_two_at_once_both_succeed(tmp_path):
    command = fake_archives.command("digits", data_dir=tmp_path)
    pair = [
        subprocess.Popen(command, env=fake_archives.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    for process in pair:
        output, _ = process.communicate()
        assert process.returncode == 0, output.decode()
    assert len(examples.read(sets.find("digits"), str(tmp_path), "train")) == 1437


def test_folder_in_another_file_format(tmp_path):
    """TFDS's own folder usually holds tfrecord, which needs TensorFlow to be read."""
    prepare.prepare("digits", str(tmp_path / "data"))
    info = next((tmp_path / "data").rglob("dataset_info.json"))
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UsageError, match=r"has .* in another file format than array_record"):
        prepare.prepared(sets.find("digits"), str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("name", "hide"),
    [
        ("digits", "sklearn"),
        ("fashion_mnist_corrupted/fog_1", "imagecorruptions"),
        ("imagenet2012_corrupted/fog_1", "imagecorruptions"),
    ],
)
def test_missing_package(name, hide, capsys, monkeypatch, tmp_path):
    find_spec = prepare.importlib.util.find_spec
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None if name == hide else find_spec(name))
    if name.startswith("imagenet") and not fake_archives.has_tensorflow():
        pytest.skip("TensorFlow is missing too, and named first")
    assert f"needs the package {hide}: pip install '.[" in message(capsys, name, f"--data_dir={tmp_path}")


@pytest.mark.parametrize("corruption", ["snow", "motion_blur"])
def test_missing_imagemagick(corruption, capsys, every_package, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    said = message(capsys, f"imagenet2012_corrupted/{corruption}_1", f"--data_dir={tmp_path}/data")
    assert "needs ImageMagick" in said


def test_no_network(capsys, monkeypatch, tmp_path):
    import requests

    def refuse(*args, **kwargs):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests.Session, "get", refuse)
    for name, archive in (
        ("tiny_imagenet", "tiny-imagenet-200.zip"),
        ("tiny_imagenet_corrupted", "Tiny-ImageNet-C.tar"),
    ):
        said = message(capsys, name, f"--data_dir={tmp_path}")
        assert f"error: cannot download {name} (no route to host)" in said[said.rindex("error: ") :]
        assert f"get {archive} elsewhere, put them into one folder and pass it by --manual_dir" in said
