"""The code of docs/detection.md runs. The photographs come with scikit-learn; Fashion-MNIST is tried where it is prepared."""

import guides
import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_auc_score

import jsubspace
from jsubspace.data import examples
from jsubspace.errors import UsageError
from jsubspace.examples import detection, mlp, small_images


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """The names of the page, after all of its code has run where no Fashion-MNIST is prepared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JSUBSPACE_DATA_DIR", str(tmp_path_factory.mktemp("no_data")))
        return guides.execute("detection.md")


def entropies(logits):
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return -np.sum(np.exp(log_p) * log_p, axis=1)


def test_photographs_are_found_by_every_network_of_the_line(guide):
    """And the areas are scikit-learn's, of the entropies of the same network."""
    digits, found = guide["digits"], guide["report"].rows
    assert min(row.scores["accuracy"] for row in found) > 0.93
    assert min(row.detection["entropy"].auroc for row in found) > 0.85
    midpoint = jsubspace.midpoint(guide["line"])
    inside, outside = (
        entropies(np.asarray(mlp.apply(midpoint, x), np.float64)) for x in (digits.test[0], guide["photographs"])
    )
    area = roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), np.concatenate([inside, outside]))
    np.testing.assert_allclose(guide["report"].center.detection["entropy"].auroc, area, atol=1e-4)


def test_the_comparison_has_every_predictor_of_the_table(guide):
    """The independent networks are single networks and their ensemble, and never the point between them."""
    rows = guide["rows"]["photographs"]
    assert list(rows) == [
        "standard training", "midpoint of the line", "end of the line", "ensemble of its ends", "2 independent networks"
    ]  # fmt: skip
    assert [row.members for row in rows.values()] == [
        ("0.00",),
        ("0.50",),
        ("0.00",),
        ("0.00", "1.00"),
        ("0.00", "1.00"),
    ]
    assert min(row.scores["accuracy"] for row in rows.values()) > 0.93
    lines = detection.table([rows]).splitlines()
    assert len(lines) == 2 + len(rows)
    assert lines[2].startswith(f"| standard training | {rows['standard training'].scores['accuracy']:.3f} |")


def test_digits_are_split_as_the_data_set_of_runs_is(data_dir):
    """Its images have 255 levels in the place of 16, and the test digits are the same."""
    digits, data = small_images.digits(), load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    np.testing.assert_array_equal(digits.test[1], data.target[order[:360]])
    whole = np.concatenate([digits.test[0], digits.validation[0], digits.train[0]])
    expected = (data.images[order].reshape(-1, 64) / 16 - small_images.CENTER) / small_images.SPREAD
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-6)
    assert abs(digits.train[0].mean()) < 0.02
    prepared = examples.read(small_images.sets.find("digits"), data_dir, "test")
    assert sorted(prepared.labels.tolist()) == sorted(digits.test[1].tolist())


def test_a_patch_is_a_square_of_a_photograph():
    found, image = small_images.photographs(), load_sample_images().images[1]
    row, column = 3, 7  # of 13 rows with 20 patches each
    square = image[32 * row : 32 * row + 32, 32 * column : 32 * column + 32].mean(-1) / 255
    expected = np.array([[square[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean() for j in range(8)] for i in range(8)])
    standardised = (expected.ravel() - small_images.CENTER) / small_images.SPREAD
    assert found.shape == (2 * 13 * 20, 64)
    np.testing.assert_allclose(found[13 * 20 + 20 * row + column], standardised, rtol=1e-4, atol=1e-5)


def test_fashion_mnist_is_pooled_to_the_shape_of_digits(fake_data, monkeypatch):
    """With a stand-in of the data set, which the official builder has prepared."""
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", fake_data)
    assert small_images.is_fashion_mnist_prepared()
    images = examples.read(small_images.sets.find("fashion_mnist"), "", "test").images[..., 0]
    found = small_images.fashion_mnist()
    assert found.shape == (len(images), 64)
    padded = np.pad(images[0] / 255, 2)
    value = (padded[8:12, 4:8].mean() - small_images.CENTER) / small_images.SPREAD
    np.testing.assert_allclose(found[0, 2 * 8 + 1], value, rtol=1e-4, atol=1e-5)


def test_fashion_mnist_that_is_not_prepared_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", str(tmp_path))
    assert not small_images.is_fashion_mnist_prepared()
    with pytest.raises(UsageError, match=r"jsubspace\.data\.prepare fashion_mnist"):
        small_images.fashion_mnist()
