"""An example that a network holds for impossible makes the score of a test infinite. Training is well all the same."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_problems import short_settings
from whole_runs import StopAt

import jsubspace
from jsubspace import training
from jsubspace.data.arrays import ArrayData
from jsubspace.errors import Preempted
from jsubspace.models import adapters
from jsubspace.runs import config
from jsubspace.storage.writer import read_rows
from jsubspace.training.patience import Patience


def settings_of(**fields):
    settings = short_settings()
    for name, value in fields.items():
        config.change(settings, name.replace("__", "."), str(value))
    return settings


def impossible(**data):
    """A density that gives the last example of the test and of the validation data no probability at all."""

    def log_prob_fn(point, x, key=None, train=False):
        return jnp.where(x == 9, -jnp.inf, jax.scipy.stats.norm.logpdf(jnp.minimum(x, 8), point["mean"]))

    x = np.linspace(-1, 1, 8, dtype=np.float32)
    other = np.append(x, np.float32(9))
    network = adapters.from_functions(lambda key: {"mean": jax.random.normal(key, ())}, log_prob_fn)
    return training.Problem(network, jsubspace.Likelihood(), ArrayData(train=(x,), test=(other,), batch_size=4, **data))


@pytest.mark.parametrize("every", [0, 1])
def test_an_infinite_score_of_a_test_does_not_end_training(every, tmp_path, caplog):
    settings = settings_of(optimizer__num_epochs=3, evaluation__every_epochs=every, penalty__all_leaves=True)
    found = training.train(impossible(), settings, tmp_path)
    assert found["finished"]
    assert found["points"][0]["nll"] is None
    assert found["early_stopping"] is None
    assert [row["nll"] for row in read_rows(tmp_path, "test")] == [None] * 3 * every
    assert caplog.text.count("the nll on the test data after step 2 is inf") == every


def test_patience_counts_infinite_scores_also_where_it_was_interrupted(tmp_path):
    settings = settings_of(
        optimizer__num_epochs=6, evaluation__every_epochs=1, evaluation__patience=3, penalty__all_leaves=True
    )
    problem = impossible(validation=(np.float32([0, 9]),))
    with pytest.raises(Preempted, match="after step 4"):
        training.train(problem, settings, tmp_path, StopAt(4))
    training.train(problem, settings, tmp_path, StopAt(0))
    assert [row["step"] for row in read_rows(tmp_path, "validation")] == [2, 4, 6]


@pytest.mark.parametrize(
    ("ranks", "left"), [([], {}), ([-np.inf], {"tests": 1}), ([2.0, np.nan], {"best": 2.0, "tests": 1})]
)
def test_what_patience_notes_is_json_and_comes_back(ranks, left):
    patience = Patience(3, {})
    for rank in ranks:
        patience.see(rank)
    assert patience.notes() == ({"patience": left} if left else {})
    assert Patience(3, json.loads(json.dumps(patience.notes(), allow_nan=False))).notes() == patience.notes()
