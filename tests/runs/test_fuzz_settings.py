"""Random settings, from the table of settings: a run starts, or it is refused with one message before anything is written."""

import collections
import contextlib

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from fuzz import CASES, HUGE, NUMBERS, ODD_TEXTS, QUICK, SLOW, ended, returned, texts
from hypothesis import given
from hypothesis import settings as settings_of_cases
from hypothesis import strategies as st

from jsubspace import runs
from jsubspace.data import corruptions, prepare
from jsubspace.errors import TrainingDiverged, UsageError
from jsubspace.runs import command_line, config, limits, settings
from jsubspace.runs.allowed import Choice, Range, Words
from jsubspace.storage import folders

# ml_collections loads a config file as Python 3.12 would not have it.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

TINY = {
    "model.name": "mlp", "model.depth": 1, "model.width": 4, "optimizer.num_epochs": 2, "optimizer.warmup_epochs": 1,
    "evaluation.num_points": 3, "evaluation.num_resamples": 20, "evaluation.batch_size": 128, "num_devices": 1,
}  # fmt: skip
"""A run of digits that starts at once."""

ODD_VALUES = (None, True, np.True_, np.int64(1), np.float64(0.5), np.float32(0.5), np.str_("line"), b"x", [1], {}, {"a": 1},
              (True,), (np.int64(1),), (0.5,), ((0.5, 0.5),), ((),), ("0.5",), 1j, object(), len)  # fmt: skip


DEEP = {str(kind(depth)) for depth in range(101, 1203) for kind in (int, float)}
"""Allowed depths of networks that jax traces for up to a minute. No random test needs them."""


def valid(setting):
    """Values that the setting may have by itself, its bounds more often than others."""
    match setting.allowed:
        case Choice(names):
            return st.sampled_from(names)
        case Range(least, most):
            edges = [least, most, setting.default] + ([] if setting.allowed.also is None else [setting.allowed.also])
            numbers = (
                st.integers(int(least), int(most)) if setting.type is int else st.floats(float(least), float(most))
            )
            small = st.integers(int(least), int(min(most, least + 20))) if setting.type is int else numbers
            return st.one_of(st.sampled_from(edges), small, numbers).map(setting.type)
        case Words(_, names):
            known = names or (*corruptions.MAIN, "all", "fog_3")
            return st.lists(st.sampled_from(known), max_size=3).map(", ".join)
    if setting.type is bool:
        return st.booleans()
    if setting.type is tuple:
        return st.lists(st.one_of(st.integers(1, 3), st.floats(-1, 2)), max_size=3).map(tuple)
    return st.just(setting.default)


def near(setting):
    """Numbers beside the bounds of a setting."""
    if not isinstance(setting.allowed, Range):
        return st.sampled_from(NUMBERS)
    bounds = (setting.allowed.least, setting.allowed.most)
    return st.sampled_from([kind(bound + step) for bound in bounds for step in (-1, 1) for kind in (int, float)])


def on_a_command_line(setting):
    """A value as text. Half of the values are valid by themselves."""
    others = st.one_of(near(setting).map(repr), st.sampled_from(NUMBERS).map(written), texts())
    return st.one_of(valid(setting).map(str), valid(setting).map(str), others)


def in_python(setting):
    """A value of any type. Half of the values are valid by themselves."""
    others = st.one_of(near(setting), st.sampled_from(NUMBERS), st.sampled_from(ODD_VALUES), texts())
    return st.one_of(valid(setting), valid(setting), others)


def written(number):
    """A number as text. Python refuses to write 10^400 by itself in some versions."""
    return f"{'-' * (number < 0)}{'9' * 400}" if abs(number) == HUGE[-1] else repr(number)


def several(values_of):
    """One to four settings with values."""
    rows = st.lists(st.sampled_from(settings.SETTINGS), min_size=1, max_size=4, unique_by=lambda setting: setting.name)
    drawn = rows.flatmap(lambda chosen: st.fixed_dictionaries({setting.name: values_of(setting) for setting in chosen}))
    return drawn.filter(lambda given: str(given.get("model.depth")) not in DEEP)


@pytest.mark.parametrize("setting", settings.SETTINGS, ids=lambda setting: setting.name)
def test_every_odd_value_by_itself(setting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bounds = (setting.allowed.least, setting.allowed.most) if isinstance(setting.allowed, Range) else ()
    beside = [kind(bound + step) for bound in bounds for step in (-1, 0, 1) for kind in (int, float)]
    for value in (*ODD_TEXTS, *NUMBERS, *ODD_VALUES, *beside):
        returned(lambda value=value: limits.validate(made_of({setting.name: value})), tmp_path)
    for text in (*ODD_TEXTS, *map(written, NUMBERS), *map(repr, beside)):
        returned(lambda text=text: config.change(config.default(), setting.name, text), tmp_path)


def small(setting):
    """Valid values with which a whole run ends in seconds."""
    if isinstance(setting.allowed, Range) and setting.type is int:
        return st.integers(int(setting.allowed.least), int(min(setting.allowed.most, setting.allowed.least + 3)))
    return valid(setting)


class Began(Exception):
    """The run was about to make its folder."""


@pytest.fixture
def place(data_dir, tmp_path, monkeypatch):
    """An empty current folder. A run that would make its folder raises `Began`, and no data is prepared."""

    def begins(folder):
        raise Began

    def not_prepared(*args):
        raise UsageError("not prepared")  # It would take seconds, and has tests of its own.

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(prepare.VARIABLE, data_dir)
    monkeypatch.setattr(folders, "make_folder", begins)
    monkeypatch.setattr(prepare, "_prepare_one", not_prepared)
    return tmp_path


def start(settings_of_run):
    """The run up to the moment before its folder is made."""
    with pytest.raises(Began):
        runs.train(settings_of_run, "run")


def main(given):
    """The program that trains, from its command line on."""
    with flagsaver.flagsaver():
        flags.FLAGS["config"].present = 0
        shown = {name: str(value) for name, value in TINY.items()} | given
        arguments = [f"--config.{name}={value}" for name, value in shown.items()]
        command_line.parse(["main", "--config=digits_cresnet8_line", *arguments])
        start(command_line.read_config()[0])


def train(given):
    """A config that was made in Python."""
    start(made_of(given))


def made_of(given):
    """The config of the tiny run with other values of any type."""
    made = config.default()
    with made.unlocked(), made.ignore_type():
        for name, value in ({"data.name": "digits"} | TINY | given).items():
            group, _, field = name.rpartition(".")
            with contextlib.suppress(OverflowError):  # ml_collections refuses 10^400 for a float by itself.
                (made[group] if group else made)[field] = value
    return made


PATHS = {"commands": (main, ended, on_a_command_line), "python": (train, returned, in_python)}


def walk(path, cases, place):
    """Draws settings, and looks at how each run starts."""
    call, outcome, values_of = PATHS[path]
    seen = collections.Counter()

    @cases
    @given(several(values_of))
    def of(given):
        seen["works" if outcome(lambda: call(given), place) == "works" else "refused"] += 1

    of()
    return seen


@pytest.mark.parametrize("path", PATHS)
def test_some_settings(path, place):
    seen = walk(path, QUICK, place)
    assert min(seen["works"], seen["refused"]) > 20, seen


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_many_settings(path, place):
    seen = walk(path, SLOW, place)
    print(seen)
    assert min(seen["works"], seen["refused"]) > 20, seen


@pytest.mark.slow
def test_some_whole_runs(data_dir, tmp_path, monkeypatch):
    """A run that starts also ends: with results, or because its loss is not finite."""
    monkeypatch.setenv(prepare.VARIABLE, data_dir)
    monkeypatch.chdir(tmp_path)
    seen = collections.Counter()

    @settings_of_cases(SLOW, max_examples=max(CASES // 100, 1))
    @given(several(small))
    def of(given):
        workdir = tmp_path / str(sum(seen.values()))
        made = made_of({"data.num_train": 48, "data.batch_size": 16} | given)
        try:
            found = runs.train(made, workdir)
        except (UsageError, TrainingDiverged) as error:
            found, outcome = None, type(error).__name__
        else:
            outcome = "works"
        seen[outcome] += 1
        assert workdir.exists() == (outcome != "UsageError")
        if outcome == "works":
            assert found["finished"]
            assert runs.train(made, workdir) == found

    of()
    print(seen)
    assert seen["works"] > seen["UsageError"] // 10
