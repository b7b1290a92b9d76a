"""Batches of data in memory: a function of the seed and the step, and every example exactly once."""

import dataclasses
import itertools

import numpy as np
import pytest

from jsubspace.data import examples, memory, sets
from jsubspace.data.batching import Batching
from jsubspace.errors import UsageError

DIGITS = sets.find("digits")


def numbered(n):
    """Examples whose first two pixels and label tell which they are."""
    images = np.zeros((n, 8, 8, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.arange(n) // 256, np.arange(n) % 256
    return memory.Examples(images, np.arange(n, dtype=np.int32))


def numbers(batch):
    return batch["image"][:, 0, 0, 0].astype(int) * 256 + batch["image"][:, 0, 1, 0]


def data(n=1000, batch_size=128, seed=0, n_test=300, eval_batch_size=64):
    return memory.InMemory(DIGITS, numbered(n), numbered(n_test), Batching(batch_size, eval_batch_size, seed))


def take(data, n, start=0):
    return list(itertools.islice(data.train_batches(start), n))


@pytest.mark.parametrize("batch_size", [1, 100, 128, 999, 1000, 4096])
def test_an_epoch_has_every_example_once_and_the_small_batch_last(batch_size):
    one = data(batch_size=batch_size)
    for epoch in (0, 1):
        batches = take(one, one.steps_per_epoch, start=epoch * one.steps_per_epoch)
        assert sorted(np.concatenate([numbers(batch) for batch in batches])) == list(range(1000))
        assert all(len(batch["label"]) == batch_size for batch in batches[:-1])
        assert len(batches[-1]["label"]) == (1000 - 1) % batch_size + 1
    for batch in batches:
        np.testing.assert_array_equal(numbers(batch), batch["label"])  # an image keeps its label
        np.testing.assert_array_equal(batch["index"], np.arange(len(batch["label"])))


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        one = data(seed=seed)
        return tuple(np.concatenate([b["label"] for b in take(one, 8, start=epoch * one.steps_per_epoch)]))

    orders = {(seed, epoch): order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9
    np.random.seed(5)  # it must not come from the global generator
    assert orders == {key: order(*key) for key in orders}


@pytest.mark.parametrize("step", [0, 1, 5, 7, 8, 9, 20])
def test_resuming_at_any_step_gives_the_same_batches(step):
    whole, resumed = take(data(), 24)[step:], take(data(), 24 - step, start=step)
    assert len(whole) == len(resumed)
    for expected, found in zip(whole, resumed, strict=True):
        for key in ("image", "label", "index"):
            np.testing.assert_array_equal(expected[key], found[key])


@pytest.mark.parametrize(("n", "size"), [(300, 64), (300, 300), (300, 1), (1, 64), (64, 64), (65, 64)])
def test_test_batches_hold_every_example_once_under_the_mask(n, size):
    batches = list(data(n_test=n, eval_batch_size=size).test_batches())
    assert all(len(batch[key]) == size for batch in batches for key in ("image", "label", "mask"))
    seen = np.concatenate([numbers(batch)[batch["mask"]] for batch in batches])
    np.testing.assert_array_equal(seen, np.arange(n))
    assert sum(batch["mask"].sum() for batch in batches) == n


def test_training_images_are_uint8_and_steps_are_counted():
    assert take(data(), 1)[0]["image"].dtype == np.uint8
    assert data(n=1000, batch_size=128).steps_per_epoch == 8
    assert data(n=1024, batch_size=128).steps_per_epoch == 8


def test_label_noise_is_on_training_labels_only_and_the_same_for_every_seed(monkeypatch):
    clean = dataclasses.replace(numbered(1000), labels=np.arange(1000, dtype=np.int32) % 10)
    monkeypatch.setattr(examples, "read", lambda *_: clean)
    settings = {"batch_size": 8, "eval_batch_size": 8, "label_noise": 0.5}
    one, two = (memory.load(DIGITS, "", Batching(seed=seed, **settings)) for seed in (0, 1))
    np.testing.assert_array_equal(one.train.labels, two.train.labels)
    np.testing.assert_array_equal(one.test.labels, clean.labels)
    assert 0.4 < (one.train.labels != clean.labels).mean() < 0.5  # half drawn anew, a tenth of it right by chance


def test_pooling_averages_squares_of_pixels_and_shrinks_the_crops_in_proportion(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    monkeypatch.setattr(examples, "read", lambda *_: memory.Examples(images, np.arange(5, dtype=np.int32)))
    found = memory.load(DIGITS, "", Batching(2, 2, seed=0, pooling=4))
    assert found.data_set.image_shape == (2, 2, 1)
    assert found.data_set.crop_padding == 1
    for split in (found.train, found.test):
        assert split.images.shape == (5, 2, 2, 1)
        assert split.images.dtype == np.uint8
        for n, row, column in itertools.product(range(5), range(2), range(2)):
            square = images[n, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4, 0].astype(float)
            assert abs(split.images[n, row, column, 0] - square.mean()) <= 0.5


def test_a_part_of_the_training_images_and_all_of_the_test_images(monkeypatch):
    monkeypatch.setattr(examples, "read", lambda *_: numbered(1000))
    found = memory.load(DIGITS, "", Batching(8, 8, seed=0, num_train=100))
    assert found.train.labels.tolist() == list(range(100))
    assert len(found.test) == 1000
    assert found.steps_per_epoch == 13
    noisy = memory.load(DIGITS, "", Batching(8, 8, seed=0, num_train=100, label_noise=0.5))
    assert 40 <= (noisy.train.labels != found.train.labels).sum() <= 50  # a fraction of the 100 examples
    with pytest.raises(UsageError, match="num_train=1001 was asked for but there are 1000 examples"):
        memory.load(DIGITS, "", Batching(8, 8, seed=0, num_train=1001))
