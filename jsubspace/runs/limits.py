"""The rules between the fields of a config. `settings_table` has the range of each field alone.

The rules are checked before data is read or a device is used.
"""

from typing import Any

import ml_collections

from jsubspace import arguments, centers, points
from jsubspace.data import corruptions, sets
from jsubspace.errors import UsageError
from jsubspace.models import resnet
from jsubspace.runs import optimizers
from jsubspace.runs.config import check_fields, collects, is_of_a_problem, value
from jsubspace.runs.settings_table import ORIGIN, START
from jsubspace.training import optim, parallel, schedules


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks each field and the rules between fields, before data is read or a device is used.

    Raises:
      UsageError: if a field is out of its range or breaks a rule. The message names the field, its value and what it
        may be.
    """
    check_fields(config)

    def require(holds: bool, field: str, expected: str) -> None:
        if not holds:
            raise UsageError(f"config.{field} is {value(config, field)!r}. It must be {expected}.")

    if not is_of_a_problem(config):
        _validate_size_of_data(config, require)
        _validate_model(config, require)
    _validate_num_endpoints(config, require)
    _validate_method(config, require)
    _validate_center(config, require)
    _validate_evaluation(config, require)
    _validate_parallel(config, require)


def _validate_method(config: ml_collections.ConfigDict, require: Any) -> None:
    """The rules of the methods that a subspace is compared with."""
    settings, start = config.optimizer, config.start
    stacks = bool(arguments.words(start.runs))
    least = 0 if stacks or start.network else 1
    because = "; networks that are only evaluated (0 epochs) come from config.start.runs or config.start.network"
    because = "" if least == 0 else because
    require(settings.num_epochs >= least, "optimizer.num_epochs", f"at least {least}{because}")
    require(
        settings.warmup_epochs < settings.num_epochs or settings.num_epochs == 0,
        "optimizer.warmup_epochs",
        f"less than config.optimizer.num_epochs, which is {settings.num_epochs}",
    )
    require(
        settings.name != optimizers.OWN or is_of_a_problem(config),
        "optimizer.name",
        f"one of {', '.join(optim.MAKERS)}: only a problem of your own brings an optimizer",
    )
    require(
        settings.ema_decay == 0 or not collects(config),
        "optimizer.ema_decay",
        f"0 with the schedule {settings.schedule}, which collects the networks themselves",
    )
    single = config.subspace.name == "point"
    if settings.schedule in schedules.COLLECTING:
        require(single, "subspace.name", f"point with the schedule {settings.schedule}, which collects single networks")
        try:
            schedules.collection_epochs(
                settings.schedule,
                settings.warmup_epochs,
                settings.num_epochs,
                settings.num_collected,
                unit=1 if settings.per_epoch else 2,  # `parts.make_schedule` knows the steps of an epoch.
            )
        except ValueError as error:
            raise UsageError(f"config.optimizer.num_collected is {settings.num_collected}: {error}") from error
    else:
        names = ", ".join(schedules.COLLECTING)
        require(
            settings.num_collected == 0,
            "optimizer.num_collected",
            f"0 unless config.optimizer.schedule is one of {names}",
        )
    bends = config.subspace.name in ("curve", "chain")
    require(
        bends or not config.subspace.fixed_ends, "subspace.fixed_ends", "False unless the subspace is a curve or chain"
    )
    require(
        stacks or not config.subspace.fixed_ends,
        "start.runs",
        "the two runs whose networks are connected, with config.subspace.fixed_ends",
    )
    require(
        start.role == ORIGIN or not (stacks and start.network),
        "start.role",
        f"{ORIGIN} if both config.start.runs and config.start.network are set: the endpoints have one start",
    )
    require(bool(start.network) or start.role == START, "start.role", f"{START} without config.start.network")
    require(bool(start.network) or not start.digest, "start.digest", "empty without config.start.network")
    require(
        start.epoch == 0 or stacks,
        "start.epoch",
        "0 unless config.start.runs names the run that is continued",
    )
    require(
        start.epoch == 0 or start.epoch < settings.num_epochs,
        "start.epoch",
        f"less than config.optimizer.num_epochs, which is {settings.num_epochs}",
    )
    require(
        all(epoch <= settings.num_epochs for epoch in config.keep_epochs),
        "keep_epochs",
        f"epochs between 1 and config.optimizer.num_epochs, which is {settings.num_epochs}",
    )


def _validate_center(config: ml_collections.ConfigDict, require: Any) -> None:
    """The options that train the center faster, which fit lines, simplexes and curves with one bend."""
    settings = config.subspace
    require(
        settings.pull_back == centers.PLAIN or config.optimizer.name in (optim.SGD, optimizers.OWN),
        "subspace.pull_back",
        f"plain with config.optimizer.name={config.optimizer.name}, which divides the size of the gradient out: the center moves at "
        "nearly the whole rate anyway, and the differences of the endpoints would slow down (docs/center.md)",
    )
    fits = settings.name in ("point", "line", "simplex") or (
        settings.name == "curve" and settings.num_endpoints in (0, 3)
    )
    fits = fits and not settings.fixed_ends
    only = "for a line, a simplex or a curve with one bend whose ends are trained: other endpoints have little weight at the center"
    require(fits or settings.pull_back == centers.PLAIN, "subspace.pull_back", f"plain. It may be center {only}")
    require(fits or settings.spread_growth == 0, "subspace.spread_growth", f"0. It may be more {only}")
    require(
        settings.center_scale == points.ENDPOINT or not settings.shared_init,
        "subspace.center_scale",
        "endpoint with config.subspace.shared_init, where the center is an initialisation already",
    )
    require(
        settings.center_scale == points.ENDPOINT or not (arguments.words(config.start.runs) or config.start.network),
        "subspace.center_scale",
        "endpoint with config.start.runs or config.start.network, where the endpoints are given",
    )


def _validate_evaluation(config: ml_collections.ConfigDict, require: Any) -> None:
    """The rules between what is evaluated and what is trained."""
    settings = config.evaluation
    collecting = collects(config)
    if settings.patience:
        require(settings.every_epochs > 0, "evaluation.every_epochs", "at least 1 with config.evaluation.patience")
        require(
            settings.early_stopping != "test",
            "evaluation.early_stopping",
            "auto or validation with config.evaluation.patience: the test set must not end a run",
        )
        require(not collecting, "evaluation.patience", "0 with a schedule that collects networks until its end")
    kinds = arguments.words(settings.random_points)
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
    require(
        settings.plane_points == 0 or m == 3 or (m == 0 and config.subspace.name in ("curve", "chain")),
        "evaluation.plane_points",
        "0 unless there are three endpoints: a plane goes through three networks (config.start.runs stacks the networks of runs)",
    )
    for alpha in settings.ensemble:
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
    """The rules between a data set, how much of it is used, and what is measured with it."""
    require(
        config.data.batch_size % config.subspace.num_samples == 0,
        "subspace.num_samples",
        f"a divisor of config.data.batch_size, which is {config.data.batch_size}",
    )
    data_set, num_train, pooling = sets.find(config.data.name), config.data.num_train, config.data.pooling
    height, width, _ = data_set.image_shape
    require(
        height % pooling == 0 and width % pooling == 0,
        "data.pooling",
        f"a divisor of {height} and {width}, the sides of the images of {data_set.name}",
    )
    if not data_set.in_memory:
        require(num_train == 0, "data.num_train", f"0 for {data_set.name}, which is not held in memory")
        require(
            pooling == 1,
            "data.pooling",
            f"1 for {data_set.name}, because its images are cropped and resized when they are read",
        )
    settings = config.evaluation
    require(
        settings.patience == 0 or config.data.num_validation > 0,
        "evaluation.patience",
        "0 unless config.data.num_validation keeps images for validation: the test set must not end a run",
    )
    require(
        settings.early_stopping != "validation" or config.data.num_validation > 0,
        "evaluation.early_stopping",
        "auto or test unless config.data.num_validation keeps images for validation",
    )
    try:
        for corruption, severity in corruptions.parse(settings.corruptions):
            corruptions.corrupted(data_set, corruption, severity)
    except UsageError as error:
        raise UsageError(f"config.evaluation.corruptions is {settings.corruptions!r}: {error}") from error


def _validate_model(config: ml_collections.ConfigDict, require: Any) -> None:
    """The depths and widths that each network can have."""
    name, depth = config.model.name, config.model.depth
    if name == "cresnet":
        require(depth >= 8 and depth % 6 == 2, "model.depth", "6n + 2 for a cresnet: 8, 14, 20, 26, 32, ...")
    elif name == "mlp":
        require(not config.model.remat, "model.remat", "False for an mlp, which has no residual blocks")
    elif name == "resnet":
        depths = tuple(resnet.BLOCKS_PER_STAGE)
        require(depth in depths, "model.depth", f"one of {depths} for a resnet")
        bottlenecks = depth >= resnet.BOTTLENECKS_FROM
        require(config.model.inner_width == 1 or bottlenecks, "model.inner_width", f"1 for a resnet of depth {depth}")


def _validate_num_endpoints(config: ml_collections.ConfigDict, require: Any) -> None:
    """The numbers of endpoints that each subspace can have."""
    name, field = config.subspace.name, "subspace.num_endpoints"
    m = config.subspace.num_endpoints
    if name == "simplex":
        require(m >= 1, field, "at least 1 for a simplex: the number of its corners")
    elif name in ("curve", "chain"):
        require(m == 0 or m >= 3, field, f"at least 3 for a {name}: two ends and its bends (or 0, for one bend)")
    else:
        natural = {"point": 1, "line": 2}[name]
        require(m in (0, natural), field, f"{natural} for a {name} (or 0, for the same)")


def _validate_parallel(config: ml_collections.ConfigDict, require: Any) -> None:
    """What plain jit cannot do: a step that sees the whole batch knows no parts of devices."""
    if config.parallel != parallel.JIT:
        return
    one_per_device = "with config.parallel=jit, where no device has a part of the batch (pmap and shard_map can do it)"
    require(config.subspace.num_samples == 1, "subspace.num_samples", f"1 {one_per_device}")
    synced = is_of_a_problem(config) or config.model.sync_batch_norm
    require(synced, "model.sync_batch_norm", f"True {one_per_device}")
