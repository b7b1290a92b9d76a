"""Addresses: which are taken, and what an answer of a bucket means."""

import pathlib

import aiohttp
import google.auth.exceptions
import pytest
from gcsfs.retry import HttpError

from jsubspace import endings, paths
from jsubspace.data import prepare
from jsubspace.errors import BucketError, UsageError
from jsubspace.runs import config, config_files
from jsubspace.storage import bucket_paths, checksums, files, places

GOOD = ["gs://bucket/run", "gs://bucket/a/b c/ü.json", "gs://bucket/run/", "gs://my.bucket-1_2/x"]

BAD = {
    "gs://": "does not name a bucket",
    "gs:///run": "does not name a bucket",
    "gs://bucket": "does not name a bucket",
    "gs://Bucket/run": "does not name a bucket",
    "gs:/bucket/run": "two slashes",
    "gs:bucket/run": "two slashes",
    "GS://bucket/run": "two slashes",
    "s3://bucket/run": "only addresses that work are gs://",
    "http://host/run": "only addresses that work are gs://",
    "hdfs://host/run": "only addresses that work are gs://",
    "file:///tmp/run": "path itself",
    "gs://bucket/run*": "characters",
    "gs://bucket/a[1]": "characters",
    "gs://bucket/a\nb": "characters",
    "gs://bucket/../other/run": "'..'",
}


@pytest.mark.parametrize("address", GOOD)
def test_an_address_is_a_path(address):
    path = places.located(address, "--workdir")
    assert places.in_bucket(path)
    assert str(path) == address.rstrip("/")
    assert str(path.absolute()) == str(path.resolve()) == str(path)
    assert places.in_bucket(path / "checkpoints")
    assert str((path / "checkpoints").parent) == str(path)
    assert str(places.located(path, "again")) == str(path)
    assert len({path, places.located(address, "again")}) == 1


@pytest.mark.parametrize("address", BAD)
def test_another_address_is_one_message(address):
    with pytest.raises(UsageError, match=BAD[address].replace(".", r"\.")):
        places.located(address, "--workdir")
    with pytest.raises(UsageError, match="the run's folder is"):
        config_files.check_same_run(places.located(address, "the run's folder"), config.default())


@pytest.mark.parametrize("path", ["runs/a", "a:b", "/tmp/gs/run", "runs/gs://x", "C:/runs", "./gs:"])
def test_a_path_of_the_disk_is_one(path):
    assert places.located(path, "--workdir") == pathlib.Path(path)


def test_what_must_be_on_the_disk_is_no_address():
    for read in (paths.on_disk, lambda given, name: prepare.prepare("digits", given)):
        with pytest.raises(UsageError, match="must be a path of the disk"):
            read("gs://bucket/data", "data.dir")


def test_buckets_need_a_package(monkeypatch):
    monkeypatch.setattr(places.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="need the package gcsfs"):
        places.located("gs://bucket/run", "--workdir")
    assert places.located("runs/a", "--workdir") == pathlib.Path("runs/a")


class Answers:
    """A bucket that gives one answer to all requests."""

    def __init__(self, answer):
        self.answer = answer

    def __getattr__(self, name):
        def request(*args, **options):
            raise self.answer

        return request


REFUSALS = {
    "Log in": [
        OSError("Forbidden: https://storage.googleapis.com/b/bucket\nno access"),
        HttpError({"code": 401, "message": "Anonymous caller does not have storage.objects.list access"}),
        google.auth.exceptions.DefaultCredentialsError("Your default credentials were not found."),
    ],
    "the bucket does not answer": [
        aiohttp.ClientConnectionError("Cannot connect to host storage.googleapis.com:443"),
        HttpError({"code": 503, "message": "busy"}),
        TimeoutError("the read timed out"),
    ],
}


@pytest.mark.parametrize(("words", "answer"), [(words, answer) for words in REFUSALS for answer in REFUSALS[words]])
def test_a_bucket_that_does_not_answer_is_not_an_empty_folder(monkeypatch, words, answer):
    """epath would say that nothing exists. The run would begin again, over what is there."""
    path = places.located("gs://bucket/run", "--workdir")
    monkeypatch.setattr(bucket_paths, "_files", lambda: Answers(answer))
    requests = [path.exists, path.is_dir, path.is_file, path.read_bytes, path.read_text, path.unlink]
    requests += [lambda: path.write_bytes(b""), lambda: path.copy(path), lambda: files.all_files(path)]
    requests += [lambda: files.check_writable(path), lambda: checksums.damage(path), lambda: files.remove(path)]
    requests += [lambda: config_files.check_same_run(path, config.default())]
    for request in requests:
        with pytest.raises(BucketError, match=words):
            request()
    with pytest.raises(BucketError) as caught:
        path.exists()
    assert endings.as_known(caught.value) is caught.value
    assert "gs://bucket/run: the bucket" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_bucket_does_not_have_is_not_an_error(monkeypatch):
    path = places.located("gs://bucket/run", "--workdir")
    monkeypatch.setattr(bucket_paths, "_files", lambda: Answers(FileNotFoundError("b/bucket/o/run")))
    assert not path.exists()
    assert not path.is_dir()
    assert not path.is_file()
    assert files.all_files(path) == []
    files.remove(path)
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
