"""The table of settings and what is derived from it: checks, lists, config.json, the page of the documentation."""

import json
import math
import pathlib
import shutil

import ml_collections
import pytest
from places import REPOSITORY

from jsubspace.errors import UsageError
from jsubspace.runs import config, config_files, limits, settings, settings_table
from jsubspace.runs.allowed import Range

OLD_RUN = pathlib.Path(__file__).parent / "old_run"
"""The folder of a run: its config.json was written by commit e779459, from the recipe of digits with other values."""

NUMERIC = [setting for setting in settings.SETTINGS if isinstance(setting.allowed, Range)]


def beside(setting, bound, direction):
    """The next number of the setting's type: the next integer, or the next float."""
    return bound + direction if setting.type is int else math.nextafter(bound, direction * math.inf)


def changed(name, value):
    made = config.default()
    group, _, field = name.rpartition(".")
    with made.ignore_type():
        (config.value(made, group) if group else made)[field] = value
    return made


@pytest.mark.parametrize("setting", NUMERIC, ids=lambda setting: setting.name)
def test_bounds_are_accepted_and_what_lies_outside_is_refused(setting):
    allowed, name = setting.allowed, setting.name
    least, most = setting.type(allowed.least), setting.type(allowed.most)
    smallest = beside(setting, least, 1) if allowed.above else least
    largest = beside(setting, most, -1) if allowed.below else most
    for value in (smallest, largest, setting.default):
        assert settings.refusal(name, value) is None
    outside = [beside(setting, smallest, -1), beside(setting, largest, 1)]
    outside = [value for value in outside if value != allowed.also]
    assert outside
    for value in (*outside, setting.type(-(10**12)), setting.type(1e300)):
        with pytest.raises(UsageError) as error:
            limits.validate(changed(name, value))
        for part in (name, repr(value), f"{least:g}" if setting.type is float else str(least)):
            assert part in str(error.value)
        assert allowed.words() in str(error.value)


@pytest.mark.parametrize("setting", settings.SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_documented_and_typed(setting):
    assert setting.meaning.endswith(".")
    assert setting.meaning[0].isupper()
    assert ". " not in setting.meaning.replace("etc. ", "")
    assert setting.type in (int, float, bool, str, tuple)
    assert setting.type not in (int, float) or isinstance(setting.allowed, Range)
    assert setting.name.rpartition(".")[0] in settings.GROUPS
    assert settings.refusal(setting.name, setting.default) is None
    for other in (None, "text", 1, 1.5, True, (1,), math.nan):
        if type(other) is not setting.type:
            assert "must be of type" in settings.refusal(setting.name, other)
    if setting.type is float:
        for value in (math.nan, math.inf, -math.inf):
            assert "finite" in settings.refusal(setting.name, value)
    if setting.type is int and setting.name != "seed":
        assert setting.allowed.most < 2**31


def test_the_table_has_each_group_in_one_piece():
    groups = [name.rpartition(".")[0] for name in settings.NAMED]
    inner = [group for i, group in enumerate(groups) if group and group != groups[i - 1]]
    assert inner == [group for group in settings.GROUPS if group]
    assert len(settings.NAMED) == len(settings.SETTINGS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep_epochs", (0,)),
        ("keep_epochs", (1.5,)),
        ("keep_epochs", (True,)),
        ("evaluation.ensemble", (math.nan,)),
        ("evaluation.ensemble", ("0.5",)),
        ("evaluation.ensemble", ((0.5, math.inf),)),
        ("evaluation.ensemble", (math.inf,)),
        ("evaluation.ensemble", (True,)),
        ("evaluation.ensemble", ((True, False),)),
        ("evaluation.ensemble", (10**400,)),
        ("evaluation.ensemble", ((10**400, 0.5),)),
        ("evaluation.ensemble", (((0.5,),),)),
        ("keep_epochs", (10**400,)),
        ("keep_epochs", (math.nan,)),
        ("evaluation.random_points", "random,global"),
        ("evaluation.random_points", "random,,layerwise"),
        ("evaluation.random_points", ","),
        ("evaluation.corruptions", " , "),
        ("start.runs", ","),
        ("start.runs", "runs/a,,runs/b"),
        ("evaluation.plane_points", 1),
        ("evaluation.num_points", 4),
    ],
)
def test_values_that_are_no_numbers_of_a_range(name, value):
    with pytest.raises(UsageError, match=rf"config\.{name} is .*. It must be "):
        limits.validate(changed(name, value))


def test_the_lists():
    evaluation = {name for name in settings.NAMED if name.startswith("evaluation.")}
    assert set(settings.NAMED) - set(settings.identifying()) == {
        *("data.dir", "data.num_workers", "num_devices", "shard_endpoints", "start.network"),
        *("model.remat", "parallel", "profile_steps", "steps_per_dispatch"),
    }
    assert set(settings.may_differ_between_hosts()) == {"data.dir", "data.num_workers", "start.network"}
    assert set(settings.may_differ_between_compared_runs()) - evaluation == {
        *("seed", "start.runs", "num_devices", "shard_endpoints", "data.dir", "data.num_workers", "start.network"),
        *("model.remat", "parallel", "profile_steps", "steps_per_dispatch"),
        *("log_every_steps", "checkpoint_every_epochs", "keep_checkpoints", "keep_epochs"),
    }
    # Runs that were evaluated differently are never averaged. The size of a test batch changes no number.
    assert evaluation & set(settings.may_differ_between_compared_runs()) == {"evaluation.batch_size"}


def test_the_page_is_the_table():
    written = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == settings.page(), "write it again: python -m jsubspace.runs.settings > docs/settings.md"
    assert all(f"`{name}`" in written for name in settings.NAMED)


def test_a_run_that_the_first_version_wrote_loads(tmp_path):
    shutil.copy(OLD_RUN / "config.json", tmp_path)
    found = config_files.load(tmp_path)
    assert (found.seed, found.data.name, found.optimizer.num_epochs) == (3, "digits", 60)
    assert (found.keep_epochs, found.evaluation.ensemble) == ((10, 20), (-0.05, 1.05))
    config_files.check_same_run(tmp_path, found)
    found.data.dir, found.num_devices = "elsewhere", 1
    config_files.check_same_run(tmp_path, found)
    found.penalty.beta = 2.0
    with pytest.raises(UsageError, match=r"config.penalty.beta: 1.0 there, 2.0 here"):
        config_files.check_same_run(tmp_path, found)


def test_text_that_no_file_can_hold_is_refused_at_once():
    assert settings.refusal("start.runs", "runs/\udcff") == (
        "config.start.runs is 'runs/\\udcff'. It must be text that UTF-8 can hold."
    )
    assert settings.refusal("start.runs", "runs/ü\n☃") is None


def test_config_json_is_read_as_it_was_written(tmp_path):
    made = changed("evaluation.ensemble", (0.25, 1.0))
    config_files.save(tmp_path, made)
    assert config_files.load(tmp_path) == made


def test_a_config_json_that_lacks_settings_is_refused(tmp_path):
    content = config.default().to_dict()
    del content["seed"], content["optimizer"]["momentum"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(
        UsageError, match=r"not the config of a run of this version: it lacks seed, optimizer.momentum\."
    ):
        config_files.load(tmp_path)


@pytest.mark.parametrize("value", ["true", "1" + "0" * 400, "1e400", "-Infinity", "NaN", '"0.1"', "[0.1]", "null"])
def test_a_config_json_with_a_number_that_is_none_is_refused(value, tmp_path):
    text = json.dumps(config.default().to_dict()).replace('"beta": 1.0', f'"beta": {value}')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"beta|the config of a run|config.json is damaged \(it holds "):
        config_files.load(tmp_path)


def test_a_setting_that_was_added_later_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "added_later", lambda: ("optimizer.momentum",))
    content = config.default().to_dict()
    del content["optimizer"]["momentum"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert config_files.load(tmp_path) == config.default()


def test_what_was_added_later_changes_no_older_run():
    """Such a setting has a default that does what the first version did."""
    assert {name: settings.NAMED[name].default for name in settings.added_later()} == {
        "data.num_validation": 0,
        "evaluation.early_stopping": "auto",
        "subspace.pull_back": "plain",
        "subspace.spread_growth": 0.0,
        "subspace.center_scale": "endpoint",
        "start.network": "",
        "start.role": "start",
        "start.digest": "",
        "optimizer.name": "sgd",
        "optimizer.clip_norm": 0.0,
        "optimizer.accumulate_steps": 1,
        "optimizer.ema_decay": 0.0,
        "model.remat": False,
        "evaluation.patience": 0,
        "profile_steps": (),
        "steps_per_dispatch": 0,
        "parallel": "pmap",
    }
    assert {setting.since for setting in settings_table.SETTINGS} == {"", "0.1.0"}


def test_the_default_is_typed_and_locked():
    made = config.default()
    assert made.is_locked
    assert config.fields(made) == {setting.name: setting.default for setting in settings.SETTINGS}
    assert isinstance(made.optimizer, ml_collections.ConfigDict)
