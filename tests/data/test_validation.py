"""The split into training and validation images: disjoint, whole, and the same for every run, host and device."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jsubspace.data import imagenet, memory, pipeline, sets, stand_in, validation
from jsubspace.data.batching import Batching
from jsubspace.data.shards import Shard
from jsubspace.errors import UsageError

SETTINGS = settings(deadline=None, derandomize=True, max_examples=300)


@st.composite
def sizes(draw):
    """(n, num_train, num_validation) that leave at least one row."""
    n = draw(st.integers(1, 500))
    return n, draw(st.integers(0, n)), draw(st.integers(0, n - 1))


@SETTINGS
@given(sizes())
def test_training_and_validation_are_disjoint(given_sizes):
    n, num_train, num_validation = given_sizes
    train, kept = validation.split(n, num_train, num_validation)
    assert len(kept) == num_validation
    assert not set(train) & set(kept)
    assert len(train) >= 1
    assert (np.diff(train) > 0).all()
    assert (np.diff(kept) > 0).all()
    chosen = set(range(num_train or n))
    assert set(train) == chosen - set(kept)
    rest = n - len(chosen)
    if num_train == 0:
        assert set(train) | set(kept) == set(range(n))
    assert len(set(kept) - chosen) == min(rest, num_validation)  # The rows that training does not use come first.


@SETTINGS
@given(sizes(), st.integers(0, 500))
def test_fewer_validation_rows_are_a_part_of_more(given_sizes, fewer):
    n, num_train, num_validation = given_sizes
    larger = validation.split(n, num_train, num_validation)[1]
    smaller = validation.split(n, num_train, min(fewer, num_validation))[1]
    assert set(smaller) <= set(larger)


def test_without_validation_nothing_changes():
    assert validation.split(7, 0, 0)[0].tolist() == list(range(7))
    assert validation.split(7, 4, 0)[0].tolist() == list(range(4))


def test_the_rows_do_not_change_between_versions():
    assert validation.split(10, 0, 4)[1].tolist() == sorted(np.random.default_rng(1).permutation(10)[:4].tolist())


@pytest.mark.parametrize(
    ("given_sizes", "message"),
    [
        ((10, 0, 10), "num_validation=10 was asked for but the training split has 10 examples"),
        ((10, 4, 11), "At least one must be left to train on"),
        ((10, 11, 0), "num_train=11 was asked for but there are 10 examples"),
    ],
)
def test_a_split_that_leaves_nothing_is_refused(given_sizes, message):
    with pytest.raises(UsageError, match=message):
        validation.split(*given_sizes)


def digits(data_dir, **changes):
    batching = Batching(**{"batch_size": 128, "eval_batch_size": 64, "seed": 0, "num_validation": 200, **changes})
    return memory.load(sets.find("digits"), data_dir, batching)


def images(batches):
    """The images of batches as bytes with their labels, without padding."""
    found = []
    for batch in batches:
        mask = batch.get("mask", np.ones(len(batch["label"]), bool))
        pairs = zip(batch["image"][mask], batch["label"][mask], strict=True)
        found += [(image.tobytes(), int(label)) for image, label in pairs]
    return found


def test_digits_are_divided_once_for_all(data_dir):
    whole, split = digits(data_dir, num_validation=0), digits(data_dir)
    epoch = images(itertools.islice(split.train_batches(0), split.steps_per_epoch))
    kept = images(split.validation_batches())
    assert (len(kept), split.num_validation, whole.num_validation) == (200, 200, 0)
    assert list(whole.validation_batches()) == []
    everything = images(itertools.islice(whole.train_batches(0), whole.steps_per_epoch))
    assert sorted(epoch + kept) == sorted(everything)
    assert images(split.test_batches()) == images(whole.test_batches())
    for seed, size, samples in ((7, 64, 1), (3, 128, 2)):
        other = digits(data_dir, seed=seed, batch_size=size, num_samples=samples)
        assert images(other.validation_batches()) == kept


def test_label_noise_touches_training_labels_alone(data_dir):
    clean, noisy = digits(data_dir), digits(data_dir, label_noise=0.9)
    assert images(noisy.validation_batches()) == images(clean.validation_batches())
    np.testing.assert_array_equal(noisy.train.images, clean.train.images)
    assert np.mean(noisy.train.labels != clean.train.labels) > 0.7


def test_validation_images_come_from_the_rest_if_training_uses_a_part(data_dir):
    part = digits(data_dir, num_train=500)
    without = digits(data_dir, num_train=500, num_validation=0)
    np.testing.assert_array_equal(part.train.images, without.train.images)
    assert part.num_validation == 200
    pooled = digits(data_dir, pooling=2)
    assert next(pooled.validation_batches())["image"].shape == (64, 4, 4, 1)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A stand-in of ImageNet in which every photograph has a label of its own."""
    folder = str(tmp_path_factory.mktemp("data"))
    jpegs = [stand_in.encode(stand_in.photograph(np.random.default_rng(i), 40, 40)) for i in range(33)]
    named = [(f"n{i:08}.JPEG", jpeg, i) for i, jpeg in enumerate(jpegs)]
    stand_in.prepare_imagenet(folder, {"train": named[:23], "validation": named[23:]})
    return folder


def opened(folder, shard=None, **changes):
    options = {"batch_size": 4, "eval_batch_size": 4, "seed": 0, "num_workers": 0, "num_validation": 6, **changes}
    return imagenet.load(sets.find("imagenet2012"), folder, Batching(**options), shard)


def labels_of(batches):
    return [int(label) for batch in batches for label in batch["label"][batch.get("mask", slice(None))]]


def test_imagenet_keeps_records_that_training_never_reads(photographs, monkeypatch):
    whole, split = opened(photographs, num_validation=0), opened(photographs)
    kept = labels_of(split.validation_batches())
    expected = [whole.train.records.read(int(row))[2] for row in validation.split(23, 0, 6)[1]]
    assert (kept, split.num_validation, split.steps_per_epoch) == (expected, 6, 5)
    assert (list(whole.validation_batches()), whole.num_validation) == ([], 0)
    assert labels_of(opened(photographs, seed=5, batch_size=8).validation_batches()) == kept
    assert labels_of(opened(photographs, label_noise=1.0).validation_batches()) == kept
    read, records = [], imagenet.Records.read
    monkeypatch.setattr(imagenet.Records, "read", lambda self, i: read.append(records(self, i)) or read[-1])
    epoch = labels_of(itertools.islice(split.train_batches(0), 5))
    assert sorted(epoch + kept) == list(range(23))
    assert not {label for *_, label in read} & set(kept)


def test_hosts_read_parts_of_the_same_validation_batches(photographs, data_dir):
    whole = list(opened(photographs).validation_batches())
    parts = [list(opened(photographs, Shard(i, 2)).validation_batches()) for i in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([half[name] for half in halves]))
    one = digits(data_dir)
    two = [
        memory.InMemory(one.data_set, one.train, one.test, one.batching, Shard(i, 2), one.validation) for i in range(2)
    ]
    for batch, *halves in zip(one.validation_batches(), *(host.validation_batches() for host in two), strict=True):
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([half[name] for half in halves]))


def test_the_pipeline_of_a_name_has_validation_data(data_dir):
    found = pipeline.make_pipeline("digits", data_dir, Batching(8, 8, seed=0, num_validation=3))
    assert found.num_validation == 3
