"""The settings of a run: their names, types, defaults and limits.

A file in ``configs/`` starts from `default` and sets what differs. Fields are typed and locked: a typo is an
error, in a file as on the command line (``--config.optimizer.learning_rate=0.05``).
"""

import difflib
import json
import pathlib
from typing import Any

import ml_collections

from jsubspace.data import sets
from jsubspace.errors import UsageError
from jsubspace.lock import LOCK
from jsubspace.models import resnet
from jsubspace.writer import write_json

CONFIG = "config.json"
SUBSPACES = ("point", "line", "curve", "simplex")
MODELS = ("cresnet", "resnet", "mlp")

WHERE_IT_RUNS = ("data.dir", "data.num_workers", "num_devices")
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
    config.subspace.num_endpoints = 0  # 0: what the subspace has (point 1, line 2, curve 3); a simplex must say
    config.subspace.layerwise = False  # an alpha of its own for each layer
    config.subspace.num_samples = 1  # alphas a step (appendix B)
    config.subspace.shared_init = False  # all endpoints start from one initialisation (appendix E)

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

    config.evaluation = ml_collections.ConfigDict()
    config.evaluation.batch_size = 512  # over all devices
    config.evaluation.num_points = 21  # of the grid along a line or curve
    config.evaluation.num_random_points = 6  # of a simplex
    config.evaluation.num_bins = 20  # of the calibration error
    config.evaluation.num_stats_batches = 0  # training batches for BatchNorm statistics; 0: one epoch, as in the paper

    config.log_every_steps = 100
    config.checkpoint_every_epochs = 5
    config.keep_checkpoints = 2
    config.num_devices = 0  # 0: all
    return config.lock()


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks what the types do not say, before data is read or a device touched.

    Raises:
      UsageError: naming the field, its value and what it may be.
    """

    def require(holds: bool, field: str, expected: str) -> None:
        if not holds:
            raise UsageError(f"config.{field} is {_field(config, field)!r}; it must be {expected}.")

    def one_of(field: str, names: tuple[str, ...]) -> None:
        value = _field(config, field)
        nearest = difflib.get_close_matches(value, names, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        require(value in names, field, f"one of {', '.join(names)}{hint}")

    def at_least(field: str, least: float) -> None:
        require(_field(config, field) >= least, field, f"at least {least}")

    def fraction(field: str) -> None:
        require(0 <= _field(config, field) < 1, field, "at least 0 and less than 1")

    one_of("data.name", tuple(sets.SETS))
    one_of("model.name", MODELS)
    one_of("model.dtype", ("float32", "bfloat16"))
    one_of("model.stem", ("tiny", "imagenet"))
    one_of("subspace.name", SUBSPACES)
    for field in ("data.batch_size", "evaluation.batch_size", "subspace.num_samples"):
        at_least(field, 1)
    for field in ("model.width", "model.inner_width"):
        at_least(field, 1)
    for field in ("optimizer.num_epochs", "evaluation.num_bins", "log_every_steps", "checkpoint_every_epochs"):
        at_least(field, 1)
    for field in ("keep_checkpoints", "evaluation.num_random_points"):
        at_least(field, 1)
    for field in ("seed", "num_devices", "evaluation.num_stats_batches"):
        at_least(field, 0)
    for field in ("penalty.beta", "optimizer.weight_decay", "optimizer.warmup_epochs"):
        at_least(field, 0)
    for field in ("model.dropout_rate", "optimizer.momentum", "optimizer.label_smoothing"):
        fraction(field)
    require(0 <= config.data.label_noise <= 1, "data.label_noise", "between 0 and 1")
    require(config.optimizer.learning_rate > 0, "optimizer.learning_rate", "positive")
    require(
        config.optimizer.warmup_epochs < config.optimizer.num_epochs,
        "optimizer.warmup_epochs",
        f"less than config.optimizer.num_epochs, which is {config.optimizer.num_epochs}",
    )
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
    _validate_model(config, require)
    _validate_num_endpoints(config, require)


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
    elif name == "curve":
        require(m == 0 or m >= 3, field, "at least 3 for a curve: two ends and its bends (or 0, for one bend)")
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
        config.update(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{path} is not the config of a run of this version: {error}") from error
    validate(config)
    return config


def fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Every field by its full name: ``{"optimizer.num_epochs": 160, ...}``."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        nested = isinstance(value, ml_collections.ConfigDict)
        flat |= {f"{name}.{inner}": v for inner, v in fields(value).items()} if nested else {name: value}
    return flat


def _field(config: ml_collections.ConfigDict, path: str) -> Any:
    for name in path.split("."):
        config = config[name]
    return config
