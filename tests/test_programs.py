"""What a user mistypes: one clear message, exit code 2, and nothing written."""

import os
import re
import subprocess
import sys

import jax
import pytest
from places import REPOSITORY

from jsubspace import errors, program
from jsubspace.errors import Preempted, TrainingDiverged, UsageError
from jsubspace.runs import config, config_files, limits, recipes

LINE = REPOSITORY / "configs" / "digits_cresnet8_line.py"


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("jsubspace.main", [f"--config={LINE}", "--config.data.name=digit"], "config.data.name is 'digit'.*'digits'"),
        ("jsubspace.evaluate", ["--workdir=nothing"], "holds no run"),
    ],
)
def test_a_refusal_as_its_user_sees_it(module, arguments, message, tmp_path):
    """One message, exit code 2, nothing written; `test_refusals` has the others, inside of one process."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert result.returncode == errors.USAGE
    assert re.fullmatch(f"error: .*{message}.*\n", result.stderr)
    assert not list(tmp_path.iterdir())


def test_exit_codes_and_messages(capsys):
    cases = (
        (UsageError("a mistake"), errors.USAGE, "error: a mistake\n"),
        (TrainingDiverged("nan"), errors.DIVERGED, "error: nan\n"),
        (Preempted("stopped"), errors.PREEMPTED, "stopped\n"),
        (KeyboardInterrupt(), errors.INTERRUPTED, "interrupted.\n"),
    )
    for error, code, message in cases:

        def fail(error=error):
            raise error

        with pytest.raises(SystemExit) as exit_info:
            program.call(fail)
        assert exit_info.value.code == code
        assert capsys.readouterr().err == message
    assert program.call(lambda: 3) == 3


BAD_SETTINGS = [
    ("data.name", "mnist", "one of digits"),
    ("data.batch_size", 0, "at least 1"),
    ("data.label_noise", 1.5, "at least 0 and at most 1"),
    ("data.num_train", -1, "at least 0"),
    ("data.pooling", 0, "at least 1"),
    ("data.pooling", 3, "a divisor of 32 and 32, the sides of the images of cifar10"),
    ("model.name", "cresent", "did you mean 'cresnet'"),
    ("model.depth", 9, "6n \\+ 2"),
    ("model.width", 0, "at least 1"),
    ("model.dtype", "float16", "one of float32, bfloat16"),
    ("model.dropout_rate", 1.0, "less than 1"),
    ("subspace.name", "lines", "did you mean 'line'"),
    ("subspace.num_endpoints", 3, "2 for a line"),
    ("subspace.num_endpoints", -1, "at least 0"),
    ("subspace.num_samples", 0, "at least 1"),
    ("subspace.num_samples", 3, "a divisor of config.data.batch_size, which is 128"),
    ("penalty.beta", -1.0, "at least 0"),
    ("optimizer.learning_rate", 0.0, "more than 0"),
    ("optimizer.momentum", 1.0, "less than 1"),
    ("optimizer.weight_decay", -1e-4, "at least 0"),
    ("optimizer.label_smoothing", 1.0, "less than 1"),
    ("optimizer.num_epochs", 0, "at least 1"),
    ("optimizer.warmup_epochs", 160, "less than config.optimizer.num_epochs, which is 160"),
    ("evaluation.batch_size", 0, "at least 1"),
    ("evaluation.num_points", 20, "odd, at least 3"),
    ("evaluation.num_random_points", 0, "at least 1"),
    ("evaluation.num_bins", 0, "at least 1"),
    ("seed", -1, "at least 0"),
    ("log_every_steps", 0, "at least 1"),
    ("checkpoint_every_epochs", 0, "at least 1"),
    ("keep_checkpoints", 0, "at least 1"),
    ("num_devices", -1, "at least 0"),
]


@pytest.mark.parametrize(("field", "value", "expected"), BAD_SETTINGS)
def test_settings_out_of_range(field, value, expected):
    settings = config.default()
    settings.update_from_flattened_dict({field: value})
    with pytest.raises(UsageError, match=rf"config\.{field} is {re.escape(repr(value))}. It must be .*{expected}"):
        limits.validate(settings)


@pytest.mark.parametrize(("field", "value"), [("data.num_train", 1000), ("data.pooling", 2)])
def test_imagenet_is_neither_cut_nor_pooled(field, value):
    settings = recipes.imagenet_resnet50("line")
    settings.update_from_flattened_dict({field: value})
    with pytest.raises(UsageError, match=rf"config\.{field} is {value}. It must be . for imagenet2012"):
        limits.validate(settings)


@pytest.mark.parametrize(
    ("name", "m", "expected"), [("simplex", 0, "at least 1"), ("curve", 2, "at least 3"), ("point", 2, "1 for a point")]
)
def test_numbers_of_endpoints(name, m, expected):
    settings = config.default()
    settings.subspace.name, settings.subspace.num_endpoints = name, m
    with pytest.raises(UsageError, match=rf"config.subspace.num_endpoints is {m}. It must be .*{expected}"):
        limits.validate(settings)


def test_fields_are_typed_and_locked():
    settings = config.default()
    with pytest.raises(AttributeError):
        settings.optimizer.lr = 0.1
    with pytest.raises(TypeError):
        settings.optimizer.num_epochs = "many"
    limits.validate(settings)


def test_a_damaged_config_json_is_a_clear_error(tmp_path):
    for content in ("{", '{"sed": 0}', '{"seed": "zero"}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(
            UsageError,
            match=r"config.json is (damaged \(.*\)\. Restore the file|not the config of a run of this version)",
        ):
            config_files.load(tmp_path)


def test_compiled_programs_are_kept_unless_jax_is_told_otherwise(monkeypatch, tmp_path):
    was = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        program.use_compilation_cache()  # The tests have set jax's own variable: it has the last word.
        assert jax.config.jax_compilation_cache_dir == was
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        program.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jsubspace" / "compiled")
    finally:
        jax.config.update("jax_compilation_cache_dir", was)
