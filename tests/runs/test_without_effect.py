"""A setting that would change nothing is refused, and no config and no recorded run has such a setting."""

import json
import runpy

import pytest
from places import CONFIGS, REPOSITORY

import jsubspace
from jsubspace import runs
from jsubspace.errors import UsageError
from jsubspace.runs import config, limits, without_effect

POINT, NETWORK = {"subspace.name": "point"}, {"start.network": "base.safetensors"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.inner_width": 2}, "inner_width is 2. It must be 1 unless config.model.name is resnet"),
        ({"model.stem": "imagenet"}, "stem is 'imagenet'. It must be tiny unless config.model.name is resnet"),
        ({"model.name": "mlp", "model.inner_width": 2}, "inner_width is 2. It must be 1 unless"),
        ({"model.name": "mlp", "model.stem": "imagenet"}, "stem is 'imagenet'. It must be tiny"),
        ({"model.name": "mlp", "model.unbiased_batch_stats": True}, "False for an mlp, which has no BatchNorm"),
        (POINT | {"subspace.layerwise": True}, "layerwise is True. It must be False for a point, which has no alpha"),
        (NETWORK | {"subspace.shared_init": True}, "shared_init is True. It must be False with config.start.network"),
        (POINT | NETWORK | {"start.role": "origin"}, "role is 'origin'. It must be start for a point"),
        ({"evaluation.early_stopping": "test"}, "must be auto unless config.evaluation.every_epochs asks for tests"),
    ],
)
def test_what_changes_nothing_is_refused(fields, message):
    settings = config.default()
    limits.validate(settings)
    settings.update_from_flattened_dict(fields)
    limits.validate(settings)  # A run of an older version may have the setting. It resumes and is evaluated again.
    with pytest.raises(UsageError) as refused:
        without_effect.check(settings)
    assert message in str(refused.value)


def test_layerwise_points_of_collected_networks_are_measured():
    settings = config.default()
    fields = {"subspace.layerwise": True, "optimizer.schedule": "swa_cyclic", "optimizer.num_collected": 3}
    settings.update_from_flattened_dict(POINT | fields)
    without_effect.check(settings)


def test_configs_of_the_library_pass():
    for path in CONFIGS.glob("*.py"):
        without_effect.check(runpy.run_path(str(path))["get_config"]())


def test_recorded_runs_pass():
    found = [path for path in REPOSITORY.glob("experiments/results/**/*.json") if path.name == "results.json"]
    assert found
    for path in found:
        settings = config.default()
        recorded = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in config.settings.flat(json.loads(path.read_text())["config"]).items()
        }
        settings.update_from_flattened_dict(recorded)
        limits.validate(settings)
        without_effect.check(settings)


def test_settings_of_a_problem_pass_and_have_rules_too():
    """They have no group ``model``."""
    settings = jsubspace.training.default_settings()
    without_effect.check(settings)
    settings.subspace.name, settings.subspace.layerwise = "point", True
    with pytest.raises(UsageError, match="layerwise is True"):
        without_effect.check(settings)


def test_only_a_run_that_begins_is_told(tmp_path):
    settings = config.default()
    settings.update_from_flattened_dict(POINT | {"subspace.layerwise": True})
    with pytest.raises(UsageError, match=r"layerwise is True. It must be False"):
        runs.train(settings, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")  # It is refused for another reason.
    with pytest.raises(UsageError) as refused:
        runs.train(settings, tmp_path / "old")
    assert "It must be False" not in str(refused.value)
