"""Optimizers by settings and from a problem: what is logged, named, evaluated and refused."""

import jax
import numpy as np
import optax
import pytest
from own_problems import classifier, short_settings
from whole_runs import StopAt

from jsubspace import training
from jsubspace.errors import UsageError
from jsubspace.runs import config, limits, methods
from jsubspace.runs.run import checked_problem
from jsubspace.storage.writer import read_rows


def settings_of(**fields):
    settings = short_settings()
    for name, value in fields.items():
        config.change(settings, name.replace("__", "."), str(value))
    return settings


def problem_with(optimizer):
    plain = classifier()
    return training.Problem(plain.network, plain.task, plain.data, optimizer)


def test_an_optimizer_of_a_problem_has_the_bits_of_the_named_one(tmp_path):
    """As a function it takes the schedule of the settings. The rate is logged if the run knows it."""

    def adamw(schedule):
        return optax.chain(
            optax.scale_by_adam(), optax.add_decayed_weights(1e-4), optax.scale_by_learning_rate(schedule)
        )

    named = training.train(classifier(), settings_of(optimizer__name="adamw"), tmp_path / "named", StopAt(0))
    own = training.train(problem_with(adamw), settings_of(optimizer__name="problem"), tmp_path / "own", StopAt(0))
    assert own["points"] == named["points"]
    rows = [read_rows(tmp_path / name, "train") for name in ("named", "own")]
    assert rows[0][0]["learning_rate"] == rows[1][0]["learning_rate"] > 0
    other = settings_of(optimizer__name="problem")
    training.train(problem_with(optax.MultiSteps(optax.adafactor(0.1), 2)), other, tmp_path / "fixed", StopAt(0))
    assert "learning_rate" not in read_rows(tmp_path / "fixed", "train")[0]


def failing(schedule):
    return optax.GradientTransformation(lambda params: params["no such leaf"], lambda *args: args)


@pytest.mark.parametrize(
    ("optimizer", "fields", "message"),
    [
        (
            optax.sgd(0.1),
            {},
            "the problem brings an optimizer, but optimizer.name is 'sgd'. Set it to 'problem'",
        ),
        (None, {"optimizer__name": "problem"}, "the problem brings no optimizer"),
        (
            3,
            {"optimizer__name": "problem"},
            "the optimizer of the problem is of type int. It must be an object of optax",
        ),
        (lambda schedule: None, {"optimizer__name": "problem"}, "the optimizer of the problem is of type NoneType"),
        (failing, {"optimizer__name": "problem"}, "the optimizer of the problem failed on one network"),
        (None, {"optimizer__accumulate_steps": 4}, "accumulate_steps is 4, but the run has only 3 steps"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(optimizer, fields, message, tmp_path):
    with pytest.raises(UsageError) as refused:
        training.train(problem_with(optimizer), settings_of(**fields), tmp_path / "run")
    assert message in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_updates_of_other_shapes_are_refused():
    wrong = optax.stateless(lambda updates, params: jax.tree.map(lambda leaf: np.ones((5, *leaf.shape)), updates))
    with pytest.raises(UsageError, match="updates of other shapes"):
        checked_problem(settings_of(optimizer__name="problem"), problem_with(wrong))


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_the_rate_of_the_center_is_refused_with_optimizers_that_divide_by_the_size(name):
    with pytest.raises(UsageError, match=rf"must be plain with config\.optimizer\.name={name}, which divides the size"):
        limits.validate(settings_of(subspace__pull_back="center", optimizer__name=name))


def test_images_bring_no_optimizer_and_collected_networks_have_no_average():
    made = config.default()
    made.optimizer.name = "problem"
    with pytest.raises(UsageError, match="only a problem of your own brings an optimizer"):
        limits.validate(made)
    made = config.default()
    made.subspace.name, made.optimizer.schedule, made.optimizer.num_collected = "point", "snapshot", 2
    made.optimizer.ema_decay = 0.9
    with pytest.raises(UsageError, match=r"ema_decay is 0\.9\. It must be 0 with the schedule snapshot"):
        limits.validate(made)


def test_methods_are_called_by_their_optimizers():
    assert methods.name_of(settings_of(optimizer__name="adamw").to_dict()) == "line, AdamW"
    averaged = settings_of(optimizer__ema_decay=0.9, optimizer__clip_norm=1.0)
    assert methods.name_of(averaged.to_dict()) == "line, clipping 1, EMA 0.9"
