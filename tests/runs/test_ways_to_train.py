"""How a run learns and when it ends, by settings and from a problem: what is logged, named, evaluated and refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from own_problems import classes, classifier, short_settings
from whole_runs import StopAt, without_speed

from jsubspace import evaluate, training
from jsubspace.errors import Preempted, UsageError
from jsubspace.models.cresnet import CResNet
from jsubspace.runs import build, config, limits, methods
from jsubspace.runs.run import checked_problem, train_endpoints
from jsubspace.storage import steps
from jsubspace.storage.writer import read_rows
from jsubspace.training.profiles import Profile

pytestmark = pytest.mark.usefixtures("no_figures")


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
    (tmp_path / "fixed").mkdir()
    run = build.build(other, problem_with(optax.adafactor(0.1)))
    train_endpoints(run, tmp_path / "fixed", StopAt(0))
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
        (
            lambda schedule: optax.MultiSteps(optax.sgd(schedule), 2),
            {"optimizer__name": "problem", "optimizer__ema_decay": 0.9},
            "has an optax.MultiSteps in it. Its schedule would count updates and not steps, and would end too early. Give the "
            "optimizer inside of it to training.Problem(..., optimizer=), and set optimizer.accumulate_steps=k",
        ),
        (
            optax.chain(optax.clip(1.0), optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()),
            {"optimizer__name": "problem"},
            "has an optax.MultiSteps in it",
        ),
        (None, {"optimizer__accumulate_steps": 4}, "accumulate_steps is 4, but the run has only 3 steps"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(optimizer, fields, message, tmp_path):
    with pytest.raises(UsageError) as refused:
        training.train(problem_with(optimizer), settings_of(**fields), tmp_path / "run")
    assert message in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_noise_needs_a_key_that_a_checkpoint_holds(tmp_path):
    settings = settings_of(optimizer__name="problem")
    with pytest.raises(UsageError, match=r"typed key of jax\.random in its state, which no checkpoint holds"):
        checked_problem(settings, problem_with(optax.noisy_sgd(0.1, key=jax.random.key(0))))

    def noise(updates, state, params=None):
        key, now = jax.random.split(jax.random.wrap_key_data(state))
        return jax.tree.map(lambda leaf: 1e-3 * jax.random.normal(now, leaf.shape), updates), jax.random.key_data(key)

    raw = optax.GradientTransformation(lambda params: jax.random.key_data(jax.random.key(2**31)), noise)
    problem = problem_with(raw)
    with pytest.raises(Preempted):
        training.train(problem, settings, tmp_path / "run", StopAt(2))
    assert training.train(problem, settings, tmp_path / "run", StopAt(0))["finished"]


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


def test_a_run_that_starts_from_collected_networks_has_their_mean(tmp_path):
    """As export has it, and not the last iterate."""
    fields = {"subspace__name": "point", "optimizer__num_epochs": 6, "optimizer__schedule": "swa_cyclic"}
    settings = settings_of(**fields, optimizer__num_collected=2, optimizer__learning_rate=3.0)
    collected = training.train(classifier(), settings, tmp_path / "swa", StopAt(0))
    starts = settings_of(subspace__name="point", optimizer__num_epochs=0, start__runs=tmp_path / "swa")
    started = training.train(classifier(), starts, tmp_path / "point", StopAt(0))
    scores = {row["name"]: row["nll"] for row in collected["points"]}
    assert started["points"][0]["nll"] == pytest.approx(scores["center"], rel=1e-6)
    assert abs(scores["center"] - scores["corner 2"]) > 1e-3


def test_methods_are_called_by_their_optimizers():
    assert methods.name_of(settings_of(optimizer__name="adamw").to_dict()) == "line, AdamW"
    averaged = settings_of(optimizer__ema_decay=0.9, optimizer__clip_norm=1.0)
    assert methods.name_of(averaged.to_dict()) == "line, clipping 1, EMA 0.9"


def patient(tmp_path, name, stop_at=0):
    """Three epochs at most, tested once an epoch. A network that does not move does not improve."""
    x, y = classes()
    settings = settings_of(optimizer__num_epochs=5, evaluation__every_epochs=1, evaluation__patience=2)
    settings.optimizer.learning_rate, settings.checkpoint_every_epochs, settings.log_every_steps = 1e-30, 5, 4
    return training.train(classifier(validation=(x, y)), settings, tmp_path / name, StopAt(stop_at))


def test_patience_ends_a_run_at_the_same_step_wherever_it_was_interrupted(tmp_path):
    """After the best test, of epoch 1, two are not better. The second interruption comes when the run is over."""
    whole = patient(tmp_path, "whole")
    assert whole["finished"]
    assert whole["early_stopping"]["step"] == 3
    for stop_at in (7, 2):  # The 7th step, and then the 9th.
        with pytest.raises(Preempted):
            patient(tmp_path, "run", stop_at)
    evaluated = evaluate.evaluate(tmp_path / "run", problem=classifier(validation=classes()))
    assert evaluated["finished"]
    found = patient(tmp_path, "run")
    assert found["points"] == whole["points"]
    rows, rows_of_whole = (without_speed(read_rows(tmp_path / name)) for name in ("run", "whole"))
    assert rows == rows_of_whole
    for name in ("whole", "run"):
        assert [row["step"] for row in read_rows(tmp_path / name, "validation")] == [3, 6, 9]
        assert [row["step"] for row in read_rows(tmp_path / name, "train")] == [4, 8, 9]  # The last window is shorter.
        assert steps.steps_in(tmp_path / name / "checkpoints")[-1] == 9


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"evaluation__patience": 2}, "every_epochs is 0. It must be at least 1 with config.evaluation.patience"),
        (
            {"evaluation__patience": 2, "evaluation__every_epochs": 1, "evaluation__early_stopping": "test"},
            "the test set must not end a run",
        ),
        ({"profile_steps": (3, 2)}, "profile_steps is (3, 2). It must be empty, or two steps"),
    ],
)
def test_what_ends_or_traces_a_run_is_checked(fields, message):
    with pytest.raises(UsageError) as refused:
        limits.validate(settings_of(**fields))
    assert message in str(refused.value)


def test_patience_needs_validation_data():
    settings = settings_of(evaluation__patience=2, evaluation__every_epochs=1)
    with pytest.raises(UsageError, match="patience is 2, but the data of the problem has no validation examples"):
        checked_problem(settings, classifier())
    images = config.default()
    images.evaluation.patience = images.evaluation.every_epochs = 1
    with pytest.raises(UsageError, match=r"evaluation\.patience is 1\. It must be 0 unless config\.data\.num_val"):
        limits.validate(images)


def test_a_trace_is_written_and_a_trace_that_fails_ends_no_run(tmp_path, caplog):
    with Profile((2, 2), tmp_path, 3) as profile:
        for step in (1, 2, 3):
            profile.before(step)
            profile.after(step, jnp.ones(3) * step)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "profile").write_text("not a folder")
    with caplog.at_level("WARNING"), Profile((1, 5), tmp_path / "run", 5) as profile:
        profile.before(1)
    assert "no trace of the steps was written" in caplog.text


@pytest.mark.parametrize(
    ("steps", "said"), [((2, 3), None), ((3, 4), "later steps are missing"), ((4, 5), "No step is")]
)
def test_a_trace_beyond_the_last_step_is_said(steps, said, tmp_path, caplog):
    Profile(steps, tmp_path, 3)
    Profile((), tmp_path, 3)
    assert [said in record.getMessage() for record in caplog.records] == [True] * (said is not None)


def test_blocks_that_are_computed_twice_have_the_same_parameters_and_gradients():
    images, key = np.random.default_rng(1).normal(size=(16, 8, 8, 3)).astype(np.float32), jax.random.key(0)
    found = []
    for model in (CResNet(3, 8, 4), CResNet(3, 8, 4, remat=True)):
        variables = jax.jit(lambda key, model=model: model.init(key, images, train=True))(key)

        def loss(params, model=model):
            outputs, _ = model.apply({"params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.mean(outputs.logits[:, 0] ** 2)

        lowered = jax.jit(jax.grad(loss)).lower(variables["params"])
        convolutions = lowered.as_text().count("stablehlo.convolution")
        found.append((variables["params"], lowered.compile()(variables["params"]), convolutions))
    jax.tree.map(np.testing.assert_array_equal, found[0][0], found[1][0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), found[0][1], found[1][1])
    assert found[1][2] == found[0][2] + 2 * 3 + 2  # Two of each block, and two shortcuts. The stem is kept.
    made = config.default()
    made.model.name, made.model.remat = "mlp", True
    with pytest.raises(UsageError, match=r"model\.remat is True\. It must be False for an mlp"):
        limits.validate(made)
