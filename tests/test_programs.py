"""What a user mistypes: one clear message, exit code 2, and nothing written."""

import pathlib
import re
import subprocess
import sys

import pytest

from jsubspace import config, program
from jsubspace.errors import TrainingDiverged, UsageError

REPOSITORY = pathlib.Path(__file__).parent.parent
LINE = REPOSITORY / "configs" / "digits_cresnet8_line.py"

BAD_COMMANDS = {
    "jsubspace.main": [
        ([], r"which run\? Say --config=FILE"),
        ([f"--config={str(LINE).replace('line', 'lin')}"], "no config file .*did you mean .*digits_cresnet8_line.py"),
        ([f"--config={LINE}", "--config.optimizer.learning_rat=0.2"], "did you mean config.optimizer.learning_rate"),
        ([f"--config={LINE}", "--config.seed=zero"], "config.seed=zero"),
        ([f"--config={LINE}", "--config.data.name=digit"], "config.data.name is 'digit'.*did you mean 'digits'"),
        ([f"--config={LINE}", "--config.num_devices=1000"], "config.num_devices is 1000 but this machine has"),
        ([f"--config={LINE}", "--workdri=/tmp"], "Unknown command line flag 'workdri'. Did you mean: workdir"),
        ([f"--config={LINE}", "digits"], "unexpected argument 'digits'"),
        ([f"--config={LINE}", "--config.data.name=cifar10", "--config.data.dir={tmp}"], "data.prepare cifar10"),
    ],
    "jsubspace.evaluate": [
        ([], "required: --workdir"),
        (["--workdir={tmp}/nothing"], "holds no run"),
        (["--workdri=x"], "--workdir"),
    ],
}


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [(module, *case) for module, cases in BAD_COMMANDS.items() for case in cases],
)
def test_bad_commands(module, arguments, message, tmp_path):
    arguments = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    command = [sys.executable, "-m", module, *arguments]
    if module == "jsubspace.main" and not any("workdri" in argument for argument in arguments):
        command.append(f"--workdir={tmp_path / 'run'}")
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == program.USAGE
    assert re.search(message, result.stderr, re.DOTALL)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_config_file_that_fails_is_named(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from jsubspace import config\ndef get_config():\n  c = config.default()\n  c.sed = 1\n  return c\n"
    )
    command = [sys.executable, "-m", "jsubspace.main", f"--config={path}"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == program.USAGE
    assert re.search("the config does not load: .*sed", result.stderr)
    assert "Traceback" not in result.stderr


def test_exit_codes_and_messages(capsys):
    for error, code in ((UsageError("a mistake"), program.USAGE), (TrainingDiverged("nan"), program.DIVERGED)):

        def fail(error=error):
            raise error

        with pytest.raises(SystemExit) as exit_info:
            program.call(fail)
        assert exit_info.value.code == code
        assert capsys.readouterr().err == f"error: {error}\n"
    assert program.call(lambda: 3) == 3


BAD_SETTINGS = [
    ("data.name", "mnist", "one of digits"),
    ("data.batch_size", 0, "at least 1"),
    ("data.label_noise", 1.5, "between 0 and 1"),
    ("model.name", "cresent", "did you mean 'cresnet'"),
    ("model.depth", 9, "6n \\+ 2"),
    ("model.width", 0, "at least 1"),
    ("model.dtype", "float16", "one of float32, bfloat16"),
    ("model.dropout_rate", 1.0, "less than 1"),
    ("subspace.name", "lines", "did you mean 'line'"),
    ("subspace.num_endpoints", 3, "2 for a line"),
    ("subspace.num_endpoints", -1, "2 for a line"),
    ("subspace.num_samples", 0, "at least 1"),
    ("subspace.num_samples", 3, "a divisor of config.data.batch_size, which is 128"),
    ("penalty.beta", -1.0, "at least 0"),
    ("optimizer.learning_rate", 0.0, "positive"),
    ("optimizer.momentum", 1.0, "less than 1"),
    ("optimizer.weight_decay", -1e-4, "at least 0"),
    ("optimizer.label_smoothing", 1.0, "less than 1"),
    ("optimizer.num_epochs", 0, "at least 1"),
    ("optimizer.warmup_epochs", 160, "less than config.optimizer.num_epochs, which is 160"),
    ("evaluation.batch_size", 0, "at least 1"),
    ("evaluation.num_points", 20, "odd and at least 3"),
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
    with pytest.raises(UsageError, match=rf"config\.{field} is {re.escape(repr(value))}; it must be .*{expected}"):
        config.validate(settings)


@pytest.mark.parametrize(
    ("name", "m", "expected"), [("simplex", 0, "at least 1"), ("curve", 2, "at least 3"), ("point", 2, "1 for a point")]
)
def test_numbers_of_endpoints(name, m, expected):
    settings = config.default()
    settings.subspace.name, settings.subspace.num_endpoints = name, m
    with pytest.raises(UsageError, match=rf"config.subspace.num_endpoints is {m}; it must be .*{expected}"):
        config.validate(settings)


def test_fields_are_typed_and_locked():
    settings = config.default()
    with pytest.raises(AttributeError):
        settings.optimizer.lr = 0.1
    with pytest.raises(TypeError):
        settings.optimizer.num_epochs = "many"
    config.validate(settings)


def test_a_damaged_config_json_is_a_clear_error(tmp_path):
    for content in ("{", '{"sed": 0}', '{"seed": "zero"}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UsageError, match=r"config.json is not the config of a run of this version"):
            config.load(tmp_path)
