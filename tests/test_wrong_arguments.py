"""Every public function with every wrong thing in the place of every argument, and with its arguments in every order."""

import itertools
import linecache
import pathlib
import re
import tempfile
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jsubspace

KEY = jax.random.key(0)
LINE = jsubspace.Line()
PACKAGE = str(pathlib.Path(jsubspace.__file__).parent)

NETWORK = {"dense": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}, "head": {"kernel": jnp.ones((3, 5))}}
LEAVES = {"dense/kernel": (4, 3), "dense/bias": (3,), "head/kernel": (3, 5)}


def stacked(m, network=NETWORK):
    return jax.tree.map(lambda leaf: jnp.stack([(i + 1) * leaf for i in range(m)]), network)


ENDPOINTS = stacked(2)
X, Y = jnp.ones((6, 4)), jnp.arange(6) % 5
BATCHES = [(X, Y)]


def init_fn(key):
    return jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape), NETWORK)


def predict_fn(point, x):
    return (x @ point["dense"]["kernel"] + point["dense"]["bias"]) @ point["head"]["kernel"]


def loss_fn(point, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(predict_fn(point, x), y).mean()


def stats_fn(point, x, y):
    return {"mean": jnp.mean(x @ point["dense"]["kernel"], axis=0)}


OPTIMIZER = jsubspace.per_endpoint(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)))
STATE = OPTIMIZER.init(ENDPOINTS)
MASK = jsubspace.kernels(ENDPOINTS)

FOLDER = tempfile.TemporaryDirectory()
FILE = pathlib.Path(FOLDER.name) / "network.safetensors"
SAME = FILE.with_name("same.safetensors")
SUBSPACE = pathlib.Path(FOLDER.name) / "line"
jsubspace.save(SAME, NETWORK)
jsubspace.save(FILE, NETWORK)
WRITTEN = FILE.with_name("written.safetensors")
jsubspace.save_subspace(SUBSPACE, ENDPOINTS, LINE)

WRONG = {
    "None": None,
    "text": "line",
    "flag": True,
    "integer": 3,
    "number": 0.5,
    "object": object(),
    "function": lambda *args: None,
    "class": jsubspace.Line,
    "line": LINE,
    "simplex": jsubspace.Simplex(3),
    "key": KEY,
    "keys": jax.random.split(KEY, 2),
    "raw key": jax.random.PRNGKey(0),
    "vector": jnp.array([0.5, 0.5]),
    "integers": jnp.arange(6),
    "complex": 1j * jnp.ones(2),
    "empty": {},
    "network": NETWORK,
    "list of networks": [NETWORK, NETWORK],
    "endpoints": ENDPOINTS,
    "endpoints of another m": stacked(3),
    "endpoints of another tree": stacked(2, {"layer": NETWORK["dense"]}),
    "endpoints with one leaf more": stacked(2, NETWORK | {"scale": jnp.ones(3)}),
    "endpoints of another width": stacked(2, jax.tree.map(lambda leaf: jnp.ones([n + 1 for n in leaf.shape]), NETWORK)),
    "endpoints of integers": jax.tree.map(lambda leaf: leaf.astype(int), ENDPOINTS),
    "endpoints with unequal rows": ENDPOINTS | {"head": {"kernel": jnp.ones((3, 3, 5))}},
    "mask": MASK,
    "mask of another tree": {"layer": MASK["dense"]},
    "layers": jsubspace.layers(NETWORK),
    "optimizer": optax.adam(0.1),
    "state": STATE,
    "batches": BATCHES,
}

ANY_ENDPOINTS = "endpoints", "endpoints of another m", "endpoints of another width"
ANY_TREE = (
    *(
        "integer",
        "number",
        "raw key",
        "vector",
        "integers",
        "complex",
        "network",
        "list of networks",
        "state",
        "batches",
    ),
    *(name for name in WRONG if name.startswith("endpoints")),
)
ANY_STACKED = "vector", "endpoints", "endpoints of another tree", "endpoints with one leaf more", ANY_ENDPOINTS[-1]
ANY_ARRAYS = "key", "keys", *(name for name in ANY_TREE if name not in ("integer", "number"))
KEYS = "key", "raw key"
NUMBERS = "integer", "number"
MASKS = "None", "mask"


def gradient(key, endpoints, x, y):
    return jsubspace.value_and_grad(loss_fn, LINE)(key, endpoints, x, y)


def gradient_at(alpha, chosen, endpoints):
    return jsubspace.value_and_grad_at(loss_fn, LINE)(alpha, chosen, endpoints, X, Y)


def with_options(**options):
    return gradients_of(loss_fn, LINE, **options)


def gradients_of(loss_fn, subspace, **options):
    return jsubspace.value_and_grad(loss_fn, subspace, **options)(KEY, ENDPOINTS, X, Y)


def gradients_at(loss_fn, subspace):
    return jsubspace.value_and_grad_at(loss_fn, subspace)(0.5, (0, 1), ENDPOINTS, X, Y)


def log_prob_fn(point, x, y):
    return jax.nn.log_softmax(predict_fn(point, x))[jnp.arange(len(x)), y]


NETWORKS = [NETWORK, jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, NETWORK)]


SYMMETRIES = jsubspace.merging.symmetries(predict_fn, NETWORK, X)


def symmetries(function, network):
    return jsubspace.merging.symmetries(function, network, X)


def soup(log_prob_fn, networks, validation_batches, how):
    return jsubspace.soup(log_prob_fn, networks, validation_batches, how, num_steps=2)


def fit_alpha(log_prob_fn, endpoints, subspace, batches):
    return jsubspace.fit_alpha(log_prob_fn, endpoints, subspace, batches, num_steps=2)


def robust_line(predict_fn, pretrained, fine_tuned, distributions):
    return jsubspace.merging.robust_line(
        predict_fn, pretrained, fine_tuned, distributions, num_points=2, num_resamples=20
    )


def uncertainty(predict_fn, endpoints, subspace, validation_batches, test_batches):
    return jsubspace.uncertainty(
        predict_fn,
        endpoints,
        subspace,
        validation_batches=validation_batches,
        test_batches=test_batches,
        num_resamples=0,
    )


# A function, its right arguments, and what else is right in the place of each of them.
CALLS = {
    "value_and_grad": (gradients_of, {"loss_fn": (loss_fn, ()), "subspace": (LINE, ("line",))}),
    "value_and_grad_at": (gradients_at, {"loss_fn": (loss_fn, ()), "subspace": (LINE, ("line",))}),
    "its options": (
        with_options,
        {
            "beta": (1.0, NUMBERS),
            "layerwise": (False, ("flag", "layers")),
            "num_samples": (1, ("integer",)),
            "batch_argnums": (None, ("None",)),
            "batch_argnames": (None, ("None",)),
            "all_pairs": (False, ("flag",)),
            "mask": (None, MASKS),
            "origin": (None, ("None", "network")),
            "at_point": (None, ("None",)),
            "sam_rho": (0.0, NUMBERS),
            "pull_back": ("plain", ()),
            "spread": (1.0, ("number",)),
            "has_aux": (False, ()),
            "pass_alpha": (False, ()),
            "axis_name": (None, ("None",)),
        },
    ),
    "grad_fn": (
        gradient,
        {
            "key": (KEY, KEYS),
            "endpoints": (ENDPOINTS, ("endpoints", "endpoints with one leaf more")),
            "x": (X, ()),
            "y": (Y, ("integers",)),
        },
    ),
    "grad_fn at a point": (
        gradient_at,
        {
            "alpha": (0.5, NUMBERS),
            "chosen": ((0, 1), ()),
            "endpoints": (ENDPOINTS, ("endpoints", "endpoints with one leaf more")),
        },
    ),
    "init_endpoints": (
        jsubspace.init_endpoints,
        {
            "key": (KEY, KEYS),
            "init_fn": (init_fn, ()),
            "subspace": (LINE, ("integer", "line", "simplex")),
            "common_start": (False, ("flag",)),
            "shared": (None, MASKS),
            "center_scale": ("endpoint", ()),
        },
    ),
    "interpolate": (
        jsubspace.interpolate,
        {"endpoints": (ENDPOINTS, ANY_STACKED), "alpha": (0.5, NUMBERS), "subspace": (LINE, ("None", "line"))},
    ),
    "midpoint": (
        jsubspace.midpoint,
        {"endpoints": (ENDPOINTS, ANY_STACKED), "subspace": (LINE, ("None", "line"))},
    ),
    "sample_alpha": (
        jsubspace.sample_alpha,
        {
            "key": (KEY, KEYS),
            "subspace": (LINE, ("line", "simplex")),
            "layers": (jsubspace.layers(NETWORK), ("None", "text", "layers")),
            "num_samples": (2, ("None", "integer")),
        },
    ),
    "sample_pair": (jsubspace.sample_pair, {"key": (KEY, KEYS), "num_endpoints": (3, ("integer",))}),
    "cosine_squared": (
        jsubspace.cosine_squared,
        {"endpoints": (ENDPOINTS, ANY_ENDPOINTS), "j": (0, ()), "k": (1, ()), "mask": (MASK, MASKS)},
    ),
    **{
        function.__name__: (function, {"endpoints": (ENDPOINTS, ANY_ENDPOINTS), "mask": (MASK, MASKS)})
        for function in (
            jsubspace.cosines_squared, jsubspace.mean_cosine_squared, jsubspace.distances, jsubspace.describe,
        )
    },
    "kernels": (jsubspace.kernels, {"endpoints": (ENDPOINTS, ANY_TREE)}),
    "all_leaves": (jsubspace.all_leaves, {"endpoints": (ENDPOINTS, ANY_TREE)}),
    "layers": (jsubspace.layers, {"tree": (NETWORK, ANY_TREE)}),
    "layers that are scanned": (
        lambda scanned: jsubspace.layers(ENDPOINTS, scanned),
        {"scanned": ("head", ())},
    ),
    "stack": (jsubspace.stack, {"networks": ([NETWORK, NETWORK], ("list of networks", "batches"))}),
    "unstack": (jsubspace.unstack, {"endpoints": (ENDPOINTS, (*ANY_STACKED, "endpoints of another m"))}),
    "per_endpoint": (
        lambda optimizer: jsubspace.per_endpoint(optimizer).init(ENDPOINTS),
        {"optimizer": (optax.adam(0.1), ("optimizer",))},
    ),
    "init": (
        OPTIMIZER.init,
        {"endpoints": (ENDPOINTS, ("complex", "empty", "endpoints of another m", *ANY_STACKED))},
    ),
    "update": (
        OPTIMIZER.update,
        {
            "gradients": (ENDPOINTS, ("endpoints",)),
            "state": (STATE, ("state",)),
            "endpoints": (ENDPOINTS, ("endpoints",)),
        },
    ),
    "rates": (
        jsubspace.rates,
        {"subspace": (LINE, ("line", "simplex")), "learning_rate": (0.1, NUMBERS), "decay": (0.0, NUMBERS)},
    ),
    "reestimate_batch_stats": (
        jsubspace.reestimate_batch_stats,
        {
            "stats_fn": (stats_fn, ()),
            "point": (NETWORK, (*ANY_TREE, "empty")),
            "batches": (BATCHES, ("batches",)),
            "weights": (None, ("None",)),
        },
    ),
    "save": (jsubspace.save, {"path": (WRITTEN, ()), "network": (NETWORK, ANY_ARRAYS)}),
    "load": (jsubspace.load, {"path": (FILE, ()), "like": (NETWORK, ("None", "network"))}),
    "checkpoint_weights": (
        jsubspace.checkpoint_weights,
        {"schedule": ("linear", ()), "steps": (3, ("integer", "integers"))},
    ),
    "average_checkpoints": (
        jsubspace.average_checkpoints,
        {"checkpoints": ([FILE, SAME], ()), "weights": ([0.5, 0.5], ("vector",)), "like": (NETWORK, ("None", "network"))},
    ),
    "save_subspace": (
        lambda folder, endpoints, subspace: jsubspace.save_subspace(folder, endpoints, subspace),
        {
            "folder": (SUBSPACE.with_name("other"), ("text",)),
            "endpoints": (ENDPOINTS, ANY_STACKED),
            "subspace": (LINE, ("line",)),
        },
    ),
    "load_subspace": (
        jsubspace.load_subspace,
        {"folder": (SUBSPACE, ()), "subspace": (LINE, ("None", "line")), "like": (NETWORK, ("None", "network"))},
    ),
    "uncertainty": (
        uncertainty,
        {
            "predict_fn": (predict_fn, ()),
            "endpoints": (ENDPOINTS, ("endpoints", "endpoints with one leaf more")),
            "subspace": (LINE, ("line",)),
            "validation_batches": (BATCHES, ("batches",)),
            "test_batches": (BATCHES, ("batches",)),
        },
    ),
    "soup": (
        soup,
        {
            "log_prob_fn": (log_prob_fn, ()),
            "networks": (NETWORKS, ()),
            "validation_batches": (BATCHES, ("batches",)),
            "how": ("greedy", ()),
        },
    ),
    "its other options": (
        lambda origin, by: jsubspace.soup(None, NETWORKS, how="stock", origin=origin, by=by),
        {"origin": (NETWORK, ("network",)), "by": (None, ("None", "layers"))},
    ),
    "connected": (
        jsubspace.connected,
        {
            "log_prob_fn": (log_prob_fn, ()),
            "networks": (NETWORKS, ()),
            "batches": (BATCHES, ("batches",)),
        },
    ),
    "clinic": (
        jsubspace.clinic,
        {
            "log_prob_fn": (log_prob_fn, ()),
            "networks": (NETWORKS, ()),
            "batches": (BATCHES, ("batches",)),
        },
    ),
    "symmetries": (
        symmetries,
        {"function": (predict_fn, ()), "network": (NETWORK, ("network",))},
    ),
    "align": (
        jsubspace.merging.align,
        {
            "network": (NETWORK, ("network",)),
            "reference": (NETWORKS[1], ("network",)),
            "symmetries": (SYMMETRIES, ()),
            "max_sweeps": (3, ("integer",)),
        },
    ),
    "permuted": (
        jsubspace.merging.permuted,
        {"network": (NETWORK, ("network",)), "found": (SYMMETRIES, ()), "permutations": ({}, ("empty",))},
    ),
    "fit_alpha": (
        fit_alpha,
        {
            "log_prob_fn": (log_prob_fn, ()),
            "endpoints": (ENDPOINTS, ("endpoints", "endpoints with one leaf more")),
            "subspace": (LINE, ("line",)),
            "batches": (BATCHES, ("batches",)),
        },
    ),
    "task_arithmetic": (
        jsubspace.merging.task_arithmetic,
        {
            "origin": (NETWORK, ("network",)),
            "networks": (NETWORKS, ()),
            "scale": (1.0, (*NUMBERS, "vector", "raw key")),
        },
    ),
    "slerp": (
        jsubspace.merging.slerp,
        {
            "network": (NETWORK, ("network",)),
            "other": (NETWORKS[1], ("network",)),
            "alpha": (0.5, ("number",)),
            "by": (None, ("None", "layers")),
        },
    ),
    "robust_line": (
        robust_line,
        {
            "predict_fn": (predict_fn, ()),
            "pretrained": (NETWORK, ("network",)),
            "fine_tuned": (NETWORKS[1], ("network",)),
            "distributions": ({"one": BATCHES, "other": BATCHES}, ()),
        },
    ),
    "measure": (
        jsubspace.measure,
        {
            "predict_fn": (predict_fn, ()),
            "endpoints": (ENDPOINTS, ("endpoints", "endpoints with one leaf more")),
            "subspace": (LINE, ("line",)),
            "test_batches": (BATCHES, ("batches",)),
        },
    ),
}  # fmt: skip

# What only the user's own function can find wrong, and what optax says itself.
OTHERS_FIND = {
    ("grad_fn", "x"): tuple(WRONG),
    ("grad_fn", "y"): tuple(WRONG),
    ("grad_fn", "endpoints"): ("endpoints of another tree", "endpoints of another width"),
    ("grad_fn at a point", "endpoints"): ("endpoints of another tree", "endpoints of another width"),
    ("uncertainty", "endpoints"): ("vector", "endpoints of another tree", "endpoints of another width"),
    ("fit_alpha", "endpoints"): ("vector", "endpoints of another tree", "endpoints of another width"),
    ("soup", "networks"): ("list of networks",),  # One network twice is warned of.
    ("task_arithmetic", "networks"): ("list of networks",),
    ("connected", "networks"): ("list of networks",),
    ("symmetries", "network"): (*ANY_TREE, "empty"),
    ("clinic", "networks"): ("list of networks",),
    ("measure", "endpoints"): ("vector", "endpoints of another tree", "endpoints of another width"),
    ("reestimate_batch_stats", "point"): (*ANY_TREE, "empty"),
    ("update", "endpoints"): ("None",),
}

# What a message calls an argument, if that is not its name.
ABOUT = {
    "subspace": "subspace|Simplex|number of endpoints|Line",
    "endpoints": "endpoint|mask",
    "j": "row|endpoint 3",
    "k": "row|endpoint 3",
    "learning_rate": "rate",
    "optimizer": "optimizer",
    "loss_fn": "loss",
    "key": "key",
    "chosen": "chosen|row|endpoint",
    "batches": "batch",
    "test_batches": "batch",
    "validation_batches": "batch",
    "init_fn": "init_fn",
    "stats_fn": "stats_fn",
    "networks": "network",
    "reference": "network",
    "found": "symmetries",
    "path": "path|file",
    "checkpoints": "checkpoint",
    "folder": "folder|subspace",
}

# Orders in which nothing is wrong, or nothing that the library can see.
SAME = {
    ("align", ("reference", "network", "symmetries", "max_sweeps")),
    ("slerp", ("other", "network", "alpha", "by")),
    ("robust_line", ("predict_fn", "fine_tuned", "pretrained", "distributions")),
    ("grad_fn", ("key", "endpoints", "y", "x")),
    ("cosine_squared", ("endpoints", "k", "j", "mask")),
    ("update", ("endpoints", "state", "gradients")),
}
EVERY_ARGUMENT = [(name, argument) for name, (_, arguments) in CALLS.items() for argument in arguments]


def outcome(call):
    """The message of a refusal by this library's own check, or why there is none."""
    try:
        call()
    except (ValueError, TypeError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        if where.filename.startswith(PACKAGE) and linecache.getline(where.filename, where.lineno).strip().startswith(
            "raise"
        ):
            return str(error)
        return where
    except Exception as error:
        return traceback.extract_tb(error.__traceback__)[-1]
    return None


@pytest.fixture(autouse=True)
def an_empty_folder(monkeypatch, tmp_path):
    """A word that is a path to one function must not be the file that another function wrote."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")
@pytest.mark.parametrize(("name", "argument"), EVERY_ARGUMENT)
def test_a_wrong_argument_is_refused(name, argument):
    function, arguments = CALLS[name]
    right = {other: value for other, (value, _) in arguments.items()}
    fails = []
    for kind, value in WRONG.items():
        if kind in arguments[argument][1] or kind in OTHERS_FIND.get((name, argument), ()):
            continue
        changed = right | {argument: value}
        message = outcome(
            lambda changed=changed: function(**changed) if name == "its options" else function(*changed.values())
        )
        if not isinstance(message, str) or not re.search(ABOUT.get(argument, argument) + r"|leaf [\[(]", message):
            fails.append((kind, message))
    assert not fails


@pytest.mark.parametrize("name", [name for name in CALLS if name != "its options"])
def test_a_wrong_order_is_refused(name):
    function, arguments = CALLS[name]
    right = {argument: value for argument, (value, _) in arguments.items()}
    function(*right.values())
    fails = []
    for order in itertools.permutations(right):
        if (
            order == tuple(right)
            or (name, order) in SAME
            or all(right[a] is b for a, b in zip(order, right.values(), strict=True))
        ):
            continue
        message = outcome(lambda order=order: function(*(right[argument] for argument in order)))
        if not isinstance(message, str):
            fails.append((order, message))
    assert not fails


def test_what_is_right_is_not_refused():
    """The exceptions of the tables above are true: nothing in them is refused by the library's own checks."""
    for name, (function, arguments) in CALLS.items():
        right = {other: value for other, (value, _) in arguments.items()}
        for argument, (_, allowed) in arguments.items():
            for kind in allowed:
                if WRONG[kind] is right[argument] and name != "its options":
                    continue  # The test before has made this call.
                changed = right | {argument: WRONG[kind]}
                message = outcome(
                    lambda changed=changed, function=function, name=name: (
                        function(**changed) if name == "its options" else function(*changed.values())
                    )
                )
                assert not isinstance(message, str), (name, argument, kind, message)


MORE = {
    "zero": 0,
    "minus one": -1,
    "whole number": 5.0,
    "not a number": float("nan"),
    "infinity": float("inf"),
    "number of numpy": np.float32(0.5),
    "integer of numpy": np.int64(3),
    "digits": "5",
    "texts": ("a", "b"),
    "nested texts": (["random"],),
    "nested numbers": [[0.5, 0.5]],
    "lists of two lengths": [[1.0], [1.0, 2.0]],
    "devices": jax.devices(),
    "raw key of another implementation": jnp.zeros(4, jnp.uint32),
    "text of numpy": np.array(["a", "b"]),
    "iterator": iter([1.0]),
    "dtype": jnp.float32,
}
COUNTS = "integer", "integer of numpy"
POSITIVE = "integer", "number", "whole number", "number of numpy", "integer of numpy"


def measured(subspace=LINE, **options):
    endpoints = stacked(subspace.num_endpoints)
    return jsubspace.measure(
        predict_fn, endpoints, subspace, BATCHES, **{"num_points": 3, "num_resamples": 0} | options
    )


def of_simplex(**options):
    return measured(jsubspace.Simplex(3), **options)


def uncertain(**options):
    read = {"validation_batches": BATCHES, "test_batches": BATCHES, "num_resamples": 0}
    return jsubspace.uncertainty(predict_fn, ENDPOINTS, LINE, **read | options)


def robust(**options):
    return jsubspace.merging.robust_line(
        predict_fn, *NETWORKS, {"one": BATCHES, "other": BATCHES}, **{"num_points": 2, "num_resamples": 20} | options
    )


def random_deltas(**options):
    return jsubspace.deltas(NETWORK, 2, **{"key": KEY, "scale": 0.1} | options)


def drawn(**options):
    return jsubspace.sample_alpha(**{"key": KEY, "subspace": LINE} | options)


# Every option with what is right for it. Everything else must be refused before any work.
OPTIONS = {
    measured: {
        "num_points": COUNTS,
        "num_random_points": (*COUNTS, "zero"),
        "random_points": ("None",),
        "ensemble": ("vector", "integers", "raw key", "raw key of another implementation"),
        "num_resamples": ("zero",),
        "key": ("None", *KEYS),
        "devices": ("None",),
        "weights": ("None", "vector", "integers", "raw key", "raw key of another implementation", "iterator",
                    "list of networks", "optimizer", "state", "batches"),
        "task": ("None",),
        "stats_fn": ("None",),
        "train_batches": ("None",),
    },
    of_simplex: {"num_random_points": COUNTS, "random_points": ("None",), "ensemble": (), "key": ("None", *KEYS)},
    uncertain: {
        "miscoverage": ("number", "number of numpy"),
        "num_bins": COUNTS,
        "num_resamples": ("zero",),
        "seed": (*COUNTS, "zero"),
        "ensemble": ("vector", "integers", "raw key", "raw key of another implementation"),
        "devices": ("None",),
    },
    robust: {"num_points": COUNTS, "num_resamples": (), "task": ("None",)},
    jsubspace.Classification: {"num_bins": COUNTS, "label_smoothing": ("number", "number of numpy", "zero")},
    jsubspace.Likelihood: {"tolerance": (*POSITIVE, "zero")},
    jsubspace.Tokens: {
        "tolerance": (*POSITIVE, "zero"),
        "masked": ("flag",),
        "token_bytes": ("None", *POSITIVE, "vector", "integers"),
    },
    jsubspace.Regression: {
        "tolerance": (*POSITIVE, "zero"),
        "scale": ("None", *POSITIVE),
        "levels": ("vector",),
        "quantiles": ("vector",),
    },
    random_deltas: {"key": KEYS, "scale": (*POSITIVE, "zero"), "dtype": ("None", "dtype")},
    drawn: {"key": KEYS, "num_samples": ("None", *COUNTS)},
}  # fmt: skip
EVERY_OPTION = [(call, option) for call, options in OPTIONS.items() for option in options]


@pytest.mark.parametrize(("call", "option"), EVERY_OPTION, ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_option_is_refused(call, option):
    fails = []
    for kind, value in (WRONG | MORE).items():
        if kind not in OPTIONS[call][option]:
            message = outcome(lambda value=value: call(**{option: value}))
            if not isinstance(message, str):
                fails.append((kind, message))
    assert not fails


def test_a_right_option_is_not_refused():
    for call, option in EVERY_OPTION:
        if call in (measured, of_simplex, uncertain, robust):
            continue  # They compile programs. The tests of evaluation call them with right options.
        for kind in OPTIONS[call][option]:
            call(**{option: (WRONG | MORE)[kind]})


@pytest.mark.parametrize("call", [measured, uncertain, robust])
@pytest.mark.parametrize("number", [-1, 1, 2, 19])
def test_few_resamples_make_no_interval(call, number):
    with pytest.raises(ValueError, match=rf"num_resamples is {number}, but it must be .*at least (20|0)"):
        call(num_resamples=number)
