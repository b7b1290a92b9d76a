"""`measure` against the same done plainly, for networks of every framework and for subspaces of a user's own."""

import inspect
import subprocess
import sys

import equinox
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from own_subspaces import Patch, Ring
from places import REPOSITORY

import jsubspace
from jsubspace import export
from jsubspace.evaluation import measure as measuring
from jsubspace.evaluation.report import Report, ValidationReport
from jsubspace.exchange import network_files
from jsubspace.training.parallel import DataParallel

CLASSES = 3


def init_fn(key):
    return {"kernel": jax.random.normal(key, (4, CLASSES)), "bias": jnp.zeros(CLASSES)}


def predict_fn(point, x):
    return x @ point["kernel"] + point["bias"]


def examples(n=50, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return x, np.argmax(x[:, :CLASSES] + rng.normal(size=(n, CLASSES)) / 2, axis=-1)


def cut(arrays, size):
    return [tuple(array[i : i + size] for array in arrays) for i in range(0, len(arrays[0]), size)]


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def start(init, count):
    """What `init_endpoints` returns, made by one program."""
    return jax.jit(lambda key: jsubspace.init_endpoints(key, init, count))(jax.random.key(0))


@pytest.fixture
def endpoints():
    return TWO


def test_scores_of_points_and_ensembles_by_hand(endpoints):
    x, labels = examples()
    report = jsubspace.measure(
        predict_fn, endpoints, jsubspace.Line(), cut((x, labels), 16), num_points=5, num_resamples=50
    )
    assert type(report) is Report
    kernel, bias = (np.asarray(endpoints[name], np.float64) for name in ("kernel", "bias"))
    probs = {
        alpha: softmax(x @ ((1 - alpha) * kernel[0] + alpha * kernel[1]) + (1 - alpha) * bias[0] + alpha * bias[1])
        for alpha in (0, 0.25, 0.5, 0.75, 1)
    }
    for alpha, p in probs.items():
        row = report.at(alpha)
        assert row.accuracy == pytest.approx(np.mean(p.argmax(-1) == labels), rel=1e-6)
        assert row.nll == pytest.approx(-np.log(p[np.arange(50), labels]).mean(), rel=1e-5)
        assert row.intervals["accuracy"][0] <= row.accuracy <= row.intervals["accuracy"][1]
    assert report.center.alpha == 0.5
    assert [row.alpha for row in report.ends] == [0.0, 1.0]
    mean = (probs[0] + probs[1]) / 2
    pair = report.ensemble(1, 0)
    assert pair.nll == pytest.approx(-np.log(mean[np.arange(50), labels]).mean(), rel=1e-5)
    assert pair is report.ensemble()
    assert pair.differences["disagreement"] == pytest.approx(np.mean(probs[0].argmax(-1) != probs[1].argmax(-1)))
    assert pair.differences["feature_cosine_squared"] is None
    assert report.connector["mean_of_ends"] == pytest.approx((report.at(0).accuracy + report.at(1).accuracy) / 2)
    assert sum(report.reliability["count"]) == 50


def test_what_was_not_evaluated_is_refused_by_name(endpoints):
    report = jsubspace.measure(predict_fn, endpoints, jsubspace.Line(), cut(examples(), 16), num_points=3)
    with pytest.raises(ValueError, match=r"no point was evaluated at alpha = 0.3. The nearest is 0.5"):
        report.at(0.3)
    with pytest.raises(ValueError, match=r"alpha has shape \[2\], but in Line\(\) it has shape \[\]"):
        report.at([0.3, 0.7])
    with pytest.raises(ValueError, match=r"no ensemble of 0.5, 1 was evaluated. The ensembles are: 0.00 & 1.00"):
        report.ensemble(0.5, 1)
    with pytest.raises(AttributeError, match=r"no 'rmse'. Its scores are accuracy, nll"):
        _ = report.center.rmse
    with pytest.raises(AttributeError, match="best"):
        report.best("nll")
    with pytest.raises(ValueError, match=r"no score 'rmse'. The scores are accuracy"):
        report.plot(score="rmse")


def test_a_point_is_chosen_on_validation_data_alone(endpoints):
    batches = cut(examples(), 16)
    report = jsubspace.measure(predict_fn, endpoints, jsubspace.Line(), validation_batches=batches, num_points=5)
    assert type(report) is ValidationReport
    assert report.best("nll").nll == min(row.nll for row in report.points)
    assert report.best("accuracy").accuracy == max(row.accuracy for row in report.points)
    with pytest.raises(ValueError, match="no score 'rmse'"):
        report.best("rmse")


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(8)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.0)(x)
        return nn.Dense(CLASSES)(nn.relu(x))


def linen():
    """With BatchNorm: every point has statistics of its own."""
    net = LinenNet()

    def predict(point, x, stats):
        return net.apply({"params": point, "batch_stats": stats}, x, train=False)

    def stats_fn(point, x, y):
        return net.apply({"params": point}, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    return lambda key: net.init(key, jnp.ones((1, 4)), train=True)["params"], predict, stats_fn


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.head = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


def flax_nnx():
    graph = nnx.graphdef(NnxNet(nnx.Rngs(0)))
    return lambda key: nnx.state(NnxNet(nnx.Rngs(key)), nnx.Param), lambda point, x: nnx.merge(graph, point)(x), None


def equinox_mlp():
    def make(key):
        return equinox.partition(equinox.nn.MLP(4, CLASSES, 8, depth=1, key=key), equinox.is_inexact_array)

    static = make(jax.random.key(0))[1]
    return lambda key: make(key)[0], lambda point, x: jax.vmap(equinox.combine(point, static))(x), None


def dictionary():
    return init_fn, predict_fn, None


@pytest.mark.parametrize("make", [linen, flax_nnx, equinox_mlp, dictionary])
def test_networks_of_every_framework(make):
    init, predict, stats_fn = make()
    batches, train_batches = cut(examples(), 16), cut(examples(48, seed=1), 24)
    subspace, endpoints = jsubspace.Curve(), start(init, 3)
    extra = {} if stats_fn is None else {"stats_fn": stats_fn, "train_batches": train_batches}
    report = jsubspace.measure(predict, endpoints, subspace, batches, num_points=3, num_resamples=0, **extra)
    at = jax.jit(lambda alpha: jsubspace.interpolate(endpoints, alpha, subspace))
    log_probs_of = jax.jit(lambda *args, **extra: jax.nn.log_softmax(predict(*args, **extra)))
    for row in report.points:
        point, nlls = at(row.alpha), []
        if stats_fn is not None:
            extra = {"stats": jsubspace.reestimate_batch_stats(jax.jit(stats_fn), point, train_batches)}
        else:
            extra = {}
        for x, y in batches:
            log_probs = np.asarray(log_probs_of(point, x, **extra))
            nlls += [-log_probs[i, label] for i, label in enumerate(y)]
        assert row.nll == pytest.approx(np.mean(nlls), rel=1e-5)


def test_it_imports_no_framework():
    program = """
import sys
import jax, jax.numpy as jnp
import jsubspace
endpoints = {"kernel": jnp.stack([jnp.eye(2), 2 * jnp.eye(2)])}
report = jsubspace.measure(lambda p, x: x @ p["kernel"], endpoints, jsubspace.Line(), [(jnp.eye(2), jnp.arange(2))])
print(report.center.accuracy, sorted({"flax", "optax", "orbax", "ml_collections"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert found.stdout == "1.0 []\n"


def test_it_follows_the_shardings_of_endpoints_and_batches(endpoints):
    batches = cut(examples(64), 16)
    plain = jsubspace.measure(predict_fn, endpoints, jsubspace.Line(), batches, num_points=3, num_resamples=0)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    cut_up = NamedSharding(mesh, PartitionSpec(None, "data"))
    placed = {"kernel": jax.device_put(endpoints["kernel"], cut_up), "bias": jax.device_put(endpoints["bias"], whole)}
    sharded = jsubspace.measure(
        predict_fn, placed, jsubspace.Line(), jax.device_put(batches, split), num_points=3, num_resamples=0
    )
    for a, b in zip(plain.points, sharded.points, strict=True):
        assert a.nll == pytest.approx(b.nll, rel=1e-6)


def test_batches_are_read_once_and_the_network_is_traced_once(endpoints):
    read, traces = [], []

    def batches():
        for batch in cut(examples(50), 16):
            read.append(batch)
            yield batch

    def counted(point, x):
        traces.append(0)
        return predict_fn(point, x)

    jsubspace.measure(counted, endpoints, jsubspace.Line(), batches(), num_resamples=0)
    assert len(read) == 4
    assert len(traces) == 1  # the smaller last batch is padded


@pytest.mark.parametrize(("subspace", "alpha"), [(Patch(), "0.25,0.5"), (Ring(), "0.4")], ids=["patch", "ring"])
def test_a_subspace_of_a_users_own_is_trained_measured_plotted_and_exported(subspace, alpha, tmp_path):
    x, y = examples(200)

    def loss_fn(point, x, y):
        return -jnp.mean(jax.nn.log_softmax(predict_fn(point, x))[jnp.arange(len(y)), y])

    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, beta=0.1)

    def step(endpoints, number):
        _, grads = grad_fn(jax.random.key(number), endpoints, x, y)
        return jax.tree.map(lambda w, g: w - 0.5 * g, endpoints, grads), None

    first = start(init_fn, subspace.num_endpoints)
    endpoints = jax.jit(lambda first: jax.lax.scan(step, first, jnp.arange(200))[0])(first)
    report = jsubspace.measure(
        predict_fn, endpoints, subspace, cut((x, y), 64), num_points=5, num_resamples=20, num_random_points=3
    )
    assert min(row.accuracy for row in report.points) > 0.65
    assert len(report.ends) == len(subspace.ends)
    assert (report.connector is None) == (not subspace.ends)
    assert report.table().count("<- midpoint") == 1
    report.plot(tmp_path / "over.png")
    assert (tmp_path / "over.png").stat().st_size > 5000

    position = export.read_alpha(alpha, subspace)
    point = jax.jit(lambda endpoints: jsubspace.interpolate(endpoints, position, subspace))(endpoints)
    network_files.save(tmp_path / "point.safetensors", {"params": jax.device_get(point)})
    exported, _ = network_files.load(tmp_path / "point.safetensors")
    jax.tree.map(np.testing.assert_array_equal, exported["params"], jax.device_get(point))
    with pytest.raises(ValueError, match="it must be"):
        export.read_alpha("7,7,7", subspace)


def test_a_position_outside_of_a_patch_is_refused():
    with pytest.raises(ValueError, match=r"'2,0\.5'. In this run's patch it must be 2 numbers inside the subspace"):
        export.read_alpha("2,0.5", Patch())


X, Y = examples(8)
LINE = jsubspace.Line()
TWO = start(init_fn, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jsubspace.measure(predict_fn, TWO, LINE), "give test_batches, or validation_batches"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [(X, Y)], validation_batches=[(X, Y)]), "One of the two"),
        (lambda: jsubspace.measure(predict_fn, TWO, jsubspace.Curve(), [(X, Y)]), "has 3 endpoints but 2 were given"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [(X, Y)], stats_fn=len), "stats_fn and train_batches belong"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, []), "there is no test batch"),
        (lambda: jsubspace.measure(TWO, predict_fn, LINE, [(X, Y)]), r"The order is measure\(predict_fn, endpoints"),
        (lambda: jsubspace.measure(predict_fn, TWO, jsubspace.Line, [(X, Y)]), "Line"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [(X, Y)], task=jsubspace.Classification), "Pass an instance"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, (X, Y)), r"A single batch is a list of one tuple: \[\(x, y\)\]"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [(X, Y)], random_points="random"), "must be a tuple of random"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [(X, Y)], random_points=("foo",)), "must be a tuple of random"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [(X, Y)], num_points=1), "num_points is 1"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [(X, Y)], ensemble=((0.1, 0.9),)), r"has shape \[2\], but Line"),
        (lambda: jsubspace.measure(lambda p, x: x[:, :1], TWO, LINE, [(X, Y)]), "at least two classes"),
        (lambda: jsubspace.measure(lambda p, x: (x, {"state": x}), TWO, LINE, [(X, Y)]), r"logits, features \[n, f\]"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [X]), "batch 0 is a ndarray. A batch is a tuple"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [(X[:3], Y)]), r"shapes \[3, 4\], \[8\]. Their leading axis"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [(X, Y / 2)]), r"float64\[8\]. It must hold the labels"),
        (lambda: jsubspace.measure(predict_fn, TWO, LINE, [(X[:3], Y[:3]), (X, Y)]), "batch 1 has 8 examples, more than"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def of_batch(x, y, **options):
    return jsubspace.measure(predict_fn, TWO, LINE, [(x, y)], num_points=3, num_resamples=0, **options)


@pytest.mark.parametrize("number", [2**31, 2**32, 2**32 + 5, -(2**31) - 1, 2**63 - 1, 2**64])
def test_integers_that_jax_would_change_are_refused(number):
    """Before, the labels y + 2^32 were measured as y."""
    large = [int(y) for y in Y[1:]] + [number]
    for given in (large, np.array(large)):
        with pytest.raises(ValueError, match=f"batch 0 holds the integer {number}|a label of batch 0 is -|object"):
            of_batch(X, given)
        inputs = np.stack([np.asarray(given)] * 4, axis=1)
        with pytest.raises(ValueError, match=f"an array of batch 0 holds the integer {number}|object"):
            of_batch(inputs, Y)


def test_integers_of_every_type_that_jax_can_hold_are_the_same():
    expected = of_batch(X, Y.astype(np.int32)).to_json()
    for dtype in (np.int8, np.uint8, np.int64, np.uint64):
        assert of_batch(X, Y.astype(dtype)).to_json() == expected


def test_nested_lists_are_arrays():
    assert of_batch(X.tolist(), Y.tolist()).to_json() == of_batch(X, Y).to_json()
    with pytest.raises(ValueError, match=r"a member of batch 0 is a list that is no array. .*equal lengths"):
        of_batch([[1.0], *X.tolist()[1:]], Y.tolist())
    with pytest.raises(ValueError, match=r"an array of batch 0 is <U1\[8\]. Arrays hold numbers"):
        of_batch(np.full(8, "a"), Y)


class Interval:
    """A path over [0, 360], whose float32 alphas are no float64 numbers of a user."""

    num_endpoints = 2
    alpha_shape = ()
    ends = (0.0, 360.0)
    center = jnp.float32(180)

    def coefficients(self, alpha):
        return jnp.stack([1 - alpha / 360, alpha / 360], axis=-1)

    def sample(self, key, shape=()):
        return 360 * jax.random.uniform(key, shape)

    def grid(self, n):
        return np.linspace(0, 360, n)


def test_alphas_are_found_as_float32_tells_them_apart():
    report = jsubspace.measure(predict_fn, TWO, Interval(), [(X, Y)], num_points=201, num_resamples=0)
    assert report.subspace == "Interval()"
    assert report.at(358.2).alpha == pytest.approx(358.2, rel=1e-6)
    assert [row.alpha for row in report.ends] == [0, 360]
    assert report.ensemble(1.8, 358.2).kind == "pair"
    assert report.ensemble().kind == "ends"


def test_an_ensemble_is_found_by_its_alphas_whatever_its_members_are_called():
    report = jsubspace.measure(predict_fn, TWO, LINE, [(X, Y)], num_points=5, ensemble=(0.25, 0.5), num_resamples=0)
    assert report.ensemble(0.5, 0.25).kind == "listed"
    assert report.ensemble(0.5, 0.25).disagreement >= 0
    assert len({row.name for row in report.points}) == len(report.points) == 7
    with pytest.raises(ValueError, match=r"Ring\(\) has no ends"):
        jsubspace.measure(predict_fn, start(init_fn, 3), Ring(), [(X, Y)],
                          num_points=4, num_resamples=0).ensemble()  # fmt: skip


def test_an_even_grid_has_its_center_beside_it():
    report = jsubspace.measure(predict_fn, TWO, LINE, [(X, Y)], num_points=4, num_resamples=0)
    assert report.center.kind == "center"
    assert report.center.alpha == 0.5
    assert report.connector is not None


def test_every_example_counts_once_on_several_devices():
    x, y = examples(60)
    devices = DataParallel(tuple(jax.devices()[:4]))
    report = jsubspace.measure(predict_fn, TWO, LINE, cut((x, y), 30), num_points=3, num_resamples=20, devices=devices)
    alone = jsubspace.measure(predict_fn, TWO, LINE, cut((x, y), 30), num_points=3, num_resamples=20)
    assert sum(report.reliability["count"]) == 60
    assert report.center.intervals["nll"] == pytest.approx(alone.center.intervals["nll"], rel=1e-5)


def test_the_best_point_is_finite_and_can_be_rebuilt():
    def spoiled(point, x):
        logits = predict_fn(point, x)
        at_end = jnp.all(point["kernel"] == TWO["kernel"][0])
        return jnp.where(at_end, jnp.nan, logits)

    report = jsubspace.measure(
        spoiled, TWO, LINE, validation_batches=[(X, Y)], num_points=3, random_points=("layerwise",), num_resamples=0
    )
    best = report.best("nll")
    assert best.alpha is not None
    assert np.isfinite(best.nll)
    assert report.to_json()["data"] == "validation"


def test_what_type_checkers_read_agrees_with_the_function():
    parameters = inspect.signature(measuring.measure).parameters
    options = [name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
    assert set(measuring.Options.__annotations__) == set(options) - {"validation_batches"}


def test_half_precision_outputs_are_scored_in_float32():
    half = jsubspace.measure(
        lambda p, x: predict_fn(p, x).astype(jnp.bfloat16), TWO, LINE, [(X, Y)], num_points=3, num_resamples=0
    )
    narrow = jax.jit(lambda: predict_fn(jsubspace.midpoint(TWO), X).astype(jnp.bfloat16))()
    expected = -np.mean(np.log(softmax(np.asarray(narrow, np.float32)))[np.arange(8), Y])
    assert half.center.nll == pytest.approx(float(expected), rel=1e-6)
