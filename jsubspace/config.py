"""The settings of a run: their names, types, defaults and limits.

A file in ``configs/`` starts from `default` and sets what differs. Fields are typed and locked: a typo is an
error, in a file as on the command line (``--config.optimizer.learning_rate=0.05``).
"""

import ast
import difflib
import json
import math
import pathlib
import tempfile
from typing import Any

import ml_collections

from jsubspace import schedules
from jsubspace.data import corruptions, sets
from jsubspace.errors import UsageError
from jsubspace.lock import LOCK
from jsubspace.models import resnet
from jsubspace.survey import KINDS
from jsubspace.writer import write_json

CONFIG = "config.json"
SUBSPACES = ("point", "line", "curve", "chain", "simplex")
MODELS = ("cresnet", "resnet", "mlp")

WHERE_IT_RUNS = ("data.dir", "data.num_workers", "num_devices", "shard_endpoints")
"""Fields that may change when a run goes on on another machine: its results do not depend on them."""


def default() -> ml_collections.ConfigDict:
    """Every field, with the paper's CIFAR-10 settings where the paper has them."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the initialisation, the alphas, the order of the data

    config.data = ml_collections.ConfigDict()
    config.data.name = "cifar10"
    config.data.dir = ""  # of prepared data; empty: $JSUBSPACE_DATA_DIR or ~/.cache/jsubspace
    config.data.batch_size = 128  # over all devices
    config.data.label_noise = 0.0  # fraction of the training labels that are drawn anew
    config.data.num_workers = -1  # processes that decode ImageNet; -1: one a core, 0: threads

    config.model = ml_collections.ConfigDict()
    config.model.name = "cresnet"
    config.model.depth = 20  # cresnet: 6n + 2; resnet: 10, 18, 34, 50 or 101; mlp: number of hidden layers
    config.model.width = 16  # channels of the first stage; mlp: units of a hidden layer
    config.model.inner_width = 1  # resnet: factor of the 3 x 3 channels in a bottleneck; 2: WideResNet50-2
    config.model.stem = "tiny"  # resnet: "tiny" for 64 x 64 images, "imagenet" for 224 x 224
    config.model.dropout_rate = 0.0
    config.model.dtype = "float32"  # of the computation; endpoints are always float32
    config.model.sync_batch_norm = True  # statistics of the whole batch, not of each device's share
    config.model.unbiased_batch_stats = False  # store PyTorch's variance rather than Flax's

    config.subspace = ml_collections.ConfigDict()
    config.subspace.name = "line"
    config.subspace.num_endpoints = 0  # 0: what the subspace has (point 1, line 2, curve, chain 3); a simplex must say
    config.subspace.layerwise = False  # an alpha of its own for each layer
    config.subspace.num_samples = 1  # alphas a step (appendix B)
    config.subspace.shared_init = False  # all endpoints start from one initialisation (appendix E)
    config.subspace.fixed_ends = False  # curve, chain: train the bends alone, between networks that stay as they are

    config.start = ml_collections.ConfigDict()  # from networks that other runs trained (`stacks`)
    config.start.runs = ""  # their folders, with commas between: one for each endpoint, or one for all
    config.start.epoch = 0  # go on from the checkpoint of that one run after so many epochs; 0: start afresh

    config.penalty = ml_collections.ConfigDict()
    config.penalty.beta = 1.0
    config.penalty.all_pairs = False  # the mean over pairs rather than one random pair a step
    config.penalty.all_leaves = False  # BatchNorm and biases too, not the kernels alone

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.optimizer.label_smoothing = 0.0
    config.optimizer.num_epochs = 160
    config.optimizer.warmup_epochs = 5
    config.optimizer.per_epoch = False  # change the learning rate once an epoch, as the authors' program does
    config.optimizer.schedule = "cosine"  # or one that collects networks: `schedules.COLLECTING`
    config.optimizer.num_collected = 0  # networks that such a schedule collects; they are evaluated as a simplex
    config.optimizer.sam_rho = 0.0  # sharpness-aware minimisation: the length of its ascent; 0: none

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.batch_size = 512  # over all devices
    config.evaluation.num_points = 21  # of the grid along a line or curve
    config.evaluation.num_random_points = 6  # of every kind of random points
    config.evaluation.random_points = ""  # kinds, with commas between: `survey.KINDS`; "": what the method is known by
    config.evaluation.ensemble = ()  # alphas of one more ensemble, as (-0.05, 1.05)
    config.evaluation.num_bins = 20  # of the calibration error
    config.evaluation.num_resamples = 1000  # of the bootstrap over test examples
    config.evaluation.num_stats_batches = 0  # training batches for BatchNorm statistics; 0: one epoch, as in the paper
    config.evaluation.corruptions = ""  # shifted test sets, as "snow,fog_3" or "all"; "": none
    config.evaluation.sharpness_batches = 0  # training batches for the largest eigenvalue of the Hessian; 0: none
    config.evaluation.plane_points = 0  # a side of the grid on the plane through three endpoints; 0: none
    config.evaluation.every_epochs = 0  # test the midpoint during training; the best is the early stopping; 0: never

    config.log_every_steps = 100
    config.checkpoint_every_epochs = 5
    config.keep_checkpoints = 2
    config.keep_epochs = ()  # epochs whose checkpoints are kept for ever, for other runs to go on from
    config.num_devices = 0  # 0: all
    config.shard_endpoints = (
        False  # each device keeps only its share of endpoints and optimizer: less memory and traffic
    )
    return config.lock()


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks what the types do not say, before data is read or a device touched.

    Raises:
      UsageError: naming the field, its value and what it may be.
    """

    _validate_fields(config)

    def require(holds: bool, field: str, expected: str) -> None:
        if not holds:
            raise UsageError(f"config.{field} is {value(config, field)!r}; it must be {expected}.")

    def one_of(field: str, names: tuple[str, ...]) -> None:
        given = value(config, field)
        nearest = difflib.get_close_matches(given, names, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        require(given in names, field, f"one of {', '.join(names)}{hint}")

    def at_least(field: str, least: float) -> None:
        require(value(config, field) >= least, field, f"at least {least}")

    def fraction(field: str) -> None:
        require(0 <= value(config, field) < 1, field, "at least 0 and less than 1")

    one_of("data.name", tuple(sets.SETS))
    one_of("model.name", MODELS)
    one_of("model.dtype", ("float32", "bfloat16"))
    one_of("model.stem", ("tiny", "imagenet"))
    one_of("subspace.name", SUBSPACES)
    for field in ("data.batch_size", "evaluation.batch_size", "subspace.num_samples"):
        at_least(field, 1)
    for field in ("model.width", "model.inner_width"):
        at_least(field, 1)
    for field in ("evaluation.num_bins", "evaluation.num_resamples", "log_every_steps", "checkpoint_every_epochs"):
        at_least(field, 1)
    for field in ("keep_checkpoints", "evaluation.num_random_points"):
        at_least(field, 1)
    for field in ("seed", "num_devices", "evaluation.num_stats_batches", "evaluation.sharpness_batches"):
        at_least(field, 0)
    for field in ("start.epoch", "evaluation.every_epochs", "optimizer.sam_rho"):
        at_least(field, 0)
    for field in ("penalty.beta", "optimizer.weight_decay", "optimizer.warmup_epochs"):
        at_least(field, 0)
    for field in ("model.dropout_rate", "optimizer.momentum", "optimizer.label_smoothing"):
        fraction(field)
    require(0 <= config.data.label_noise <= 1, "data.label_noise", "between 0 and 1")
    require(config.optimizer.learning_rate > 0, "optimizer.learning_rate", "positive")
    require(
        config.evaluation.num_points >= 3 and config.evaluation.num_points % 2 == 1,
        "evaluation.num_points",
        "odd and at least 3, so that the midpoint is among them",
    )
    require(
        config.data.batch_size % config.subspace.num_samples == 0,
        "subspace.num_samples",
        f"a divisor of config.data.batch_size, which is {config.data.batch_size}",
    )
    require(config.data.num_workers >= -1, "data.num_workers", "at least 0, or -1 for one a core")
    require(config.seed < 2**32, "seed", f"less than {2**32}, what jax's keys take")
    _validate_model(config, require)
    _validate_num_endpoints(config, require)
    _validate_method(config, require, one_of)
    _validate_evaluation(config, require)


def _validate_fields(config: ml_collections.ConfigDict) -> None:
    """The fields of `default` and no others, each of its type: a config need not have come from there."""
    known, given = fields(default()), fields(config)
    for field in given:
        if field not in known:
            raise UsageError(unknown_field(field))
    for field, example in known.items():
        if field not in given:
            raise UsageError(
                f"config.{field} is missing; start from jsubspace.config.default(), where it is {example!r}."
            )
        kind = type(example)
        if type(given[field]) is not kind:
            raise UsageError(
                f"config.{field} is {given[field]!r}, of type {type(given[field]).__name__}; it must be of type {kind.__name__}."
            )
        if kind is float and not math.isfinite(given[field]):
            raise UsageError(f"config.{field} is {given[field]}; it must be a finite number.")


def _validate_method(config: ml_collections.ConfigDict, require: Any, one_of: Any) -> None:
    """What the methods that a subspace is compared with need of each other's fields."""
    settings, start = config.optimizer, config.start
    one_of("optimizer.schedule", schedules.NAMES)
    least = 0 if start.runs else 1
    because = (
        "" if start.runs else "; networks that are only stacked and evaluated (0 epochs) come from config.start.runs"
    )
    require(settings.num_epochs >= least, "optimizer.num_epochs", f"at least {least}{because}")
    require(
        settings.warmup_epochs < settings.num_epochs or settings.num_epochs == 0,
        "optimizer.warmup_epochs",
        f"less than config.optimizer.num_epochs, which is {settings.num_epochs}",
    )
    single = config.subspace.name == "point"
    if settings.schedule in schedules.COLLECTING:
        require(single, "subspace.name", f"point with the schedule {settings.schedule}, which collects single networks")
        try:
            schedules.collection_epochs(
                settings.schedule, settings.warmup_epochs, settings.num_epochs, settings.num_collected
            )
        except ValueError as error:
            raise UsageError(f"config.optimizer.num_collected is {settings.num_collected}: {error}") from error
    else:
        names = ", ".join(schedules.COLLECTING)
        require(
            settings.num_collected == 0, "optimizer.num_collected", f"0 unless config.optimizer.schedule is of {names}"
        )
    require(single or settings.sam_rho == 0, "optimizer.sam_rho", "0 unless config.subspace.name is point")
    bends = config.subspace.name in ("curve", "chain")
    require(
        bends or not config.subspace.fixed_ends, "subspace.fixed_ends", "False unless the subspace is a curve or chain"
    )
    require(
        bool(start.runs) or not config.subspace.fixed_ends,
        "start.runs",
        "the two runs whose networks are connected, with config.subspace.fixed_ends",
    )
    require(
        start.epoch == 0 or bool(start.runs), "start.epoch", "0 unless config.start.runs names the run to go on from"
    )
    require(
        start.epoch == 0 or start.epoch < settings.num_epochs,
        "start.epoch",
        f"less than config.optimizer.num_epochs, which is {settings.num_epochs}",
    )
    kept = [epoch for epoch in config.keep_epochs if not isinstance(epoch, int) or not 0 < epoch <= settings.num_epochs]
    require(
        not kept, "keep_epochs", f"epochs between 1 and config.optimizer.num_epochs, which is {settings.num_epochs}"
    )


def _validate_evaluation(config: ml_collections.ConfigDict, require: Any) -> None:
    settings = config.evaluation
    collecting = collects(config)
    kinds = split(settings.random_points)
    unknown = [kind for kind in kinds if kind not in KINDS]
    require(not unknown, "evaluation.random_points", f"of {', '.join(KINDS)}, with commas between")
    require(
        "gaussian" not in kinds or collecting or config.subspace.name == "simplex",
        "evaluation.random_points",
        "without gaussian unless networks are collected or stacked: SWA-Gaussian is fitted to a simplex of checkpoints",
    )
    m = config.optimizer.num_collected if collecting else config.subspace.num_endpoints
    require(
        "gaussian" not in kinds or m >= 2,
        "evaluation.random_points",
        f"without gaussian for {m} network: SWA-Gaussian needs two checkpoints for a covariance",
    )
    try:
        corruptions.parse(settings.corruptions)
    except UsageError as error:
        raise UsageError(f"config.evaluation.corruptions is {settings.corruptions!r}: {error}") from error
    require(
        settings.plane_points == 0 or settings.plane_points >= 2, "evaluation.plane_points", "0, or at least 2 a side"
    )
    require(
        settings.plane_points == 0 or m == 3 or (m == 0 and config.subspace.name in ("curve", "chain")),
        "evaluation.plane_points",
        "0 unless there are three endpoints: a plane goes through three networks (config.start.runs stacks those of runs)",
    )
    for alpha in settings.ensemble:
        weights = alpha if isinstance(alpha, tuple) else (alpha,)
        require(
            all(isinstance(weight, int | float) for weight in weights),
            "evaluation.ensemble",
            "alphas: numbers on a line or curve, tuples of m weights on a simplex",
        )
        if collecting or config.subspace.name == "simplex":
            require(
                isinstance(alpha, tuple) and len(alpha) == m and abs(sum(alpha) - 1) < 1e-6,
                "evaluation.ensemble",
                f"tuples of {m} weights that sum to 1, the number of corners",
            )
        else:
            require(not isinstance(alpha, tuple), "evaluation.ensemble", f"numbers for a {config.subspace.name}")
    require(
        not settings.ensemble or config.subspace.name != "point" or collecting,
        "evaluation.ensemble",
        "empty for a single network",
    )


def collects(config: ml_collections.ConfigDict) -> bool:
    """Whether the run collects networks along the way and is evaluated as the simplex of them."""
    return config.optimizer.schedule in schedules.COLLECTING


def split(text: str) -> tuple[str, ...]:
    """The words of a field that lists them with commas between."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _validate_model(config: ml_collections.ConfigDict, require: Any) -> None:
    name, depth = config.model.name, config.model.depth
    if name == "cresnet":
        require(depth >= 8 and depth % 6 == 2, "model.depth", "6n + 2 for a cresnet: 8, 14, 20, 26, 32, ...")
    elif name == "resnet":
        depths = tuple(resnet.BLOCKS_PER_STAGE)
        require(depth in depths, "model.depth", f"one of {depths} for a resnet")
        bottlenecks = depth >= resnet.BOTTLENECKS_FROM
        require(config.model.inner_width == 1 or bottlenecks, "model.inner_width", f"1 for a resnet of depth {depth}")
    else:
        require(depth >= 1, "model.depth", "at least 1, the number of hidden layers")


def _validate_num_endpoints(config: ml_collections.ConfigDict, require: Any) -> None:
    name, field = config.subspace.name, "subspace.num_endpoints"
    m = config.subspace.num_endpoints
    if name == "simplex":
        require(m >= 1, field, "at least 1 for a simplex: the number of its corners")
    elif name in ("curve", "chain"):
        require(m == 0 or m >= 3, field, f"at least 3 for a {name}: two ends and its bends (or 0, for one bend)")
    else:
        natural = {"point": 1, "line": 2}[name]
        require(m in (0, natural), field, f"{natural} for a {name} (or 0, for the same)")


def check_same_run(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Refuses a folder that holds a run with another config; fields that say `WHERE_IT_RUNS` may differ.

    Raises:
      UsageError: with the fields that differ.
    """
    if not (workdir / CONFIG).exists():
        if workdir.is_dir() and any(path.name != LOCK for path in workdir.iterdir()):
            raise UsageError(f"{workdir} is not empty and holds no run (no {CONFIG}); choose another --workdir.")
        return
    there, here = fields(load(workdir)), fields(config)
    different = [
        f"  config.{field}: {there[field]!r} there, {here[field]!r} here"
        for field in here
        if field not in WHERE_IT_RUNS and there[field] != here[field]
    ]
    if different:
        raise UsageError(
            f"{workdir} holds another run:\n" + "\n".join(different) + "\nChoose another --workdir, or delete that one."
        )


def check_folder(workdir: pathlib.Path) -> None:
    """Whether `make_folder` will succeed, found out without leaving a trace. Raises UsageError if it will not."""
    there = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise UsageError(f"cannot write the run's folder {workdir}: {error}; choose another --workdir.") from error


def make_folder(workdir: pathlib.Path) -> None:
    """Makes a run's folder if need be. Raises UsageError if that cannot be."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the run's folder {workdir}: {error}; choose another --workdir.") from error


def save(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Writes the config into its run's folder, which is made if need be.

    Raises:
      UsageError: if the folder cannot be written.
    """
    make_folder(workdir)
    try:
        write_json(workdir / CONFIG, config.to_dict())
    except OSError as error:
        raise UsageError(f"cannot write the run's folder {workdir}: {error}; choose another --workdir.") from error


def load(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of the run in ``workdir``.

    Raises:
      UsageError: if there is none, it was written by a version with other fields, or one of them is out of range.
    """
    path = workdir / CONFIG
    if not path.is_file():
        raise UsageError(f"{workdir} holds no run (it has no {CONFIG}); train one: python -m jsubspace.main.")
    config = default()
    try:
        config.update(_tuples(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} is not the config of a run of this version: {error}") from error
    validate(config)
    return config


def _tuples(content: Any) -> Any:
    """What JSON has read, with its lists as the tuples that they were."""
    if isinstance(content, dict):
        return {name: _tuples(inner) for name, inner in content.items()}
    return tuple(map(_tuples, content)) if isinstance(content, list) else content


def change(config: ml_collections.ConfigDict, field: str, text: str) -> None:
    """Sets a field from text, as on a command line.

    Raises:
      UsageError: if there is no such field, or the text is not of its type.
    """
    known = fields(config)
    if field not in known:
        raise UsageError(unknown_field(field))
    kind = type(known[field])
    try:
        given = text if kind is str else ast.literal_eval(text)
        if kind is float and isinstance(given, int):
            given = float(given)
        if type(given) is not kind:
            raise ValueError(f"of type {type(given).__name__}")
    except (ValueError, SyntaxError) as error:
        raise UsageError(f"config.{field} is {text!r}; it must be of type {kind.__name__}.") from error
    group, _, name = field.rpartition(".")
    (value(config, group) if group else config)[name] = given


def unknown_field(field: str) -> str:
    """A message for a field that there is not."""
    nearest = difflib.get_close_matches(field, fields(default()), n=1)
    hint = f"did you mean config.{nearest[0]}?" if nearest else "jsubspace/config.py lists the fields."
    return f"there is no field config.{field}; {hint}"


def fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Every field by its full name: ``{"optimizer.num_epochs": 160, ...}``."""
    flat: dict[str, Any] = {}
    for name, content in config.items():
        nested = isinstance(content, ml_collections.ConfigDict)
        flat |= {f"{name}.{inner}": v for inner, v in fields(content).items()} if nested else {name: content}
    return flat


def value(config: ml_collections.ConfigDict, path: str) -> Any:
    """The field of that full name, as ``optimizer.num_epochs``; or the group, as ``optimizer``."""
    for name in path.split("."):
        config = config[name]
    return config
