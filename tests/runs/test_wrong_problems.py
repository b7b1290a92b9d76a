"""A problem whose parts are wrong or do not fit costs one message, before anything is written."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from own_problems import FILE, apply_dense, classes, classifier, dense, short_settings

import jsubspace
from jsubspace import training
from jsubspace.data.arrays import ArrayData
from jsubspace.errors import UsageError
from jsubspace.models import adapters
from jsubspace.runs import command_line, config, recipes

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
