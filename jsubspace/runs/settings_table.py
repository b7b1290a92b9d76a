"""The settings of a run, each in one row. Defaults, checks and the page of the documentation follow from this table.

The defaults are the paper's settings for CIFAR-10 where the paper has them. `limits` has the rules between settings.
"""

import dataclasses
import enum
import re
from typing import Any

from jsubspace import centers
from jsubspace.data import sets
from jsubspace.evaluation import options
from jsubspace.evaluation.positions import KINDS
from jsubspace.runs.allowed import Allowed, Check, Choice, Range, Words
from jsubspace.subspaces import MOST_BENDS
from jsubspace.training import parallel, schedules


class Between(enum.Enum):
    """Where two values of a setting may differ although everything else is the same."""

    PLACES = "a run may resume with another value, for example on another machine"
    HOSTS = "the hosts of one run may have different values"
    COMPARED = "runs that are compared as one method may have different values"


PLACES, HOSTS, COMPARED = Between.PLACES, Between.HOSTS, Between.COMPARED

START, ORIGIN = "start", "origin"
"""What a pretrained network is to the endpoints."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
      name: the full name, as ``optimizer.num_epochs``. The part before the point is the group.
      default: the value that a run has if it sets nothing else. Its type is the type of the setting.
      allowed: the values that the setting may have.
      meaning: one sentence.
      may_differ: where two values may differ. A setting without `PLACES` identifies a run.
      since: the version that added the setting, or "" if the first version had it. A run that an older version wrote
        lacks the setting and gets the default.
    """

    name: str
    default: Any
    allowed: Allowed
    meaning: str
    may_differ: tuple[Between, ...] = ()
    since: str = ""

    @property
    def of_images(self) -> bool:
        """Whether the setting belongs to the programs' images and networks. A problem of one's own has no such setting."""
        return self.name.startswith(("data.", "model.")) or self.name in _OF_IMAGES

    @property
    def type(self) -> type:
        """The type of every value."""
        return type(self.default)


GROUPS = {
    "": "These settings concern the whole run.",
    "data": "These settings say which examples the run learns from and how it reads them.",
    "model": "These settings describe the network.",
    "subspace": "These settings say which subspace is trained and how its points are drawn.",
    "start": "These settings let a run start from networks that other runs or other programs trained.",
    "penalty": "These settings describe the penalty that keeps the endpoints apart.",
    "optimizer": "These settings describe the optimizer and its schedule.",
    "evaluation": "These settings say what is measured. They can be changed when a run is evaluated again. Three settings belong to tests "
    "during training and cannot be changed: every_epochs, early_stopping and patience.",
}

OF_TESTS = ("evaluation.every_epochs", "evaluation.early_stopping", "evaluation.patience")
"""The settings of ``evaluation`` that only training uses."""

_OF_IMAGES = ("optimizer.label_smoothing", "evaluation.batch_size", "evaluation.num_bins", "evaluation.corruptions")

_FLAG = Check("True or False")
_WHERE = (PLACES, HOSTS, COMPARED)
_FRACTION = Range(0, 1, below=True)
_EPOCHS, _MANY_EPOCHS = Range(0, 100_000), Range(1, 100_000)
_ALPHAS = Range(-1000, 1000)
_BATCH_SIZE, _BATCHES = Range(1, 2**20), Range(0, 10**7)


def _is_digest(text: str) -> bool:
    return not text or re.fullmatch("[0-9a-f]{64}", text) is not None


def _are_alphas(values: tuple[Any, ...]) -> bool:
    weights = [w for value in values for w in (value if isinstance(value, tuple) else (value,))]
    return all(type(w) in (int, float) and _ALPHAS.accepts(w) for w in weights)


def _are_epochs(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and _MANY_EPOCHS.accepts(value) for value in values)


def _are_two_steps(values: tuple[Any, ...]) -> bool:
    return not values or (
        len(values) == 2 and all(type(value) is int for value in values) and 1 <= values[0] <= values[1] < 2**31
    )


# fmt: off
SETTINGS = (
    Setting("seed", 0, Range(0, 2**32, below=True, because="the limit of jax's keys"),
        "The seed determines the initialisation, the alphas and the order of the data.", (COMPARED,)),

    Setting("data.name", "cifar10", Choice(tuple(sets.SETS)), "This is the name of the data set."),
    Setting("data.dir", "", Check("a folder"),
        "The data set is prepared in this folder (empty means $JSUBSPACE_DATA_DIR or ~/.cache/jsubspace).", _WHERE),
    Setting("data.batch_size", 128, _BATCH_SIZE, "This is the number of examples in a training batch, over all devices."),
    Setting("data.label_noise", 0.0, Range(0, 1), "This fraction of the training labels is replaced by random labels."),
    Setting("data.num_train", 0, Range(0, 10**7),
        "The run trains on this number of training images, the first ones (0 means all)."),
    Setting("data.num_validation", 0, Range(0, 10**7),
        "This number of training images is kept for validation: training never reads them, and choices are made on them.",
        since="0.1.0"),
    Setting("data.pooling", 1, Range(1, 256),
        "Squares of pixels with sides of this length are averaged, which makes images smaller, for small machines."),
    Setting("data.num_workers", -1, Range(0, 1024, also=-1),
        "This is the number of processes that decode ImageNet (-1 means one per core and 0 means threads).", _WHERE),

    Setting("model.name", "cresnet", Choice(("cresnet", "resnet", "mlp")), "This is the kind of network."),
    Setting("model.depth", 20, Range(1, 1202, because="the deepest network of He et al. (2016)"),
        "This is the number of layers (6n + 2 for a cresnet, 10, 18, 34, 50 or 101 for a resnet, any number of hidden layers for an mlp)."),
    Setting("model.width", 16, Range(1, 2**16),
        "This is the number of channels in the first stage, or of units in each hidden layer of an mlp."),
    Setting("model.inner_width", 1, Range(1, 64),
        "The 3 x 3 channels in a resnet's bottlenecks are multiplied by this factor (2 makes WideResNet50-2)."),
    Setting("model.stem", "tiny", Choice(("tiny", "imagenet")),
        "The first layers of a resnet are for 64 x 64 images (tiny) or for 224 x 224 images (imagenet)."),
    Setting("model.dropout_rate", 0.0, _FRACTION, "Dropout sets this fraction of a residual block's output, or of an mlp's hidden units, to zero."),
    Setting("model.dtype", "float32", Choice(("float32", "bfloat16")),
        "The network computes in this type, and the endpoints are always float32."),
    Setting("model.sync_batch_norm", True, _FLAG,
        "BatchNorm uses the statistics of the whole batch rather than of each device's part."),
    Setting("model.unbiased_batch_stats", False, _FLAG,
        "BatchNorm stores PyTorch's unbiased variance rather than Flax's biased one."),
    Setting("model.remat", False, _FLAG,
        "Training computes the inside of each residual block a second time and does not keep it, to save memory.", (PLACES, COMPARED), since="0.1.0"),

    Setting("subspace.name", "line", Choice(("point", "line", "curve", "chain", "simplex")),
        "This is the kind of subspace."),
    Setting("subspace.num_endpoints", 0, Range(0, MOST_BENDS + 2),
        "This is the number of endpoints (0 means 1 for a point, 2 for a line, and 3 for a curve or chain)."),
    Setting("subspace.layerwise", False, _FLAG, "Each layer has its own alpha."),
    Setting("subspace.num_samples", 1, Range(1, 2**16), "This is the number of alphas that each training step draws (appendix B)."),
    Setting("subspace.shared_init", False, _FLAG, "All endpoints start from one initialisation (appendix E)."),
    Setting("subspace.pull_back", "plain", Choice(centers.PULL_BACKS),
        "The gradient at a point is given to the endpoints by the point's coefficients (plain, as in the paper) or by weights that move the center like one network (center).",
        since="0.1.0"),
    Setting("subspace.spread_growth", 0.0, Range(0, 1),
        "The spread of alpha around the center grows from 0 to 1 over this fraction of the run (0 means that it is 1 from the start, as in the paper).",
        since="0.1.0"),
    Setting("subspace.center_scale", "endpoint", Choice(("endpoint", "network")),
        "Each endpoint starts as an initialisation (endpoint, as in the paper), or longer kernels give the center the variance of one (network).",
        since="0.1.0"),
    Setting("subspace.fixed_ends", False, _FLAG,
        "A curve or chain trains its bends alone, between two networks that do not change."),

    Setting("start.runs", "", Words("folders of runs"),
        "These runs provide the endpoints: one run per endpoint, or one run for all endpoints.", (COMPARED,)),
    Setting("start.epoch", 0, _EPOCHS,
        "The run continues from the checkpoint that the run in start.runs saved after this epoch (0 means a new start)."),
    Setting("start.network", "", Check("a safetensors file, an index of shards, or a folder of Orbax, or empty"),
        "All endpoints start from the pretrained network in this file or folder.", _WHERE, since="0.1.0"),
    Setting("start.role", START, Choice((START, ORIGIN)),
        "The pretrained network is only the start, or also the origin: the penalty then compares the differences of the endpoints from it.",
        since="0.1.0"),
    Setting("start.digest", "", Check("64 hexadecimal digits, or empty", _is_digest),
        "This is the SHA-256 of start.network, which the run records (empty means that of the file).", since="0.1.0"),

    Setting("penalty.beta", 1.0, Range(0, 10**6), "The penalty is multiplied by this factor (0 means no penalty)."),
    Setting("penalty.all_pairs", False, _FLAG,
        "The penalty is the mean over all pairs of endpoints rather than one random pair per step."),
    Setting("penalty.all_leaves", False, _FLAG,
        "The penalty includes BatchNorm parameters and biases rather than the kernels alone."),

    Setting("optimizer.learning_rate", 0.1, Range(0, 3e38, above=True, because="the limit of float32"),
        "This is the largest learning rate of the schedule."),
    Setting("optimizer.name", "sgd", Choice(("sgd", "adamw", "muon", "lion", "problem")),
        "This is the optimizer, and problem means the one that a problem of your own brings (docs/optimizers.md).", since="0.1.0"),
    Setting("optimizer.momentum", 0.9, _FRACTION,
        "This is the momentum of SGD and Muon, and the first decay rate of AdamW and Lion."),
    Setting("optimizer.weight_decay", 1e-4, Range(0, 10**6),
        "SGD adds this factor times each parameter to its gradient, as in PyTorch, and with the other optimizers each parameter shrinks by this factor times the learning rate."),
    Setting("optimizer.clip_norm", 0.0, Range(0, 10**6),
        "The task's gradient at the point is shortened to this norm if it is longer (0 means never).", since="0.1.0"),
    Setting("optimizer.accumulate_steps", 1, Range(1, 10**6),
        "The optimizer makes one update from the mean gradient of this number of steps.", since="0.1.0"),
    Setting("optimizer.ema_decay", 0.0, _FRACTION,
        "An exponential moving average of the endpoints with this decay is evaluated in their place (0 means no average).", since="0.1.0"),
    Setting("optimizer.label_smoothing", 0.0, _FRACTION,
        "This part of each label's probability is spread over all classes."),
    Setting("optimizer.num_epochs", 160, _EPOCHS, "This is the number of epochs that the run trains for."),
    Setting("optimizer.warmup_epochs", 5, _EPOCHS, "This is the number of epochs during which the learning rate grows linearly, at the start."),
    Setting("optimizer.per_epoch", False, _FLAG,
        "The learning rate changes once per epoch, as in the authors' program, rather than every step."),
    Setting("optimizer.schedule", schedules.COSINE, Choice(schedules.NAMES),
        f"This is the schedule of the learning rate, and all but {schedules.COSINE} collect networks."),
    Setting("optimizer.num_collected", 0, Range(0, 100),
        "This is the number of networks that such a schedule collects, to be evaluated as a simplex."),
    Setting("optimizer.sam_rho", 0.0, Range(0, 100),
        "Sharpness-aware minimisation ascends from the sampled point by this length (0 means ordinary SGD)."),

    Setting("evaluation.batch_size", 512, _BATCH_SIZE, "This is the number of examples in a test batch, over all devices.", (COMPARED,)),
    Setting("evaluation.num_points", 21, Range(3, 2_001, odd=True, because="so that the midpoint is one of the points"),
        "This is the number of points in the grid along a line, curve or chain, or at most in the mesh of a simplex of two or three endpoints."),
    Setting("evaluation.num_random_points", 6, Range(1, 1000),
        "This is the number of random points of each kind that are evaluated."),
    Setting("evaluation.random_points", "", Words(f"of {', '.join(KINDS)}", KINDS),
        "These kinds of random points are evaluated, with commas between (empty means the usual kinds of the method)."),
    Setting("evaluation.ensemble", (), Check(f"alphas: numbers {_ALPHAS.words()}, or tuples of m weights on a simplex", _are_alphas),
        "These alphas are the members of one more ensemble, as (-0.05, 1.05)."),
    Setting("evaluation.num_bins", 20, Range(1, 10_000), "This is the number of bins of the calibration error."),
    Setting("evaluation.num_resamples", 1000, Range(options.LEAST_RESAMPLES, 10**6, because=f"because {options.REASON.lower()}"),
        "This is the number of times that the bootstrap draws the test examples again."),
    Setting("evaluation.num_stats_batches", 0, _BATCHES,
        "The BatchNorm statistics of a point come from this number of training batches (0 means one epoch, as in the paper)."),
    Setting("evaluation.corruptions", "", Words('"all", or corruptions as "snow,fog_3"'),
        'The points are also evaluated on these shifted test sets, as "snow,fog_3" or "all" (empty means none).'),
    Setting("evaluation.sharpness_batches", 0, _BATCHES,
        "The largest eigenvalue of the Hessian is measured on this number of training batches (0 means not at all)."),
    Setting("evaluation.plane_points", 0, Range(2, 1000, also=0),
        "The loss on the plane through three endpoints is measured on a grid with this number of points per side (0 means none)."),
    Setting("evaluation.every_epochs", 0, _EPOCHS,
        "The midpoint is tested whenever this number of epochs has passed, and the best is reported (0 means never)."),
    Setting("evaluation.early_stopping", "auto", Choice(("auto", "validation", "test")),
        "These tests and the choice of the best use this data (auto means validation data if there is any, and otherwise the test set, "
        "which is the paper's optimal early stopping).",
        since="0.1.0"),
    Setting("evaluation.patience", 0, Range(0, 10**6),
        "The run ends when this number of tests on validation data in a row was not better than the best before (0 means that it never ends early).",
        since="0.1.0"),

    Setting("log_every_steps", 100, Range(1, 10**9), "The log gets a row whenever this number of steps has passed, and after the last step.", (COMPARED,)),
    Setting("checkpoint_every_epochs", 5, _MANY_EPOCHS, "A checkpoint is saved whenever this number of epochs has passed.", (COMPARED,)),
    Setting("keep_checkpoints", 2, Range(1, 10**6), "This is the number of checkpoints that are kept, the newest ones.", (COMPARED,)),
    Setting("keep_epochs", (), Check(f"epochs: integers, each {_MANY_EPOCHS.words()}", _are_epochs),
        "The checkpoints after these epochs are never deleted, so that other runs can start from them.", (COMPARED,)),
    Setting("profile_steps", (), Check("empty, or two steps from 1 on, the first and the last that are traced", _are_two_steps),
        "A trace of these steps is written into the folder profile of the run, as (11, 15).", (PLACES, COMPARED), since="0.1.0"),
    Setting("steps_per_dispatch", 0, Range(0, 1000),
        "This number of steps is one call of a compiled program, if the training examples live on the devices (0 means that the "
        "platform decides, see docs/speed.md).", (PLACES, COMPARED), since="0.1.0"),
    Setting("parallel", parallel.PMAP, Choice(parallel.WAYS),
        "A step becomes a step on all devices by jax.pmap, by jax.shard_map with the same bits, or by plain jax.jit, where XLA divides "
        "the work and sums have another order (docs/speed.md).", (PLACES, COMPARED), since="0.1.0"),
    Setting("num_devices", 0, Range(0, 100_000), "This is the number of devices, over all hosts (0 means all).", (PLACES, COMPARED)),
    Setting("shard_endpoints", False, _FLAG,
        "Each device keeps only its share of the endpoints and the optimizer's memory, which saves memory and traffic.",
        (PLACES, COMPARED)),
)
# fmt: on
