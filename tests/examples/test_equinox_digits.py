"""The code of docs/equinox_digits.md trains a line of Equinox networks by `training.train`, and exports its midpoint.

Tests of `training.train` in tests/runs are quick. The run of this page takes ten seconds, so it is one of the slow tests.
"""

import json

import guides
import jax
import numpy as np
import pytest

from jsubspace import training
from jsubspace.errors import UsageError
from jsubspace.examples import equinox_digits, small_images


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """The names of the page, after all of its code has run in the folder ``guide["folder"]``."""
    folder = tmp_path_factory.mktemp("guide")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return guides.execute("equinox_digits.md") | {"folder": folder}


@pytest.mark.slow
def test_the_line_learns_digits(guide):
    """Of ten classes, after 85 steps. The notebook trains until 0.98."""
    assert guide["results"]["finished"]
    assert min(row["accuracy"] for row in guide["results"]["points"]) > 0.25
    assert guide["results"]["validation"]["best"] in [row["name"] for row in guide["results"]["points"]]
    assert (guide["folder"] / "runs" / "equinox" / "figures" / "accuracy.png").exists()


@pytest.mark.slow
def test_the_exported_midpoint_is_the_measured_one(guide):
    midpoint = next(row for row in guide["results"]["points"] if "center" in row["roles"])
    accuracy = np.mean(np.argmax(guide["logits"], axis=-1) == guide["y"])
    assert abs(accuracy - midpoint["accuracy"]) < 1.5 / 360  # one digit: another program may round otherwise


def test_the_adapter_calls_the_module_itself():
    """The module of Equinox with the same key, one image after the other."""
    problem = equinox_digits.make_problem(equinox_digits.make_settings(width=8))
    images = small_images.digits().test[0][:3].reshape(-1, 1, 8, 8)
    key = jax.random.key(0)
    found = jax.jit(lambda key: problem.network.apply(problem.network.init(key), images))(key)
    expected = jax.jit(lambda key: [equinox_digits.Net(key, 8)(image) for image in images])(key)
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_settings_of_the_problem_identify_the_run(guide, monkeypatch):
    monkeypatch.chdir(guide["folder"])
    recorded = json.loads((guide["folder"] / "runs" / "equinox" / "config.json").read_text())
    assert recorded["problem"] == {"width": 8, "batch_size": 64}
    again = training.train(lambda settings: pytest.fail("it is finished"), guide["settings"], "runs/equinox")
    assert again == guide["results"]
    other = equinox_digits.make_settings(num_epochs=5, width=16)
    with pytest.raises(UsageError, match=r"problem\.width: 8 there, 16 here"):
        training.train(equinox_digits.make_problem, other, "runs/equinox")
