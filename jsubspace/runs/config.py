"""The settings of a run: their names, types and defaults. `limits` says what else must hold, `folders` where they are kept.

A file in ``configs/`` starts from `default` and sets what differs. Fields are typed and locked: a typo is an
error, in a file as on the command line (``--config.optimizer.learning_rate=0.05``).
"""

import ast
import difflib
from typing import Any

import ml_collections

from jsubspace.errors import UsageError
from jsubspace.training import schedules


def default() -> ml_collections.ConfigDict:
    """Every field, with the paper's CIFAR-10 settings where the paper has them."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the initialisation, the alphas, the order of the data

    config.data = ml_collections.ConfigDict()
    config.data.name = "cifar10"
    config.data.dir = ""  # of prepared data; empty: $JSUBSPACE_DATA_DIR or ~/.cache/jsubspace
    config.data.batch_size = 128  # over all devices
    config.data.label_noise = 0.0  # fraction of the training labels that are drawn anew
    config.data.num_train = 0  # training images, the first so many; 0: all
    config.data.pooling = 1  # pixels a side of the squares that are averaged: smaller images, for small machines
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
    config.evaluation.num_stats_batches = (
        0  # training batches a point's BatchNorm statistics are of; 0: one epoch, as in the paper
    )
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


def collects(config: ml_collections.ConfigDict) -> bool:
    """Whether the run collects networks along the way and is evaluated as the simplex of them."""
    return config.optimizer.schedule in schedules.COLLECTING


def split(text: str) -> tuple[str, ...]:
    """The words of a field that lists them with commas between."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


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
