"""The method reproduces recorded runs of the paper authors' own program, number by number, in float64.

Each trace in data/reference is 6 epochs of 2 steps on a tiny residual network (cResNet-8 of width 4, 16 x 16
random images, 10 classes, batch 8), by their PyTorch program on a CPU: beta = 1, SGD with momentum 0.9 (no
Nesterov), weight decay 1e-4 added to the gradient of every parameter of every endpoint, a learning rate an
epoch, cos^2 over convolution and classifier kernels of the pair ``pairs[step]``, alpha as recorded. Images
are NHWC, kernels HWIO, endpoints stacked on axis 0.

Losses are means over an epoch's steps, penalty included; ``final_cos2`` and ``final_l2`` sums over pairs for
line and curve, means for the simplex (L2: the square root of the sum or mean of squared distances). At two
points the BatchNorm statistics were re-estimated as the plain average over the 12 training batches, with the
unbiased variance, and test images evaluated with them.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jsubspace
from jsubspace import gradients
from jsubspace.models.cresnet import CResNet

FOLDER = pathlib.Path(__file__).parent / "data" / "reference"
TRACES = {
    "line": jsubspace.Line(),
    "line_layerwise": jsubspace.Line(),
    "curve": jsubspace.Curve(),
    "simplex3": jsubspace.Simplex(3),
}
MODEL = CResNet(num_classes=10, depth=8, width=4, unbiased_batch_stats=True)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def tree(trace, prefix, names):
    """The trace's arrays ``prefix/layer/leaf`` as a tree of our network's names; ``names``: the trace's leaf -> ours."""
    result = {}
    for key in trace.files:
        head, _, rest = key.partition("/")
        layer, _, leaf = rest.partition("/")
        if head != prefix or leaf not in names:
            continue
        block, _, part = layer.rpartition(".")
        if layer == "classifier":
            module = "classifier"
        elif block and part != "shortcut":
            module = part if leaf == "kernel" else part.replace("conv", "norm")
        else:
            module = f"{part}_{'conv' if leaf == 'kernel' else 'norm'}"
        place = result.setdefault(block, {}) if block else result
        for name in names[leaf]:
            place.setdefault(module, {})[name] = jnp.asarray(trace[key])
    return result


PARAMS = {"kernel": ["kernel"], "bn_scale": ["scale"], "bn_bias": ["bias"]}
ALPHAS = {"kernel": ["kernel"], "bn": ["scale", "bias"]}
STATS = {"bn_mean": ["mean"], "bn_var_unbiased": ["var"]}


def loss_fn(point, images, labels):
    outputs, _ = MODEL.apply({"params": point}, images, train=True, mutable=["batch_stats"])
    return optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels).mean()


@jax.jit
def stats_fn(point, images):
    return MODEL.apply({"params": point}, images, train=True, mutable=["batch_stats"])[1]["batch_stats"]


@jax.jit
def evaluate(point, stats, images):
    return MODEL.apply({"params": point, "batch_stats": stats}, images, train=False).logits


@pytest.mark.parametrize("name", TRACES)
def test_recorded_run(name, x64):
    subspace, trace = TRACES[name], np.load(FOLDER / f"{name}.npz")
    alphas = tree(trace, "alpha", ALPHAS) if name == "line_layerwise" else jnp.asarray(trace["alpha"])
    lr_per_epoch = jnp.asarray(trace["lr_per_epoch"])
    optimizer = optax.chain(
        optax.add_decayed_weights(1e-4), optax.sgd(lambda count: lr_per_epoch[count // 2], momentum=0.9)
    )
    grad_fn = gradients.value_and_grad_at(loss_fn, subspace, beta=1.0)

    @jax.jit
    def step(endpoints, state, alpha, pair, images, labels):
        (value, _), grads = grad_fn(alpha, (pair[0], pair[1]), endpoints, images, labels)
        updates, state = optimizer.update(grads, state, endpoints)
        return value, optax.apply_updates(endpoints, updates), state

    endpoints, losses = tree(trace, "initial", PARAMS), []
    state = jax.jit(optimizer.init)(endpoints)
    for i in range(12):
        alpha = jax.tree.map(lambda leaf: np.asarray(leaf)[i], alphas)  # noqa: B023
        batch = trace["images"][i], trace["labels"][i]
        value, endpoints, state = step(endpoints, state, alpha, trace["pairs"][i], *batch)
        losses.append(float(value))
    np.testing.assert_allclose(np.reshape(losses, (6, 2)).mean(axis=1), trace["mean_loss_per_epoch"], **CLOSE)

    final = tree(trace, "final", PARAMS)
    assert jax.tree.structure(final) == jax.tree.structure(endpoints)
    assert len(jax.tree.leaves(final)) == len([key for key in trace.files if key.startswith("final/")])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), endpoints, final)

    reduce = np.mean if isinstance(subspace, jsubspace.Simplex) else np.sum
    above = np.triu_indices(subspace.num_endpoints, k=1)
    pairs = jax.jit(lambda endpoints: (jsubspace.cosines_squared(endpoints), jsubspace.distances(endpoints)))(endpoints)
    cosines, distances = (np.asarray(matrix)[above] for matrix in pairs)
    np.testing.assert_allclose(reduce(cosines), trace["final_cos2_over_kernels"], **CLOSE)
    np.testing.assert_allclose(np.sqrt(reduce(distances**2)), trace["final_l2_over_kernels"], **CLOSE)

    interpolate = jax.jit(lambda alpha: jsubspace.interpolate(endpoints, alpha, subspace))
    for n in (0, 1):
        point = interpolate(jnp.asarray(trace[f"eval{n}/alpha"]))
        stats = jsubspace.reestimate_batch_stats(stats_fn, point, ((images,) for images in trace["images"]))
        recorded = {key: trace[key] for key in trace.files if key.startswith(f"eval{n}/")}
        expected = tree(trace, f"eval{n}", STATS)
        assert len(jax.tree.leaves(expected)) == len([key for key in recorded if "/bn_" in key]) > 0
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), dict(stats), expected)
        logits = evaluate(point, stats, trace["test_images"])
        np.testing.assert_allclose(logits, recorded[f"eval{n}/logits"], **CLOSE)
