"""The code of docs/regression.md runs, its scores are those of `measure`, and its comparison is fair."""

import guides
import jax
import numpy as np
import pytest

import jsubspace
from jsubspace.examples import diabetes


@pytest.fixture(scope="module")
def guide():
    """The names of the page, after all of its code has run."""
    return guides.execute("regression.md")


def test_the_scores_of_all_splits_are_those_of_measure(guide):
    """`measure` of one split, against the function that scores all splits at once."""
    found, row = diabetes.scores(guide["lines"], guide["data"]["test"]), guide["report"].ensemble(0.0, 1.0)
    assert found.keys() == guide["report"].higher_is_better.keys()
    for name, values in found.items():
        assert values.shape == (2,)
        np.testing.assert_allclose(values[0], row.scores[name], rtol=1e-4, err_msg=name)


def test_with_little_decay_the_midpoint_overfits_less_than_independent_networks(guide):
    """As docs/regression.md says, on every split. One network is certain and wrong."""
    nll = {name: scores["nll"] for name, scores in guide["found"][guide["settings"]]["test"].items()}
    assert np.all(nll["midpoint of the line"] < nll["one network"] - 0.2)
    assert np.all(nll["ensemble of its ends"] < nll["one network"] - 0.2)
    assert nll["midpoint of the line"].mean() < nll["5 independent networks"].mean()
    covered = {name: scores["coverage_90"].mean() for name, scores in guide["found"][guide["settings"]]["test"].items()}
    assert covered["one network"] < 0.75 < covered["midpoint of the line"]


def test_the_networks_explain_the_data(guide):
    """The targets have a standard deviation of 1.03."""
    assert np.std(guide["data"]["test"][1]) > 0.9
    assert guide["found"][guide["settings"]]["test"]["midpoint of the line"]["rmse"].mean() < 0.85


def test_splits_share_no_patient_and_differ():
    data = diabetes.splits(2)
    assert {name: x.shape for name, (x, _) in data.items()} == {
        "train": (2, 264, 10), "validation": (2, 89, 10), "test": (2, 89, 10)
    }  # fmt: skip
    for split in range(2):
        rows = np.concatenate([x[split] for x, _ in data.values()])
        assert len(np.unique(rows, axis=0)) == 442
        np.testing.assert_allclose(rows.std(axis=0), 1, rtol=1e-4)
    assert not np.array_equal(data["test"][1][0], data["test"][1][1])


def test_networks_that_are_trained_at_once_know_nothing_of_each_other():
    """The same key and patients give the same networks, whatever is trained beside them."""
    settings, order = diabetes.Settings(num_steps=20, decay=1.0, width=8), np.array([0, 1, 0])
    data, keys = diabetes.splits(2)["train"], jax.random.split(jax.random.key(1), 2)
    trained = diabetes.train(keys[order], tuple(array[order] for array in data), jsubspace.Line(), settings)
    rows = np.concatenate([leaf.reshape(3, -1) for leaf in jax.tree.leaves(trained)], axis=1)
    np.testing.assert_allclose(rows[0], rows[2], rtol=1e-5, atol=1e-6)
    assert np.abs(rows[0] - rows[1]).max() > 0.1


def test_settings_are_chosen_by_validation_data_alone():
    """For every predictor on its own. The test scores would choose otherwise."""
    first, second = diabetes.Settings(200, 0.1), diabetes.Settings(400, 1.0)
    names = ("rmse", "nll", "crps", "coverage_50", "coverage_90")

    def row(nll):
        return dict.fromkeys(names, np.array(nll))

    found = {
        first: {"validation": {"a": row([1.0, 2.0]), "b": row([4.0, 4.0])}, "test": {"a": row([9.0, 8.0]), "b": row([1.0, 1.0])}},
        second: {"validation": {"a": row([3.0, 2.0]), "b": row([3.0, 4.0])}, "test": {"a": row([1.0, 1.0]), "b": row([7.0, 5.0])}},
    }  # fmt: skip
    assert diabetes.chosen(found) == {"a": first, "b": second}
    a, b = diabetes.table(found, diabetes.chosen(found)).splitlines()[2:]
    assert a.startswith("| a | 200, 0.1 | 8.500 ± 6.353 |")
    assert a.endswith("| 2.500 ± 6.353 |")  # 9 - 7 and 8 - 5
    assert b.startswith("| b | 400, 1 | 6.000 ±")
    assert b.endswith("|  |")
