"""Corrupted test sets: the published ones through their builders, the others computed here."""

import dataclasses
import io
import itertools

import fake_archives
import jax
import numpy as np
import pytest
from PIL import Image

from jsubspace.data import corruptions, memory, pipeline, sets
from jsubspace.errors import UsageError
from jsubspace.evaluation.survey import survey
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import adapters, build, results

ALL = list(itertools.product(corruptions.CORRUPTIONS, corruptions.SEVERITIES))


def test_there_are_fifteen_and_four():
    assert len(corruptions.MAIN) == 15
    assert len(set(corruptions.CORRUPTIONS)) == 19


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist", "imagenet2012"])
def test_every_corruption_is_a_data_set_that_its_builder_knows(name, tmp_path):
    for corruption, severity in ALL:
        row = corruptions.corrupted(sets.find(name), corruption, severity)
        assert row.tfds_builder(str(tmp_path)).builder_config.name == row.name.partition("/")[2]


def test_names_for_the_command():
    find = corruptions.find
    assert [row.name for row in find("cifar10")] == ["cifar10"]
    assert [row.name for row in find("cifar10_corrupted/fog_3")] == ["cifar10_corrupted/fog_3"]
    assert [row.name for row in find("cifar10_corrupted/fog")] == [f"cifar10_corrupted/fog_{i}" for i in range(1, 6)]
    assert len(find("cifar10_corrupted")) == 95
    assert len(find("tiny_imagenet_corrupted")) == 1  # one archive, prepared in one go
    # TFDS's name of it works as well: messages about what is not prepared carry it.
    assert find("cifar10_corrupted/frosted_glass_blur_2") == find("cifar10_corrupted/glass_blur_2")


def test_errors_name_what_there_is():
    with pytest.raises(UsageError, match="unknown corruption 'gausian_noise': did you mean 'gaussian_noise'"):
        corruptions.find("cifar10_corrupted/gausian_noise_1")
    with pytest.raises(UsageError, match="the severity of a corruption is 1, 2, 3, 4 or 5, not 6"):
        corruptions.corrupted(sets.find("cifar10"), "fog", 6)
    with pytest.raises(UsageError, match="did you mean 'cifar10'"):
        corruptions.find("cifar1_corrupted")
    with pytest.raises(UsageError, match=r"images of digits are 8 x 8. The corruptions are defined for 32 x 32"):
        memory.load_corrupted(sets.find("digits"), "fog", 1)


def test_what_is_not_prepared_says_how(tmp_path):
    with pytest.raises(UsageError) as raised:
        memory.load_corrupted(sets.find("cifar10"), "glass_blur", 2, str(tmp_path))
    assert "python -m jsubspace.data.prepare cifar10_corrupted/frosted_glass_blur_2 " in str(raised.value)
    assert "CIFAR-10-C.tar" in str(raised.value)


def by_content(images, labels):
    return sorted((int(label), image.tobytes()) for image, label in zip(images, labels, strict=True))


CIFAR10_C = [("glass_blur", 2), ("elastic_transform", 5), ("fog", 1)]


@pytest.fixture(scope="module")
def with_tensorflow(tmp_path_factory):
    """CIFAR-10, three of its corrupted test sets and two of ImageNet's, by one process that imports TensorFlow."""
    folder = tmp_path_factory.mktemp("with_tensorflow")
    names = [f"cifar10_corrupted/{corruption}_{severity}" for corruption, severity in CIFAR10_C]
    names += [f"imagenet2012_corrupted/contrast_{severity}" for severity in (1, 5)]
    fake_archives.prepare_fake("cifar10", *names, data_dir=folder)
    return str(folder)


def test_evaluation_under_shift(with_tensorflow, tiny_config):
    """Every point and ensemble on each corrupted set, and the clean set's BatchNorm statistics."""
    tiny_config.data.name, tiny_config.data.dir = "cifar10", with_tensorflow
    tiny_config.model.width = 2
    tiny_config.evaluation.corruptions, tiny_config.evaluation.num_resamples = "glass_blur_2,fog_1", 20
    run = build.build(tiny_config)
    endpoints = run.devices.run_once(run.init_state).endpoints
    measured = results.measure(run, endpoints)
    assert list(measured["shifted"]) == ["glass_blur_2", "fog_1"]
    evaluator = adapters.evaluator(run, Classification(), survey(run.subspace, 3))
    stats = adapters.batch_stats(run, evaluator, endpoints)
    variables = {
        "params": jax.tree.map(lambda leaf: np.asarray(leaf).mean(0), endpoints),
        "batch_stats": jax.tree.map(lambda leaf: np.asarray(leaf[1]), stats),
    }
    pipeline_of_run = run.problem.pipeline

    @jax.jit
    def log_probs_of(images):
        logits = run.problem.model.apply(variables, pipeline_of_run.preprocess(images), train=False).logits
        return jax.nn.log_softmax(logits)

    for name, (corruption, severity) in zip(measured["shifted"], [("glass_blur", 2), ("fog", 1)], strict=True):
        found = memory.load_corrupted(pipeline_of_run.data_set, corruption, severity, with_tensorflow)
        log_probs = np.asarray(log_probs_of(found.images))
        shifted = measured["shifted"][name]
        assert [row["name"] for row in shifted["points"]] == ["0.00", "0.50", "1.00"]
        nll = -log_probs[np.arange(len(found)), found.labels].mean()
        assert shifted["points"][1]["nll"] == pytest.approx(nll, rel=1e-3)
        assert shifted["ensembles"][0]["name"] == "0.00 & 1.00"
    assert "fog_1: midpoint" in results.table(measured | {"early_stopping": None})
    tiny_config.evaluation.corruptions = "snow_3"
    with pytest.raises(UsageError, match=r"cifar10_corrupted/snow_3 .*prepare"):
        build.build(tiny_config)


def test_cifar10_c(with_tensorflow):
    for corruption, severity in CIFAR10_C:
        found = memory.load_corrupted(sets.find("cifar10"), corruption, severity, with_tensorflow)
        expected = fake_archives.cifar10_c(corruption, severity)
        assert by_content(found.images, found.labels) == by_content(expected, fake_archives.labels("test"))


def test_tiny_imagenet_c(tmp_path):
    fake_archives.prepare_fake("tiny_imagenet_corrupted", data_dir=tmp_path)
    data_set = sets.find("tiny_imagenet")
    for corruption, severity in ALL:
        row = corruptions.corrupted(data_set, corruption, severity)
        n = 200 if (corruption, severity) == ("fog", 1) else 2
        assert len(row.tfds_builder(str(tmp_path)).as_data_source(row.test_split)) == n
    for corruption, severity in (("fog", 1), ("snow", 4), ("spatter", 5)):
        found = memory.load_corrupted(data_set, corruption, severity, str(tmp_path))
        n, seed = len(found), 100 * corruptions.CORRUPTIONS.index(corruption) + severity
        files = (fake_archives.jpeg(image) for image in fake_archives.images((64, 64, 3), n, seed=seed))
        expected = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
        assert by_content(found.images, found.labels) == by_content(expected, range(n))


def test_tiny_imagenet_c_without_the_extra_archive(tmp_path):
    fake_archives.make("tiny_imagenet_corrupted", tmp_path)
    (tmp_path / "Tiny-ImageNet-C-extra.tar").unlink()
    done = fake_archives.run("tiny_imagenet_corrupted", data_dir=tmp_path / "data", manual_dir=tmp_path)
    assert done.returncode == 0, done.stderr
    data_set, data_dir = sets.find("tiny_imagenet"), str(tmp_path / "data")
    assert len(memory.load_corrupted(data_set, "snow", 1, data_dir)) == 2
    with pytest.raises(UsageError, match="has no split 'saturate_1'"):
        memory.load_corrupted(data_set, "saturate", 1, data_dir)


def test_imagenet_c(with_tensorflow):
    weak, strong = (memory.load_corrupted(sets.find("imagenet2012"), "contrast", s, with_tensorflow) for s in (1, 5))
    assert weak.images.shape == strong.images.shape == (fake_archives.IMAGENET_VALIDATION, 224, 224, 3)
    assert (strong.images.std(axis=(1, 2)) < weak.images.std(axis=(1, 2)) / 4).all()  # by definition an eighth
    np.testing.assert_array_equal(weak.labels, strong.labels)
    batches = pipeline.corrupted_batches("imagenet2012", with_tensorflow, "contrast", 5, 4, num_workers=0)
    read = [(image, label) for b in batches for image, label, real in zip(*b.values(), strict=True) if real]
    np.testing.assert_array_equal([label for _, label in read], strong.labels)
    # As they are on the disk, cropped and resized no further; decoders differ by rounding.
    assert np.abs(np.float32([image for image, _ in read]) - strong.images).max() <= 4
    assert len(set(weak.labels)) > 1


def test_corrupted_sets_keep_the_facts_of_the_clean_one():
    for data_set in sets.SETS.values():
        if data_set.name == "digits":
            continue
        row = corruptions.corrupted(data_set, "fog", 1)
        ours = ("name", "test_split", "builder", "needs", "archives", "sizes", "downloads")
        clean = dataclasses.replace(data_set, **{field: getattr(row, field) for field in ours})
        assert row == clean
