"""Every data set, from a fake archive through its real builder to the arrays that are trained on."""

import io

import fake_archives
import numpy as np
import pytest
from PIL import Image

from jsubspace.data import examples, pipeline, sets
from jsubspace.data.batching import Batching
from jsubspace.errors import UsageError


def by_content(images, labels):
    """A set of examples, in whatever order they come."""
    return sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cifar100"])
def test_every_image_comes_back_with_its_label(fake_data, name, split):
    data_set = sets.find(name)
    found = examples.read(data_set, fake_data, split)
    labels = fake_archives.labels(split, data_set.num_classes)
    images = fake_archives.images(data_set.image_shape, len(labels), seed=len(labels))
    assert found.images.dtype == np.uint8
    assert found.labels.dtype == np.int32
    assert by_content(found.images, found.labels) == by_content(images, labels)


def test_digits_are_those_of_scikit_learn(fake_data):
    from sklearn.datasets import load_digits

    parts = [examples.read(sets.find("digits"), fake_data, split) for split in ("train", "test")]
    assert [len(part) for part in parts] == [1437, 360]
    digits = load_digits()
    images = np.round(digits.images / 16 * 255).astype(np.uint8)[..., None]
    found = by_content(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))
    assert found == by_content(images, digits.target)


def test_tiny_imagenet_decodes_as_pillow_does_and_numbers_classes_alphabetically(fake_data):
    data_set = sets.find("tiny_imagenet")
    wnids = fake_archives.tiny_wnids()
    images = fake_archives.images((64, 64, 3), 200, seed=2)
    labels = [sorted(wnids).index(wnid) for wnid in wnids]

    def decoded(rows, is_grey):
        files = (fake_archives.jpeg(images[i], "L" if is_grey(i) else "RGB") for i in rows)
        return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]

    train = examples.read(data_set, fake_data, "train")
    assert by_content(train.images, train.labels) == by_content(decoded(range(200), lambda i: i % 10 == 0), labels)
    test = examples.read(data_set, fake_data, data_set.test_split)
    assert by_content(test.images, test.labels) == by_content(
        decoded(range(0, 200, 4), lambda i: i == 12), [labels[i] for i in range(0, 200, 4)]
    )


def test_imagenet_keeps_its_jpeg_files_and_labels(fake_data):
    import tensorflow_datasets as tfds

    builder = sets.find("imagenet2012").tfds_builder(fake_data)
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    found = {(example["file_name"].decode(), int(example["label"])) for example in source}
    wnids = fake_archives.imagenet_wnids()
    n = len(fake_archives.IMAGENET_TRAIN)
    assert found == {(f"{wnids[k]}_{i}.JPEG", k) for k in fake_archives.IMAGENET_CLASSES for i in range(n)}
    modes = {Image.open(io.BytesIO(example["image"])).mode for example in source}
    assert modes == {"RGB", "L", "CMYK"}
    validation = builder.as_data_source("validation", decoders={"image": tfds.decode.SkipDecoding()})
    assert len(validation) == fake_archives.IMAGENET_VALIDATION


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "cifar10", "cifar100", "tiny_imagenet"])
def test_pipeline_of_a_small_data_set(fake_data, name):
    data_set = sets.find(name)
    data = pipeline.make_pipeline(name, fake_data, Batching(32, 16, seed=0))
    batch = next(data.train_batches(0))
    assert batch["image"].shape == (32, *data_set.image_shape)
    assert data.preprocess(batch["image"]).dtype == np.float32


@pytest.mark.parametrize("data_set", sets.SETS.values(), ids=list(sets.SETS))
def test_facts_agree_with_each_other(data_set):
    assert data_set.name in fake_archives.SETS  # so that a config of a new data set is tested too
    assert len(data_set.mean) == len(data_set.std) == data_set.image_shape[-1]
    assert len(data_set.sizes) <= len(data_set.archives)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'tiny_imagenet'"):
        sets.find("tiny-imagenet")


def test_reading_imports_no_tensorflow(fake_data):
    import sys

    for data_set in sets.SETS.values():
        if data_set.name != "imagenet2012":
            examples.read(data_set, fake_data, data_set.test_split)
    assert "tensorflow" not in sys.modules
