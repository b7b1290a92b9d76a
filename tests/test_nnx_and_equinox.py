"""The code of docs/nnx_and_equinox.md does what the page says. Each test calls the functions that the page defines."""

import re

import equinox
import flax.nnx as nnx
import guides
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from places import REPOSITORY

import jsubspace
from jsubspace.exchange import network_files

LINE = jsubspace.Line()
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """The names of the page, after all of its code has run in the folder ``guide["folder"]``."""
    folder = tmp_path_factory.mktemp("guide")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names = guides.execute("nnx_and_equinox.md")
    return names | {"folder": folder}


def leaves_of(network):
    """The arrays of a network by their last two names, whatever holds them. Weights of Equinox are transposed."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(network):
        *_, module, name = [
            part for part in jax.tree_util.keystr(path, simple=True, separator=".").split(".") if part != "value"
        ]
        name = {"weight": "kernel"}.get(name, name) if module != "norm" else {"weight": "scale"}.get(name, name)
        swap = name == "kernel" and isinstance(network, equinox.Module)
        found[f"{module}.{name}"] = jnp.swapaxes(leaf, -1, -2) if swap else leaf
    return found


def plain_mlp_loss(point, x, y):
    hidden = jax.nn.relu(x @ point["hidden.kernel"] + point["hidden.bias"])
    logits = hidden @ point["head.kernel"] + point["head.bias"]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))


@pytest.mark.parametrize(("loss", "endpoints"), [("mlp_loss", "mlps"), ("eqx_mlp_loss", "eqx_mlps")])
def test_a_module_trains_as_a_plain_function_does(guide, loss, endpoints):
    """The same loss, penalty and gradients as a dictionary of the same arrays."""
    endpoints = guide[endpoints]
    (value, info), grads = jsubspace.value_and_grad(guide[loss], LINE)(KEY, endpoints, guide["x"], guide["y"])
    plain = jsubspace.value_and_grad(plain_mlp_loss, LINE, mask=lambda tree: {n: "kernel" in n for n in tree})
    (expected, plain_info), expected_grads = plain(KEY, leaves_of(endpoints), guide["x"], guide["y"])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(info.penalty, plain_info.penalty, rtol=1e-4)
    assert type(grads) is type(endpoints)
    found = leaves_of(grads)
    assert found.keys() == expected_grads.keys()
    for name, grad in found.items():
        np.testing.assert_allclose(grad, expected_grads[name], rtol=1e-4, atol=1e-7, err_msg=name)


def test_a_midpoint_is_a_module(guide):
    model = jsubspace.midpoint(guide["mlps"])
    assert isinstance(model, guide["Mlp"])
    np.testing.assert_array_equal(model.head.kernel[...], jnp.mean(guide["mlps"].head.kernel[...], axis=0))
    assert model(guide["x"]).shape == (512, 3)
    assert isinstance(jsubspace.midpoint(guide["eqx_mlps"]), guide["EqxMlp"])


def test_the_call_in_the_first_guide_makes_the_same_modules(guide):
    text = (REPOSITORY / "docs" / "your_own_network.md").read_text(encoding="utf-8")
    (call,) = re.findall(r"`(jsubspace\.init_endpoints\([^`]*nnx[^`]*)`", text)
    made = eval(call, {"jsubspace": jsubspace, "nnx": nnx, "Net": guide["Mlp"], "key": KEY, "subspace": LINE})
    same = jsubspace.init_endpoints(KEY, guide["init_params"], LINE)
    jax.tree.map(np.testing.assert_array_equal, leaves_of(made), leaves_of(same))


def test_a_module_and_its_parameters_are_one_network(guide):
    """Split or whole, to the bit: initialisation, value and gradient."""
    whole = jsubspace.init_endpoints(KEY, lambda key: guide["Mlp"](nnx.Rngs(key)), LINE)
    split = jsubspace.init_endpoints(KEY, guide["init_params"], LINE)
    (value, _), grads = jsubspace.value_and_grad(guide["mlp_loss"], LINE)(KEY, whole, guide["x"], guide["y"])
    (same, _), same_grads = jsubspace.value_and_grad(guide["split_loss"], LINE)(KEY, split, guide["x"], guide["y"])
    assert value == same
    jax.tree.map(np.testing.assert_array_equal, leaves_of(grads), leaves_of(same_grads))


DROPOUTS = {
    "nnx": ("dropout_loss", "endpoints"),
    "nnx, streams": ("stream_loss", "stream_endpoints"),
    "equinox": ("eqx_dropout_loss", "eqx_endpoints"),
}


def equal_endpoints(endpoints):
    """Two copies of one network: every position of the line is this network, and only masks make a difference."""
    return jsubspace.stack([jsubspace.interpolate(endpoints, 0.0)] * 2)


def equal_rows(n):
    return jnp.ones((n, 8)), jnp.zeros(n, int)


@pytest.mark.parametrize(("loss", "endpoints"), DROPOUTS.values(), ids=DROPOUTS)
def test_masks_are_fresh_in_every_step_and_sample(guide, loss, endpoints):
    """Equal rows and equal endpoints: the parts of a batch, and two steps, have the same loss unless their masks differ."""
    endpoints, batch = equal_endpoints(guide[endpoints]), equal_rows(8)

    def with_aux(*args):
        return (guide[loss](*args),) * 2

    grad_fn = jax.jit(jsubspace.value_and_grad(with_aux, LINE, num_samples=4, has_aux=True))
    (_, info), _ = grad_fn(KEY, endpoints, *batch, jax.random.key(0))
    assert len(set(info.aux.tolist())) == 4
    step, opt_state = guide["make_step"](guide[loss]), guide["optimizer"].init(endpoints)
    losses = [step(endpoints, opt_state, jax.random.key(i), *batch)[2].item() for i in (0, 1, 2, 0)]
    assert len(set(losses[:3])) == 3
    assert losses[3] == losses[0]


def test_a_stream_that_does_not_exist_is_not_reseeded(guide):
    """Why the page names the stream: the masks of every step would be the same."""

    def masked(rngs, key):
        model = guide["StreamMlp"](rngs)
        nnx.reseed(model, dropout=key)
        return model(guide["x"])

    for rngs, differ in ((lambda: nnx.Rngs(0), False), (lambda: nnx.Rngs(params=0, dropout=0), True)):
        first, second = (masked(rngs(), jax.random.key(i)) for i in (1, 2))
        assert jnp.any(first != second) == differ


def test_masks_of_devices_differ_where_the_device_is_folded_in(guide):
    """And are the same on all devices where it is not. The reference is a loop over the devices' parts of the batch."""
    endpoints, n = equal_endpoints(guide["endpoints"]), jax.device_count()
    batch = equal_rows(4 * n)
    dropout_key = jax.random.split(KEY)[1]
    of_device = [
        guide["dropout_loss"](jsubspace.interpolate(endpoints, 0.0), *equal_rows(4), jax.random.fold_in(dropout_key, i))
        for i in range(n)
    ]
    assert len({float(loss) for loss in of_device}) == n == 8
    loss, _ = guide["sharded_gradient"](KEY, endpoints, *batch)
    np.testing.assert_allclose(loss, np.mean(of_device), rtol=1e-6)

    def losses(key, endpoints, x, y):
        def loss_fn(*args):
            return (guide["dropout_loss"](*args),) * 2

        grad_fn = jsubspace.value_and_grad(loss_fn, LINE, axis_name="data", has_aux=True)
        return grad_fn(key, endpoints, x, y, jax.random.split(key)[1])[0][1].aux[None]

    data = PartitionSpec("data")
    sharded = jax.shard_map(
        losses, mesh=guide["mesh"], in_specs=(PartitionSpec(), PartitionSpec(), data, data), out_specs=data
    )
    of_devices = jax.jit(sharded)(KEY, endpoints, *batch)
    assert of_devices.shape == (n,)
    assert len(set(of_devices.tolist())) == 1


NORMS = {
    "nnx": ("norm_endpoints", "norm_stats", "predict_norm", "report"),
    "equinox": ("eqx_norm_endpoints", "eqx_norm_stats", "predict_eqx_norm", "eqx_report"),
}


def reference(point, x, mean, var):
    """The network with BatchNorm and without Dropout, in numpy and float64."""
    leaves = {name: np.asarray(leaf, np.float64) for name, leaf in leaves_of(point).items()}
    hidden = np.maximum(np.asarray(x, np.float64) @ leaves["hidden.kernel"] + leaves["hidden.bias"], 0)
    mean, var = hidden.mean(axis=0) if mean is None else mean, hidden.var(axis=0) if var is None else var
    hidden = (hidden - mean) / np.sqrt(var + 1e-5) * leaves["norm.scale"] + leaves["norm.bias"]
    return hidden @ leaves["head.kernel"] + leaves["head.bias"]


@pytest.mark.parametrize(("endpoints", "stats_fn", "predict_fn", "report"), NORMS.values(), ids=NORMS)
def test_every_point_has_statistics_of_its_own(guide, endpoints, stats_fn, predict_fn, report):
    """Evaluation equals numpy with the mean over batches of their statistics. It is as accurate as with the statistics of the
    batch. With the statistics of an end, the midpoint is worse."""
    endpoints, stats_fn, predict_fn, x, y = guide[endpoints], guide[stats_fn], guide[predict_fn], guide["x"], guide["y"]
    point = jsubspace.midpoint(endpoints)
    assert leaves_of(point).keys() == {f"{m}.{n}" for m, n in [
        ("hidden", "kernel"), ("hidden", "bias"), ("norm", "scale"), ("norm", "bias"), ("head", "kernel"), ("head", "bias")
    ]}  # fmt: skip
    stats = jsubspace.reestimate_batch_stats(stats_fn, point, guide["batches"])
    leaves = leaves_of(point)
    hidden = [
        np.maximum(np.asarray(b @ leaves["hidden.kernel"] + leaves["hidden.bias"], np.float64), 0)
        for b, _ in guide["batches"]
    ]
    mean, var = (np.mean([getattr(h, name)(axis=0) for h in hidden], axis=0) for name in ("mean", "var"))
    logits = predict_fn(point, x, stats)
    np.testing.assert_allclose(logits, reference(point, x, mean, var), rtol=1e-3, atol=1e-4)

    def accuracy(logits):
        return np.mean(np.argmax(logits, axis=-1) == y)

    by_batch = accuracy(reference(point, x, None, None))
    assert accuracy(logits) > 0.93
    assert abs(accuracy(logits) - by_batch) < 0.01
    np.testing.assert_allclose(guide[report].center.accuracy, accuracy(logits), atol=1e-6)
    ends = [jsubspace.interpolate(endpoints, alpha) for alpha in (0.0, 1.0)]
    of_ends = [jsubspace.reestimate_batch_stats(stats_fn, end, guide["batches"]) for end in ends]
    nll = guide["cross_entropy"]
    assert min(nll(predict_fn(point, x, stats), y) for stats in of_ends) > 1.05 * nll(logits, y)


def test_training_leaves_the_first_statistics_alone(guide):
    """What a step writes into the statistics is dropped: they are still zeros and ones."""
    assert {float(value) for leaf in jax.tree.leaves(guide["norm_rest"]) for value in leaf} == {0.0, 1.0}


def tied_loss(point, tokens, targets):
    """The page's model of tied weights, as a function of a dictionary in which the embedding is one array."""
    x = point["embedding"][tokens]
    for kernel, bias in point["blocks"]:
        x = x + jax.nn.relu(x @ kernel + bias)
    log_p = jax.nn.log_softmax(x @ point["embedding"].T)
    return -jnp.mean(jnp.take_along_axis(log_p, targets[..., None], axis=-1))


def plain_nnx(tree):
    blocks = [(tree["blocks"][i]["kernel"][...], tree["blocks"][i]["bias"][...]) for i in (0, 1)]
    return {"embedding": tree["embed"]["embedding"][...], "blocks": blocks}


def plain_equinox(tree):
    (embedding,) = jax.tree.leaves(tree)
    return {"embedding": embedding, "blocks": []}


@pytest.mark.parametrize(
    ("endpoints", "loss", "plain"),
    [("tied_endpoints", "tied_loss", plain_nnx), ("eqx_tied_endpoints", "eqx_tied_loss", plain_equinox)],
    ids=["nnx", "equinox"],
)
def test_a_tied_weight_is_one_leaf(guide, endpoints, loss, plain):
    """It has the sum of the gradients of its two uses, and the penalty counts it once."""
    endpoints, tokens, targets = guide[endpoints], guide["tokens"][:, :-1], guide["tokens"][:, 1:]
    assert len(jax.tree.leaves(endpoints)) == len(jax.tree.leaves(plain(endpoints)))
    (value, info), grads = jsubspace.value_and_grad(guide[loss], LINE)(KEY, endpoints, tokens, targets)
    (same, plain_info), expected = jsubspace.value_and_grad(tied_loss, LINE)(KEY, plain(endpoints), tokens, targets)
    np.testing.assert_allclose(value, same, rtol=1e-6)
    np.testing.assert_allclose(info.penalty, plain_info.penalty, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), plain(grads), expected)


def test_a_tied_module_stays_tied(guide):
    """And is not tied as a tree of its own, which is why the page splits it."""
    point = jsubspace.midpoint(guide["tied_endpoints"])
    model = nnx.merge(guide["tied_graph"], point, guide["tied_rest"])
    assert model.unembed.embedding is model.embed.embedding
    assert len(jax.tree.leaves(model)) == len(jax.tree.leaves(point)) + 1


def test_the_saved_network_is_the_midpoint(guide):
    """A tied weight is written once, and the elements of a list have numbers for names."""
    network, _ = network_files.load(guide["folder"] / "network.safetensors")
    flat = network_files.flatten(network)
    block = [f"params/blocks/{i}/{name}" for i in (0, 1) for name in ("bias", "kernel")]
    assert sorted(flat) == [*block, "params/embed/embedding"]
    point = jsubspace.midpoint(guide["tied_endpoints"])
    np.testing.assert_array_equal(flat["params/blocks/1/kernel"], point["blocks"][1]["kernel"][...])
