"""What can be mistyped or mistaken: one message that names it, the documented exit code or exception, nothing written.

A table; add a line for what you add. Programs are called as functions, in an empty folder. In their arguments and messages
{run} is a run that has not been trained to its end, {simplex} and {point} are others.
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from places import CONFIGS

import jsubspace
from jsubspace import compare, endings, errors, evaluate, export, main, program, runs
from jsubspace.data import pipeline, prepare, sets, validation
from jsubspace.data.batching import Batching
from jsubspace.errors import UsageError
from jsubspace.exchange import authors, network_files
from jsubspace.models.cresnet import CResNet
from jsubspace.models.resnet import ResNet
from jsubspace.runs import command_line, config_files, limits, recipes

LINE = CONFIGS / "digits_cresnet8_line.py"
TRAIN = f"--config={LINE}"
SWA = (TRAIN, "--config.subspace.name=point", "--config.optimizer.schedule=swa_cyclic")
BAD_ENSEMBLE = "--config.evaluation.ensemble=((0.5,0.6),)"

COMMANDS = {
    "main": [
        ([], r"which run\? Say --config=FILE"),
        ([f"--config={str(LINE).replace('line', 'lin')}"], "no config file .*did you mean .*digits_cresnet8_line.py"),
        (["--config=digits_cresnet8_lin"], r"no config file digits_cresnet8_lin; did you mean digits_cresnet8_line\?"),
        (["--config=configs/digits_cresnet8_lin.py"], r"did you mean digits_cresnet8_line\?"),
        (
            ["--config=nowhere/digits_cresnet8_line.py"],
            r"no config file nowhere/.*; did you mean digits_cresnet8_line\?",
        ),
        (["--config="], r"which run\?"),
        (["--flagfile=nowhere"], "nowhere"),
        (["--config=nowhere/x.py"], r"no config file nowhere/x.py\. .*of the library: cifar10_cresnet20_curve, "),
        ([TRAIN, "--workdri=/tmp"], "Unknown command line flag 'workdri'. Did you mean: workdir"),
        ([TRAIN, "digits"], "unexpected argument 'digits'. Every setting is written --name=value"),
        # fields
        ([TRAIN, "--config.optimizer.learning_rat=0.2"], "no field .*did you mean config.optimizer.learning_rate"),
        ([TRAIN, "--config.batch_size=64"], r"no field config.batch_size; did you mean config.data.batch_size\?"),
        ([TRAIN, "--config.zzz=1"], r"no field config.zzz; docs/settings.md lists the fields\."),
        # types
        ([TRAIN, "--config.seed=zero"], "config.seed is 'zero'. It must be of type int"),
        ([TRAIN, "--config.seed=1.5"], "config.seed is '1.5'. It must be of type int"),
        ([TRAIN, "--config.optimizer.learning_rate=fast"], "learning_rate is 'fast'. It must be of type float"),
        ([TRAIN, "--config.subspace.layerwise=maybe"], "config.subspace.layerwise is 'maybe'. It must be of type bool"),
        # values
        ([TRAIN, "--config.data.name=digit"], r"config.data.name is 'digit'.*did you mean 'digits'\?"),
        ([TRAIN, "--config.model.name=resent"], r"config.model.name is 'resent'.*did you mean 'resnet'\?"),
        ([TRAIN, "--config.subspace.name=lines"], r"config.subspace.name is 'lines'.*did you mean 'line'\?"),
        ([TRAIN, "--config.model.dtype=float16"], "config.model.dtype is 'float16'.*one of float32, bfloat16"),
        ([TRAIN, "--config.model.depth=9"], r"config.model.depth is 9. It must be 6n \+ 2"),
        ([TRAIN, "--config.optimizer.learning_rate=inf"], "config.optimizer.learning_rate is inf. .*finite"),
        ([TRAIN, "--config.penalty.beta=nan"], "config.penalty.beta is nan. .*finite"),
        ([TRAIN, "--config.penalty.beta=-1"], r"config.penalty.beta is -1.0. It must be at least 0"),
        ([TRAIN, "--config.seed=5000000000"], "config.seed is 5000000000. It must be .* less than 4294967296"),
        ([TRAIN, "--config.data.batch_size=0"], "config.data.batch_size is 0. It must be at least 1"),
        ([TRAIN, "--config.evaluation.num_resamples=3000000000"], "is 3000000000. It must be .* at most 1000000"),
        ([TRAIN, "--config.evaluation.num_resamples=19"], "is 19. It must be at least 20 .*95 % needs 20 resamples"),
        ([TRAIN, "--config.model.width=2147483648"], "width is 2147483648. It must be at least 1 and at most 65536"),
        ([TRAIN, "--config.evaluation.plane_points=1"], "plane_points is 1. It must be 0, or at least 2"),
        ([TRAIN, "--config.keep_epochs=(0,)"], r"keep_epochs is \(0,\). It must be epochs: integers, each at least 1"),
        ([TRAIN, "--config.subspace.num_samples=3"], "num_samples is 3. It must be a divisor of .*which is 128"),
        ([TRAIN, "--config.subspace.num_endpoints=3"], "num_endpoints is 3. It must be 2 for a line"),
        ([TRAIN, "--config.subspace.name=simplex"], "num_endpoints is 0. It must be at least 1 for a simplex"),
        ([TRAIN, "--config.optimizer.num_epochs=0"], "config.optimizer.num_epochs is 0. It must be at least 1"),
        ([TRAIN, "--config.optimizer.warmup_epochs=60"], "warmup_epochs is 60. .*num_epochs, which is 60"),
        ([TRAIN, "--config.evaluation.num_points=20"], "num_points is 20. It must be odd"),
        ([TRAIN, "--config.keep_checkpoints=0"], "config.keep_checkpoints is 0. It must be at least 1"),
        # methods and what is measured of them
        (
            [TRAIN, "--config.optimizer.schedule=swa"],
            "optimizer.schedule is 'swa'. It must be one of cosine, swa_cyclic",
        ),
        (
            [TRAIN, "--config.optimizer.schedule=snapshot"],
            "subspace.name is 'line'. It must be point with the schedule",
        ),
        ([TRAIN, "--config.optimizer.num_collected=3"], "num_collected is 3. It must be 0 unless"),
        (
            [*SWA, "--config.optimizer.num_collected=2", "--config.optimizer.warmup_epochs=50"],
            "leave no room for swa_cyclic. Train longer, or warm up for 0 to 45 epochs",
        ),
        (
            [*SWA, "--config.optimizer.num_collected=10", "--config.optimizer.per_epoch=True"],
            "with one rate per epoch: a cycle needs an epoch with a higher rate",
        ),
        ([*SWA, "--config.optimizer.num_collected=0"], "collects at least 1 network, not 0"),
        ([*SWA, "--config.optimizer.num_collected=50"], "too few for swa_cyclic to collect 50 networks"),
        (
            [*SWA, "--config.optimizer.num_collected=1", "--config.evaluation.random_points=gaussian"],
            "without gaussian for 1 network: SWA-Gaussian needs two checkpoints",
        ),
        (
            [TRAIN, "--config.evaluation.early_stopping=validation"],
            "must be auto or test unless config.data.num_validation",
        ),
        ([TRAIN, "--config.evaluation.early_stopping=tests"], r"must be one of auto, .*did you mean 'test'\?"),
        ([TRAIN, "--config.data.num_validation=-1"], "num_validation is -1. It must be at least 0"),
        (
            [TRAIN, "--config.evaluation.ensemble=(1e400,0.5)"],
            "ensemble is .*It must be alphas: numbers at least -1000",
        ),
        ([TRAIN, "--config.evaluation.ensemble=(True,)"], "ensemble is .*It must be alphas: numbers at least -1000"),
        ([TRAIN, "--config.evaluation.random_points=gaussian"], "without gaussian unless networks are collected"),
        (
            [TRAIN, "--config.evaluation.random_points=global"],
            "random_points is 'global'. It must be of random, layerwise",
        ),
        ([TRAIN, "--config.evaluation.corruptions=frog"], "corruptions is 'frog': unknown corruption 'frog'.*'fog'"),
        ([TRAIN, "--config.evaluation.corruptions=fog_1"], "images of digits are 8 x 8"),
        (
            [TRAIN, "--config.evaluation.plane_points=9"],
            "plane_points is 9. It must be 0 unless there are three endpoints",
        ),
        ([TRAIN, "--config.evaluation.ensemble=((0.5,0.5),)"], "ensemble is .*It must be numbers for a line"),
        (
            [TRAIN, "--config.subspace.name=simplex", "--config.subspace.num_endpoints=2", BAD_ENSEMBLE],
            "It must be tuples of 2 weights that sum to 1",
        ),
        ([TRAIN, "--config.subspace.fixed_ends=True"], "fixed_ends is True. It must be False unless .* curve or chain"),
        ([TRAIN, "--config.start.epoch=3"], "start.epoch is 3. It must be 0 unless config.start.runs"),
        ([TRAIN, "--config.start.runs=nothing"], "nothing holds no run"),
        (
            [TRAIN, "--config.start.runs=,", "--config.optimizer.num_epochs=0"],
            "start.runs is ','. It must be folders of runs",
        ),
        (
            [TRAIN, "--config.start.runs= ", "--config.optimizer.num_epochs=0"],
            "num_epochs is 0. It must be at least 1;",
        ),
        ([TRAIN, "--config.start.runs=" + "x" * 300], "config.start.runs is .*File name too long. Choose another path"),
        ([TRAIN, "--config.evaluation.corruptions=fog_²"], "corruptions is 'fog_²': unknown corruption 'fog_²'"),
        ([TRAIN, "--config.seed=٤"], "config.seed is '٤'. It must be of type int"),
        ([TRAIN, "--config.seed", "٤"], "config.seed is '٤'. It must be of type int"),
        ([TRAIN, "--config.seed=" + "(" * 300], "config.seed is .*It must be of type int"),
        ([TRAIN, "--config.model.name=mlp", "--config.model.depth=2147483648"], "at least 1 and at most 1202"),
        ([TRAIN, "--config.subspace.name=curve", "--config.subspace.num_endpoints=101"], "at least 0 and at most 100"),
        ([TRAIN, "--config.start.runs={new}"], "holds a run that is not finished"),
        ([TRAIN, "--config.keep_epochs=(100,)"], r"keep_epochs is \(100,\). It must be epochs between 1 and .* 60"),
        # machine, data, folder
        ([TRAIN, "--config.num_devices=1000"], "num_devices is 1000 but this machine has 8"),
        ([TRAIN, "--config.num_devices=7"], "which 7 devices do not divide"),
        ([TRAIN, "--config.data.name=cifar10", "--config.data.dir=here"], "cifar10 is not prepared in here"),
        ([TRAIN, "--workdir=/proc/run"], "cannot write the run's folder /proc/run"),
        ([TRAIN, "--workdir={other}"], "is not empty and holds no run"),
        ([TRAIN, "--workdir={run}"], "holds another run:\n  config.*there, .* here"),
    ],
    "evaluate": [
        ([], "required: --workdir"),
        (["--workdir=nothing"], r"nothing holds no run \(it has no config.json\)"),
        (["--workdir={other}"], "holds no run"),
        (["--workdir={broken}"], r"config.json is damaged \(.*\)\. Restore the file"),
        (["--workdir={lacking}"], "is not the config of a run of this version: it lacks seed. Restore"),
        (
            ["--workdir={run}", f"--config.evaluation.ensemble=({'1' * 400},)"],
            "It must be alphas: numbers at least -1000 and at most 1000",
        ),
        (["--workdir={bad}"], "config.optimizer.learning_rate is -1.0. It must be more than 0"),
        (["--workdir={new}"], "has no checkpoint yet"),
        (["--workdir={run}", "--config.seed=1"], "config.seed belongs to training"),
        *(
            (
                ["--workdir={run}", f"--config.evaluation.{field}={value}"],
                f"{field} belongs to the tests during training",
            )
            for field, value in {"every_epochs": 1, "patience": 1, "early_stopping": "validation"}.items()
        ),
        (["--workdir={run}", "--config.evaluation.num_points=4"], "num_points is 4. It must be odd"),
        (["--workdir={run}", "--config.evaluation.num_point=5"], "did you mean config.evaluation.num_points"),
        (["--workdir={run}", "--config.evaluation.num_bins=many"], "num_bins is 'many'. It must be of type int"),
        (["--workdri=x"], "--workdir"),
    ],
    "compare": [
        ([], r"which runs\?"),
        (["nothing"], "nothing holds no finished run"),
        (["{run}"], "holds no finished run"),
        (["{run}", "{run}"], "given twice"),
        (["{damaged}"], "results.json is damaged .*Delete it"),
        (["--metric=accuracy", "{run}"], "holds no finished run|unrecognized"),
    ],
    "prepare": [
        ([], "required: NAME"),
        (["mnist"], r"unknown data set 'mnist': "),
        (["digits_corrupted/frog"], "frog"),
        (["cifar10_corrupted/fog_6"], "6"),
        (["cifar10_corrupted/fog_²"], "unknown corruption 'fog_²'"),
        (["imagenet2012"], "cannot be downloaded by a program.*--manual_dir|needs the package tensorflow"),
        (["tiny_imagenet", "--manual_dir=nowhere"], "nowhere has no tiny-imagenet-200.zip"),
        (["digits", "--data_dir=/proc/here"], "cannot prepare digits in /proc/here"),
        (["digits", "--datadir=x"], "unrecognized arguments: --datadir=x"),
    ],
    "export": [
        ([], "required: --workdir, --to"),
        (["--workdir={run}"], "required: --to"),
        (["--workdir=nothing", "--to=x"], "nothing holds no run"),
        (["--workdir={new}", "--to=x"], "has no checkpoint yet"),
        (["--workdir={run}", "--to=x.pt"], r"x.pt is neither a safetensors file \(x.safetensors\) nor a folder \(x\)"),
        (["--workdir={run}", "--to={run}"], "exists. Choose another name"),
        (["--workdir={run}", "--to=no/x"], "no is not a folder that can be written"),
        (["--workdir={run}", "--to=x", "--alpha=half"], "--alpha is 'half'. In this run's line it must be a number"),
        (["--workdir={run}", "--to=x", "--alpha=1.5"], "--alpha is '1.5'. .*from 0 to 1"),
        (["--workdir={simplex}", "--to=x", "--alpha=0.5"], "--alpha is '0.5'. In this run's simplex .*3 weights"),
        (["--workdir={simplex}", "--to=x", "--alpha=0.5,0.5,0.5"], "that sum to 1"),
        (["--workdir={point}", "--to=x", "--alpha=0"], "standard training: its only point"),
    ],
}

ENDPOINTS = {"w": jnp.ones((2, 3, 3))}
PARAMS = {"w": jnp.ones((3, 3))}
KEY = jax.random.key(0)


def loss_fn(point, x):
    return jnp.sum(point["w"]) + jnp.sum(x)


def grads(subspace, m=2, **options):
    return jsubspace.value_and_grad(loss_fn, subspace, beta=1.0, **options)(
        KEY, {"w": jnp.ones((m, 3, 3))}, jnp.ones(4)
    )


def changed(**fields):
    settings = recipes.digits_cresnet8("line")
    with settings.unlocked(), settings.ignore_type():
        settings.update(fields)
    return settings


def without(field):
    settings = recipes.digits_cresnet8("line")
    with settings.unlocked():
        del settings[field]
    return settings


CALLS = {
    "no endpoint": (lambda: jsubspace.init_endpoints(KEY, lambda key: PARAMS, 0), "num_endpoints is 0"),
    "integers": (
        lambda: jsubspace.init_endpoints(KEY, lambda key: {"n": jnp.ones(3, int)}, 2),
        r"leaf \['n'\] has dtype",
    ),
    "alpha of no subspace": (
        lambda: jsubspace.interpolate(ENDPOINTS, jnp.zeros(3)),
        r"alpha of shape \[3\] does not say",
    ),
    "alpha of another": (
        lambda: jsubspace.interpolate(ENDPOINTS, jnp.zeros(2), jsubspace.Line()),
        r"shape \[2\] but Line",
    ),
    "another m": (
        lambda: jsubspace.interpolate(ENDPOINTS, 0.5, jsubspace.Curve()),
        "has 3 endpoints but the parameters",
    ),
    "midpoint of another m": (lambda: jsubspace.midpoint(ENDPOINTS, jsubspace.Simplex(3)), "has 3 endpoints but"),
    "two m": (
        lambda: jsubspace.unstack({"a": jnp.ones((2, 3)), "b": jnp.ones((3, 3))}),
        r"\['a'\] has 2 .* \['b'\] has 3",
    ),
    "a scalar": (lambda: jsubspace.unstack({"a": jnp.ones(())}), r"leaf \['a'\] is a scalar without an endpoint axis"),
    "no leaf": (lambda: jsubspace.unstack({}), "the endpoints have no leaves"),
    "length 0": (lambda: jsubspace.unstack({"a": jnp.ones((0, 3))}), "length 0"),
    "nothing to stack": (lambda: jsubspace.stack([]), "no networks were given"),
    "other structure": (lambda: jsubspace.stack([PARAMS, {"v": 1.0}]), "network 1 has the structure"),
    "other shape": (lambda: jsubspace.stack([PARAMS, {"w": jnp.ones(3)}]), r"leaf \['w'\] is .* in network 0 but"),
    "no bend": (lambda: jsubspace.Curve(num_bends=0), "at least one bend"),
    "too many bends": (lambda: jsubspace.Curve(99), "a curve has at least one bend and at most 98"),
    "no corner": (lambda: jsubspace.Simplex(0), "at least one endpoint"),
    "negative beta": (lambda: jsubspace.value_and_grad(loss_fn, jsubspace.Line(), beta=-1.0), "beta is -1.0"),
    "no sample": (
        lambda: jsubspace.value_and_grad(loss_fn, jsubspace.Line(), beta=1.0, num_samples=0),
        "num_samples is 0",
    ),
    "samples of a batch": (lambda: grads(jsubspace.Line(), num_samples=3), "cannot be cut into num_samples=3"),
    "gradients of another m": (lambda: grads(jsubspace.Curve()), "has 3 endpoints but the parameters have 2"),
    "mask of another": (lambda: jsubspace.cosine_squared(ENDPOINTS, 0, 1, {"v": True}), "the mask has the structure"),
    "mask of nothing": (lambda: jsubspace.cosine_squared(ENDPOINTS, 0, 1, {"w": False}), "leaves out every leaf"),
    "no such row": (lambda: jsubspace.cosine_squared(ENDPOINTS, 0, 2), r"there is no endpoint 2\. .* 0 to 1"),
    "no such row from behind": (lambda: jsubspace.cosine_squared(ENDPOINTS, -1, 0), "there is no endpoint -1"),
    "no pair": (lambda: jsubspace.sample_pair(KEY, 1), "no pair"),
    "no batch": (lambda: jsubspace.reestimate_batch_stats(loss_fn, PARAMS, []), "no batch was given"),
    "cresnet of depth 9": (lambda: CResNet(10, depth=9), r"depth is 6n \+ 2"),
    "resnet of depth 19": (lambda: ResNet(10, depth=19), r"depth is one of \["),
    "no such stem": (lambda: ResNet(10, stem="big"), 'the stem is "imagenet" or "tiny"'),
    "unknown set": (lambda: sets.find("cifar11"), "did you mean 'cifar10"),
    "unknown pipeline": (
        lambda: pipeline.make_pipeline("digit", "", Batching(1, 1, seed=0)),
        "unknown data set 'digit'",
    ),
    "validation without training": (
        lambda: validation.split(10, 0, 10),
        "num_validation=10 was asked for but the training split has 10 examples",
    ),
    "a fact that is no JSON": (
        lambda: network_files.save("n", {"w": np.ones(1)}, {"alpha": np.nan}),
        "not JSON compliant",
    ),
    "no network there": (lambda: network_files.load("nothing"), "nothing is neither a safetensors file nor a folder"),
    "a number in a network": (
        lambda: network_files.save("n.safetensors", {"a": [1.0]}),
        "0 is a float. A network is made of",
    ),
    "a slash in a name": (lambda: network_files.save("n.safetensors", {"a/b": np.ones(1)}), "cannot be a name"),
    "not the authors'": (lambda: authors.from_authors({"x": np.ones(1)}), "is not a name of the authors' networks"),
    "None in a config": (lambda: limits.validate(changed(seed=None)), "config.seed is None, of type NoneType. .* int"),
    "one field too many": (
        lambda: runs.train(changed(sede=1), "run"),
        r"no field config.sede; did you mean config.seed",
    ),
    "one field too few": (lambda: runs.train(without("seed"), "run"), "config.seed is missing. Start from"),
    "text for a number": (lambda: limits.validate(changed(num_devices="2")), "num_devices is '2', of type str. .* int"),
    "notebook's typo": (lambda: runs.train(changed(keep_checkpoints=0), "run"), "config.keep_checkpoints is 0"),
}

ERRORS = (UsageError, ValueError)

# ml_collections loads a config file as Python 3.12 would not have it.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture(scope="module")
def run_folders(tmp_path_factory):
    """Runs as far as refusals look at them: a config, and the name of a checkpoint."""
    home = tmp_path_factory.mktemp("folders")
    for name, subspace, fields in (
        ("run", "line", {}),
        ("simplex", "simplex", {"num_endpoints": 3}),
        ("point", "point", {}),
    ):
        settings = recipes.digits_cresnet8(subspace, **fields)
        settings.seed = 7
        config_files.save(home / name, settings)
        (home / name / "checkpoints" / "12").mkdir(parents=True)
    for name in ("new", "bad", "broken", "damaged", "lacking"):
        config_files.save(home / name, recipes.digits_cresnet8("line"))
    bad = json.loads((home / "bad" / "config.json").read_text())
    bad["optimizer"]["learning_rate"] = -1.0
    (home / "bad" / "config.json").write_text(json.dumps(bad))
    (home / "broken" / "config.json").write_text('{"seed": "ze')
    del bad["seed"]
    (home / "lacking" / "config.json").write_text(json.dumps(bad))
    (home / "damaged" / "results.json").write_text('{"points": [')
    (home / "other").mkdir()
    (home / "other" / "thesis.tex").write_text("")
    return home


def run_main(argv):
    with flagsaver.flagsaver():
        flags.FLAGS["config"].present = 0
        program.call(lambda: command_line.parse(["main", *argv]))
        program.call(main.main)


def run_prepare(argv):
    endings.call(lambda: prepare.main(argv))


PROGRAMS = {
    "main": run_main,
    "evaluate": lambda argv: program.call(evaluate.main),
    "export": lambda argv: program.call(export.main),
    "compare": lambda argv: program.call(compare.main),
    "prepare": run_prepare,
}


def everything(*run_folders):
    return {path: path.read_bytes() for folder in run_folders for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "argv", "message"), [(name, *case) for name, cases in COMMANDS.items() for case in cases]
)
def test_commands(name, argv, message, run_folders, tmp_path, monkeypatch, capsys):
    argv = [re.sub(r"\{(\w+)\}", lambda match: str(run_folders / match[1]), argument) for argument in argv]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JSUBSPACE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "argv", [name, *argv])
    before = everything(run_folders, tmp_path)
    with pytest.raises(SystemExit) as end:
        PROGRAMS[name](argv)
    output = capsys.readouterr()
    assert end.value.code == errors.USAGE
    assert re.search(message, output.err, re.DOTALL), output.err
    assert output.err.count("error:") == 1
    assert "Traceback" not in output.err
    assert output.out == ""
    assert everything(run_folders, tmp_path) == before


@pytest.mark.parametrize("name", CALLS)
def test_calls(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, message = CALLS[name]
    with pytest.raises(ERRORS, match=message):
        call()
    assert list(tmp_path.iterdir()) == []


def test_a_config_file_that_fails_is_named_with_its_line(tmp_path, monkeypatch, capsys):
    for line, message in (
        ("c.optimizer.learning_rat = 1", r"no field learning_rat; did you mean config.optimizer.learning_rate\?"),
        ("c.optimizer.learning_rate = 'fast'", "TypeError: .*learning_rate"),
        ("c.seed = 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise KeyError('mine')", "KeyError: 'mine'"),
    ):
        path = tmp_path / "mine.py"
        path.write_text(
            f"from jsubspace.runs import config\ndef get_config():\n  c = config.default()\n  {line}\n  return c\n"
        )
        with pytest.raises(SystemExit) as end:
            run_main([f"--config={path}"])
        error = capsys.readouterr().err
        assert end.value.code == errors.USAGE
        assert re.fullmatch(f"error: {path}, line 4, {re.escape(line)}: .*{message}.*\n", error), error


def test_there_are_many():
    assert sum(map(len, COMMANDS.values())) + len(CALLS) >= 60
