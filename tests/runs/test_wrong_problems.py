"""A problem whose parts are wrong or do not fit costs one message, before anything is written."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from own_problems import FILE, apply_dense, classes, classifier, dense, short_settings

import jsubspace
from jsubspace import training
from jsubspace.data.arrays import ArrayData
from jsubspace.data.shards import WHOLE_BATCH
from jsubspace.errors import TrainingDiverged, UsageError
from jsubspace.models import adapters
from jsubspace.runs import command_line, config, given_networks, problem_checks, recipes

X, Y = classes()


def network(apply=apply_dense, init=dense):
    return adapters.from_functions(init, apply)


def raises(point, x):
    raise RuntimeError("the user's own\nmistake")


class NoBatches(ArrayData):
    def test_batches(self, shard):
        return iter(())


class NoLoss(jsubspace.Task):
    higher_is_better = {"distance": False}  # noqa: RUF012

    def per_example(self, members, targets):
        return {"distance": jnp.abs(members.mean(0) - targets)}


class OneLoss(jsubspace.Classification):
    def losses(self, outputs, labels):
        return jnp.mean(super().losses(outputs, labels))


class Streamed(ArrayData):
    """Data whose batches are seen one after the other."""

    def train_batches(self, *args, **kwargs):
        return super().train_batches(*args, **kwargs)

    def test_batches(self, shard):
        return super().test_batches(shard)

    def validation_batches(self, shard):
        return super().validation_batches(shard)


class Padded(ArrayData):
    """Data whose padding has targets that are no classes."""

    def test_batches(self, shard):
        for (x, y), mask in super().test_batches(shard):
            yield (x, np.where(mask, y, -1)), mask


class WithShifted(training.Problem):
    def shifted(self):
        yield "fog_1", Streamed(train=(X, Y), test=(X, with_label(-1)), batch_size=20).test_batches(WHOLE_BATCH)


def with_label(label):
    """The labels, with a wrong one in the third batch."""
    return np.where(np.arange(60) == 45, label, Y)


def of_tokens(split, label, kind=ArrayData):
    """A bigram model of five tokens. A sequence of one split has only this label."""
    tokens = np.arange(60 * 4).reshape(60, 4) % 5
    splits = dict.fromkeys(("train", "test", "validation"), (tokens, tokens))
    wrong = np.where(np.arange(60)[:, None] == 45, label, tokens)
    data = kind(**(splits | {split: (tokens, wrong)}), batch_size=20)
    net = network(lambda point, x: point["table"][x], lambda key: {"table": jax.random.normal(key, (5, 5))})
    return training.Problem(net, jsubspace.Tokens(), data)


def in_parts(**parts):
    return lambda: dataclasses.replace(classifier(), **parts)


WRONG = {
    "no problem": (lambda: [X, Y], r"the problem is a list\. It must be a jsubspace.training.Problem"),
    "a function as network": (in_parts(network=apply_dense), r"network of the problem is a function\. .*adapters"),
    "a loader as data": (in_parts(data=[(X, Y)]), r"data of the problem is a list, which cannot resume at a step"),
    "a generator as data": (in_parts(data=iter([(X, Y)])), r"data of the problem is a list_iterator, which cannot resume"),
    "a class as task": (in_parts(task=jsubspace.Classification), r"task is the class Classification\. Pass an instance"),
    "float labels": (
        lambda: classifier(train=(X, Y.astype(np.float32)), test=(X, Y.astype(np.float32))),
        r"the training data of the problem: .* float32\[20\].*It must hold the labels, one integer per example",
    ),
    "negative labels": (lambda: classifier(train=(X, Y - 1)), r"a label of batch 0 is -1"),
    "a negative label in a later training batch": (
        lambda: classifier(train=(X, with_label(-1))),
        r"the training data of the problem: a label of batch 2 is -1\..* Batch 2 has the examples 40 to 59 of the arrays",
    ),
    "a negative label in a later test batch": (
        lambda: classifier(test=(X, with_label(-1)), eval_batch_size=7),
        r"the test data of the problem: a label of batch 6 is -1\..* Batch 6 has the examples 42 to 48 of the arrays",
    ),
    "a negative label in a later validation batch": (
        lambda: classifier(validation=(X, with_label(-1))), r"the validation data of the problem: a label of batch 2 is -1",
    ),
    "a training label that is no class": (
        lambda: classifier(train=(X, with_label(2))),
        r"the training data of the problem: a label of batch 2 is 2, but the logits are of 2 classes\. .*from 0 to 1\. Batch 2",
    ),
    "a test label that is no class": (
        lambda: classifier(test=(X, with_label(2))), r"the test data of the problem: a label of batch 2 is 2, but",
    ),
    "a label of the first batch that is no class": (
        lambda: dataclasses.replace(classifier(), data=Streamed(train=(X, Y + 1), test=(X, Y), batch_size=20)),
        r"the training data of the problem: a label of batch 0 is 2, but",
    ),
    "a number that is not finite": (
        lambda: classifier(
            network(lambda point, x: apply_dense(point, x)[:, 0]), jsubspace.Regression(scale=1.0), train=(X, Y / 2),
            test=(X, with_label(np.nan)),
        ),
        r"the test data of the problem: a target of batch 2 is not finite",
    ),
    "a test label that is no token": (
        lambda: of_tokens("test", 1000),
        r"the test data of the problem: a label of batch 2 is 1000, but the logits are of 5 tokens\. .*from 0 to 4",
    ),
    "a training label that is no token": (
        lambda: of_tokens("train", 5), r"the training data of the problem: a label of batch 2 is 5, but",
    ),
    "a sequence without a token": (
        lambda: of_tokens("train", -1), r"the training data of the problem: sequence 5 of batch 2 has no token that counts",
    ),
    "outputs of another task": (
        lambda: classifier(network(lambda point, x: apply_dense(point, x)[:, 0])),
        r"the loss in train mode failed: .*must return logits \[n, k\]",
    ),
    "a task of another kind of targets": (
        lambda: classifier(task=jsubspace.Tokens()),
        r"the training data of the problem: .*It must hold the labels \[n, T\]",
    ),
    "a task without a loss": (
        lambda: classifier(network(lambda point, x: apply_dense(point, x)[:, 0]), task=NoLoss()),
        r"NoLoss cannot train: it lacks losses",
    ),
    "a mean as losses": (
        lambda: classifier(task=OneLoss()),
        r"OneLoss.losses returned the shape \[\] for 20 examples\. It must return one number per example",
    ),
    "a network that fails": (lambda: classifier(network(raises)), r"failed: RuntimeError: the user's own$"),
    "other inputs": (lambda: classifier(train=(X[:, :3], Y), test=(X[:, :3], Y)), r"the loss in train mode failed: TypeError"),
    "integer parameters": (
        lambda: classifier(network(init=lambda key: {"w": jnp.arange(3)})),
        r"must return floating-point arrays alone, but the leaf \['w'\] is int32",
    ),
    "no parameters": (lambda: classifier(network(init=lambda key: {})), r"but it returns no array"),
    "inputs alone": (lambda: classifier(train=(X,), test=(X,)), r"is a tuple of 1 arrays.*last, the labels"),
    "an augmentation of another shape": (
        lambda: classifier(augment=lambda key, x, y: (x[:2], y)),
        r"data.augment of the problem returns arrays of the shapes \[20, 2\], \[20\], but evaluation gets \[20, 4\]",
    ),
    "an augmentation without labels": (lambda: classifier(augment=lambda key, x, y: x), r"must return the 2 arrays"),
    "no test batch": (
        in_parts(data=NoBatches(train=(X, Y), test=(X, Y), batch_size=20)), r"the data of the problem has no test batch",
    ),
    "statistics without the keyword": (
        lambda: adapters.from_functions(dense, apply_dense, lambda point, x: x.mean(0)),
        r"apply_dense does not take the keyword stats",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_problems(name, tmp_path):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=re.compile(message, re.MULTILINE)) as error:
        training.train(make(), short_settings(), tmp_path / "run")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


LATER = {
    "a negative test label": ({"test": (X, with_label(-1))}, r"the test data of the problem: a label of batch 2 is -1"),
    "a test label that is no class": ({"test": (X, with_label(2))}, r"the test data of the problem: a label is no class"),
    "a negative validation label": (
        {"validation": (X, with_label(-1))}, r"the validation data of the problem: a label of batch 2 is -1",
    ),
    "a validation label that is no class": (
        {"validation": (X, with_label(2))}, r"the validation data of the problem: a label is no class",
    ),
}  # fmt: skip


@pytest.mark.parametrize("every_epochs", [0, 1])
@pytest.mark.parametrize("name", LATER)
def test_targets_of_later_batches_are_refused_when_they_are_read(name, every_epochs, tmp_path):
    wrong, message = LATER[name]
    data = Streamed(**({"train": (X, Y), "test": (X, Y), "batch_size": 20} | wrong))
    settings = with_settings(evaluation__every_epochs=every_epochs)
    with pytest.raises(UsageError, match=message):
        training.train(dataclasses.replace(classifier(), data=data), settings, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


def test_targets_of_shifted_test_sets_are_refused(tmp_path):
    parts = classifier()
    problem = WithShifted(parts.network, parts.task, parts.data)
    with pytest.raises(UsageError, match="the fog_1 test data of the problem: a label of batch 2 is -1"):
        training.train(problem, short_settings(), tmp_path / "run")


def test_padding_may_have_any_targets(tmp_path):
    data = Padded(train=(X, Y), test=(X[:13], Y[:13]), batch_size=20, eval_batch_size=8)
    found = training.train(dataclasses.replace(classifier(), data=data), short_settings(), tmp_path / "run")
    assert found["points"][0]["nll"] is not None


def test_a_sequence_without_a_token_trains_in_data_that_is_not_in_memory(tmp_path):
    found = training.train(of_tokens("train", -1, Streamed), short_settings(), tmp_path / "run")
    assert found["finished"]
    assert found["points"][0]["nll"] < 5


def test_a_subclass_may_take_other_outputs_for_its_labels():
    @dataclasses.dataclass
    class Logit:  # It is no tree, so no compiled function may return it.
        values: jax.Array

        def pair(self):
            return jnp.stack([jnp.zeros_like(self.values), self.values], axis=-1)

    class Binary(jsubspace.Classification):
        def at_point(self, outputs, targets, combined):
            return super().at_point(outputs.pair(), targets, combined)

        def losses(self, outputs, *targets):
            return super().losses(outputs.pair(), *targets)

        def training_scores(self, outputs, *targets):
            return {}

    one_logit = network(lambda point, x: Logit(apply_dense(point, x)[:, 0]))
    problem_checks.check(classifier(one_logit, Binary()))
    with pytest.raises(UsageError, match="a label of batch 2 is -1"):
        problem_checks.check(classifier(one_logit, Binary(), test=(X, with_label(-1))))


def test_validation_targets_of_merged_networks_are_checked():
    with pytest.raises(UsageError, match="the validation data of the problem: a label of batch 2 is -1"):
        given_networks.validation_batches(classifier(validation=(X, with_label(-1))))


def test_a_wrong_target_is_named_as_a_cause_of_a_loss_that_is_not_finite(tmp_path):
    data = Streamed(train=(X, with_label(2)), test=(X, Y), batch_size=20)
    first = np.concatenate([y for _, y in itertools.islice(data.train_batches(0, WHOLE_BATCH), 1)])
    assert first.max() == 1  # The wrong label is in a later batch.
    with pytest.raises(
        TrainingDiverged, match="look at the data: a label that is no class or no token makes the loss NaN"
    ):
        training.train(dataclasses.replace(classifier(), data=data), short_settings(), tmp_path / "run")


def test_statistics_without_training_batches(tmp_path):
    data = ArrayData(train=(X, Y), test=(X, Y), batch_size=20)
    data.steps_per_epoch = 0
    with pytest.raises(
        UsageError, match=r"has no training batch. Training needs batches, and so do statistics of BatchNorm"
    ):
        training.train(dataclasses.replace(classifier(), data=data), short_settings(), tmp_path / "run")


WRONG_ARRAYS = {
    "an empty validation set": ({"validation": (X[:0], Y[:0])}, r"validation has no example\. Leave validation out"),
    "an empty training set": ({"train": (X[:0], Y[:0])}, r"train has no example"),
    "an array": ({"train": X}, r"train is a ndarray\. It must be a tuple of arrays"),
    "other lengths": ({"train": (X, Y[:-1])}, r"with 60, 59 rows"),
    "a scalar": ({"train": (X, 1)}, r"with 60, no rows"),
    "text": ({"test": (X, np.array(["a"] * 60))}, r"test holds an array of the type <U1\. Arrays hold numbers"),
    "other shapes": (
        {"test": (X[:, :3], Y)},
        r"test holds float32\[3\], int32\[\], but train holds float32\[4\], int32\[\]",
    ),
    "too large a batch": ({"batch_size": 61}, r"batch_size is 61, but there are 60 training examples"),
    "no batch": ({"batch_size": 0}, r"batch_size is 0\. It must be at least 1"),
    "half a batch": ({"batch_size": 1.5}, r"batch_size is 1.5, but it must be an integer"),
}


@pytest.mark.parametrize("name", WRONG_ARRAYS)
def test_wrong_arrays(name):
    wrong, message = WRONG_ARRAYS[name]
    with pytest.raises(ValueError, match=message):
        ArrayData(**({"train": (X, Y), "test": (X, Y), "batch_size": 20} | wrong))


def with_settings(**changes):
    settings = short_settings()
    for field, given in changes.items():
        group, _, name = field.rpartition("__")
        (settings[group] if group else settings)[name] = given
    return settings


WRONG_SETTINGS = {
    "the settings of images": (recipes.digits_cresnet8("line"), r"lack the group problem\..*default_settings"),
    "validation without data": (
        with_settings(evaluation__early_stopping="validation"), r"early_stopping is 'validation', but the data .* has no valid",
    ),
    "samples": (with_settings(subspace__num_samples=3), r"num_samples is 3\. It must be a divisor of the batch size .*20"),
    "a schedule": (with_settings(optimizer__warmup_epochs=1), r"config.optimizer.warmup_epochs is 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_wrong_settings(name, tmp_path):
    settings, message = WRONG_SETTINGS[name]
    with pytest.raises(UsageError, match=message):
        training.train(classifier(), settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"loss": jnp.mean}, r"config.problem.loss is .* A setting of a problem is a finite number"),
        ({"rate": float("nan")}, r"config.problem.rate is nan"),
        ({"sizes": (1, None)}, r"config.problem.sizes\[1\] is None"),
        ({"group": {"a b": 1}}, r"config.problem.group has a field 'a b'"),
    ],
)
def test_settings_of_a_problem_that_no_file_holds(field, message):
    with pytest.raises(UsageError, match=message):
        training.default_settings(**field)


def test_a_setting_of_images_is_no_setting_of_a_problem():
    settings = short_settings().unlock()
    settings.optimizer.label_smoothing = 0.1
    with pytest.raises(UsageError, match=r"config.optimizer.label_smoothing is a setting of the programs' images"):
        config.check_fields(settings)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (FILE.replace("def get_problem", "def other"), (), r"settings of a problem of its own, but no get_problem\(config\)"),
        (
            FILE.replace("training.default_settings(width=6, noise=0.1)", "jsubspace.runs.config.default()"),
            (),
            r"defines get_problem, so its get_config\(\) must start from jsubspace.training.default_settings\(\)",
        ),
        (
            FILE.replace("width = config.problem.width", "width = config.problem.widht"), (),
            r"mine.py, line \d+, width = config.problem.widht: .*widht",
        ),
        (FILE, ("--config.problem.widht=3",), r"widht"),
        (FILE, ("--config.problem.width=wide",), r"width"),
        (FILE, ("--config.data.batch_size=3",), r"data"),
    ],
)  # fmt: skip
def test_wrong_files(text, arguments, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)

    def start():
        command_line.parse(["main", f"--config={path}", *arguments])
        given, _ = command_line.read_config()
        command_line.problem_of_config(given)(given)

    with pytest.raises(UsageError, match=message) as error, flags_as_they_were():
        start()
    assert len(str(error.value).splitlines()) == 1


def test_a_file_without_a_problem_is_no_help_to_other_programs(tmp_path):
    with pytest.raises(UsageError, match=r"defines no get_problem\(config\)"):
        command_line.problem_of("digits_cresnet8_line")
    with pytest.raises(UsageError, match=r"there is no config file"):
        command_line.problem_of(str(tmp_path / "mine.py"))


class flags_as_they_were:
    """The values of flags before a test."""

    def __enter__(self):
        self._before = flags.FLAGS["config"].value, flags.FLAGS["config"].present

    def __exit__(self, *_):
        flags.FLAGS["config"]._value, flags.FLAGS["config"].present = self._before
