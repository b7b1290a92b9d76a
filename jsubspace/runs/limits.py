"""What must hold of a config besides its types: checked before data is read or a device touched."""

import difflib
import math
from typing import Any

import ml_collections

from jsubspace.data import corruptions, sets
from jsubspace.errors import UsageError
from jsubspace.evaluation.survey import KINDS
from jsubspace.models import resnet
from jsubspace.runs.config import collects, default, fields, split, unknown_field, value
from jsubspace.training import schedules

SUBSPACES = ("point", "line", "curve", "chain", "simplex")
MODELS = ("cresnet", "resnet", "mlp")


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
    _validate_size_of_data(config, require)
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
    require(
        settings.sam_rho == 0 or not config.shard_endpoints,
        "shard_endpoints",
        "False with config.optimizer.sam_rho, whose step has the length of the whole network's gradient",
    )
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
        for corruption, severity in corruptions.parse(settings.corruptions):
            corruptions.corrupted(sets.find(config.data.name), corruption, severity)
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


def _validate_size_of_data(config: ml_collections.ConfigDict, require: Any) -> None:
    data_set, num_train, pooling = sets.find(config.data.name), config.data.num_train, config.data.pooling
    height, width, _ = data_set.image_shape
    require(num_train >= 0, "data.num_train", "a number of images, or 0 for all")
    require(
        pooling >= 1 and height % pooling == 0 and width % pooling == 0,
        "data.pooling",
        f"a divisor of {height} and {width}, the sides of the images of {data_set.name}",
    )
    if not data_set.in_memory:
        require(num_train == 0, "data.num_train", f"0 for {data_set.name}, which is not held in memory")
        require(
            pooling == 1,
            "data.pooling",
            f"1 for {data_set.name}, whose images are cropped and resized as they are read",
        )


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
