"""The paper's networks: sizes, initial distances, and numerics against loops that share no code with them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace.models.blocks import BasicBlock, BottleneckBlock
from jsubspace.models.cresnet import CResNet
from jsubspace.models.layers import KAIMING_NORMAL, BatchNorm, Classifier, Conv
from jsubspace.models.mlp import MLP
from jsubspace.models.resnet import ResNet

RNG = np.random.default_rng(0)


def shapes(model, image_shape):
    """The variables' and the outputs' shapes, without computing anything."""

    def run(key, images):
        variables = model.init(key, images, train=True)
        return variables, model.apply(variables, images, train=False)

    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    return jax.eval_shape(run, jax.eval_shape(lambda: jax.random.key(0)), images)


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


WIDE = functools.partial(ResNet, depth=50, inner_width=2)


@pytest.mark.parametrize(
    ("model", "image_shape", "parameters", "features"),
    [
        (CResNet(10), (32, 32, 3), 272_464, 64 * 8 * 8),
        (ResNet(200, 18, "tiny"), (64, 64, 3), 11_271_232, 512 * 8 * 8),
        # torchvision's counts, 11,689,512, 25,557,032 and 68,883,240, without their 1,000 classifier biases
        (ResNet(1000, 18), (224, 224, 3), 11_688_512, 512),
        (ResNet(1000, 50), (224, 224, 3), 25_556_032, 2048),
        (WIDE(1000), (224, 224, 3), 68_882_240, 2048),
        # the ImageNet network, its 7 x 7 stem exchanged for a 3 x 3 one and 1,000 classes for 200
        (ResNet(200, 50, "tiny"), (64, 64, 3), 25_556_032 - 64 * 3 * (49 - 9) - 2048 * 800, 2048 * 8 * 8),
        (MLP(10, widths=(32,)), (8, 8, 1), 64 * 32 + 32 + 32 * 10, 32),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_sizes(model, image_shape, parameters, features):
    variables, outputs = shapes(model, image_shape)
    assert size(variables["params"]) == parameters
    assert outputs.logits.shape == (2, model.num_classes)
    assert outputs.features.shape == (2, features)
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    norms = [leaf for path, leaf in leaves if "norm" in jax.tree_util.keystr(path)]
    if isinstance(model, CResNet):
        assert size(norms) == 1_568
    if not isinstance(model, MLP):
        assert not [path for path, _ in leaves if path[-1].key == "bias" and "norm" not in path[-2].key]
    mask = jsubspace.kernels(
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), variables["params"])
    )
    kernels = [leaf for (path, leaf), counts in zip(leaves, jax.tree.leaves(mask), strict=True) if counts]
    assert [leaf.ndim in (2, 4) for leaf in kernels] == [True] * len(kernels)
    assert len(kernels) == len([path for path, _ in leaves if path[-1].key == "kernel"])


@pytest.mark.parametrize(
    ("model", "image_shape", "distance"),
    [
        (CResNet(10), (32, 32, 3), 56.4),
        (ResNet(200, 18, "tiny"), (64, 64, 3), 141.4),
        (ResNet(1000, 50), (224, 224, 3), 332),
    ],
    ids=["cResNet20", "Tiny ResNet18", "ResNet50"],
)
def test_expected_initial_distance(model, image_shape, distance):
    """Var = 2 / fan-in, so |omega_1 - omega_2|^2 = sum over kernels of size * 2 * 2 / fan-in = 4 * sum of channels."""
    params = shapes(model, image_shape)[0]["params"]
    channels = sum(p.shape[-1] for path, p in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel")
    np.testing.assert_allclose((4 * channels) ** 0.5, distance, rtol=1e-3)


def drawn_endpoints(model, image_shape, seed):
    """Two endpoints drawn leaf by leaf from the layers' own initialiser: compiling all of init takes a minute."""
    params = shapes(model, image_shape)[0]["params"]
    keys = iter(jax.random.split(jax.random.key(seed), 2 * len(jax.tree.leaves(params))))

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return np.stack([KAIMING_NORMAL(next(keys), leaf.shape) for _ in range(2)])
        return np.full((2, *leaf.shape), path[-1].key == "scale", np.float32)

    return jax.tree_util.tree_map_with_path(draw, params)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_drawn_cresnet_distance_and_cosine(seed):
    endpoints = drawn_endpoints(CResNet(10), (32, 32, 3), seed)

    @jax.jit
    def measures(endpoints):
        of_all = jsubspace.cosine_squared(endpoints, 0, 1, jsubspace.all_leaves)
        return jsubspace.distances(endpoints)[0, 1], jsubspace.cosine_squared(endpoints, 0, 1), of_all

    distance, cosine, of_all_leaves = measures(endpoints)
    np.testing.assert_allclose(distance, 56.4, rtol=0.01)
    assert cosine < 1e-4
    np.testing.assert_allclose(of_all_leaves, 0.11, atol=0.02)


@pytest.mark.slow  # As the test before, with 40 times the numbers.
def test_drawn_tiny_resnet18_distance():
    endpoints = drawn_endpoints(ResNet(200, 18, "tiny"), (64, 64, 3), 0)
    np.testing.assert_allclose(jsubspace.distances(endpoints)[0, 1], 141.4, rtol=0.01)


def test_a_networks_own_init_draws_so():
    """Every kernel's spread is that of the initialiser, independently in each endpoint; norms start at 1 and 0."""
    model = CResNet(10, depth=8)
    init_fn = jax.jit(lambda key: model.init(key, jnp.zeros((1, 4, 4, 3)), train=True)["params"])
    endpoints = [init_fn(jax.random.key(seed)) for seed in (0, 1)]

    def check(path, one, two):
        if path[-1].key == "kernel":
            fan_in = np.prod(one.shape[:-1])
            np.testing.assert_allclose(np.std(one - np.asarray(two)), (4 / fan_in) ** 0.5, rtol=0.15)
        else:
            np.testing.assert_array_equal(np.stack([one, two]), float(path[-1].key == "scale"))

    jax.tree_util.tree_map_with_path(check, *endpoints)


def test_kernels_are_normal_and_not_truncated():
    params = jax.jit(Conv(64, (3, 3)).init)(jax.random.key(0), np.zeros((1, 3, 3, 32), np.float32))["params"]
    draws = np.ravel(params["kernel"]) / np.sqrt(2 / (9 * 32))
    np.testing.assert_allclose([draws.mean(), draws.std(), (draws**4).mean()], [0, 1, 3], atol=0.15)
    assert np.abs(draws).max() > 3  # a truncated normal ends at 2.27 of these


# Numerics, against loops.


def convolve(x, kernel, stride=1):
    """Padding by half the kernel on every side, as PyTorch has it; SAME pads 0 and 1 at stride 2."""
    kh, kw, _, features = kernel.shape
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (kh // 2,) * 2, (kw // 2,) * 2, (0, 0)))
    height, width = ((x.shape[1] - kh) // stride + 1, (x.shape[2] - kw) // stride + 1)
    y = np.zeros((x.shape[0], height, width, features))
    for i in range(height):
        for j in range(width):
            patch = x[:, i * stride : i * stride + kh, j * stride : j * stride + kw]
            y[:, i, j] = np.einsum("nabc,abcf->nf", patch, np.asarray(kernel, np.float64))
    return y


def normalise(x, scale=1.0, bias=0.0):
    return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5) * np.asarray(scale) + np.asarray(bias)


def max_pool(x):
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    height, width = (x.shape[1] - 3) // 2 + 1, (x.shape[2] - 3) // 2 + 1
    rows = [[x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(width)] for i in range(height)]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)


def relu(x):
    return np.maximum(x, 0)


def randomise(params):
    """Values for a tree of arrays or shapes; BatchNorm at scale 1 and bias 0 would hide that one was forgotten."""

    def draw(leaf):
        mean, std = (1.0, 0.3) if leaf.ndim == 1 else (0.0, (2 / np.prod(leaf.shape[:-1])) ** 0.5)
        return jnp.asarray(RNG.normal(mean, std, leaf.shape), leaf.dtype)

    return jax.tree.map(draw, params)


@pytest.mark.parametrize(
    ("kernel_size", "stride", "side"), [(3, 1, 5), (3, 2, 6), (3, 2, 5), (7, 2, 8), (1, 2, 6), (1, 1, 4)]
)
def test_convolution(kernel_size, stride, side):
    x = RNG.normal(size=(2, side, side, 3)).astype(np.float32)
    conv = Conv(4, (kernel_size, kernel_size), (stride, stride))
    params = randomise(jax.eval_shape(conv.init, jax.random.key(0), x)["params"])
    assert set(params) == {"kernel"}
    expected = convolve(x, params["kernel"], stride)
    np.testing.assert_allclose(jax.jit(conv.apply)({"params": params}, x), expected, rtol=1e-4, atol=1e-5)


MAKERS = {
    "conv": Conv,
    "norm": functools.partial(BatchNorm, use_running_average=False),
    "dropout": functools.partial(nn.Dropout, 0.0, deterministic=True),
}


def layer(x, params, number, stride=1):
    norm = params[f"norm{number}"]
    return normalise(convolve(x, params[f"conv{number}"]["kernel"], stride), norm["scale"], norm["bias"])


def shortcut(x, params, stride):
    if "shortcut_conv" not in params:
        return x
    norm = params["shortcut_norm"]
    return normalise(convolve(x, params["shortcut_conv"]["kernel"], stride), norm["scale"], norm["bias"])


@pytest.mark.parametrize(("stride", "features"), [(1, 3), (2, 6), (1, 4)])
def test_basic_block(stride, features):
    x = RNG.normal(size=(2, 6, 6, 3)).astype(np.float32)
    block = BasicBlock(features=features, stride=stride, **MAKERS)
    params = randomise(jax.eval_shape(block.init, jax.random.key(0), x)["params"])
    assert ("shortcut_conv" in params) == (features != 3)
    y, _ = jax.jit(lambda params: block.apply({"params": params}, x, mutable=["batch_stats"]))(params)
    expected = layer(relu(layer(x, params, 1, stride)), params, 2) + shortcut(x, params, stride)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)
    assert np.min(y) < 0  # the last ReLU is not in the block


@pytest.mark.parametrize(("stride", "channels", "inner_width"), [(1, 8, 1), (2, 6, 1), (2, 8, 2)])
def test_bottleneck_block(stride, channels, inner_width):
    """The stride is on the 3 x 3 convolution, and only the inner channels are widened."""
    x = RNG.normal(size=(2, 6, 6, channels)).astype(np.float32)
    block = BottleneckBlock(features=2, stride=stride, inner_width=inner_width, **MAKERS)
    params = randomise(jax.eval_shape(block.init, jax.random.key(0), x)["params"])
    assert params["conv2"]["kernel"].shape == (3, 3, 2 * inner_width, 2 * inner_width)
    y, _ = jax.jit(lambda params: block.apply({"params": params}, x, mutable=["batch_stats"]))(params)
    inner = relu(layer(relu(layer(x, params, 1)), params, 2, stride))
    np.testing.assert_allclose(y, layer(inner, params, 3) + shortcut(x, params, stride), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stem", ["tiny", "imagenet"])
def test_whole_resnet(stem):
    model = ResNet(num_classes=3, depth=18, stem=stem, width=2)
    images = RNG.normal(size=(2, 32, 32, 3)).astype(np.float32)
    params = randomise(shapes(model, images.shape[1:])[0]["params"])
    apply = jax.jit(lambda params: model.apply({"params": params}, images, train=True, mutable=["batch_stats"])[0])
    outputs = apply(params)
    x = convolve(images, params["stem_conv"]["kernel"], 2 if stem == "imagenet" else 1)
    x = relu(normalise(x, params["stem_norm"]["scale"], params["stem_norm"]["bias"]))
    x = max_pool(x) if stem == "imagenet" else x
    for stage in range(4):
        for i in range(2):
            block, stride = params[f"stage{stage}_block{i}"], 2 if stage > 0 and i == 0 else 1
            before = layer(relu(layer(x, block, 1, stride)), block, 2) + shortcut(x, block, stride)
            x = relu(before)
    pooled = x.mean((1, 2))
    np.testing.assert_allclose(
        outputs.logits, pooled @ np.asarray(params["classifier"]["kernel"]), rtol=1e-2, atol=1e-3
    )
    features = pooled if stem == "imagenet" else before.reshape(2, -1)
    np.testing.assert_allclose(outputs.features, features, rtol=1e-2, atol=1e-3)


def test_mlp():
    model, images = MLP(3, widths=(5, 4)), RNG.normal(size=(2, 2, 2, 1)).astype(np.float32)
    params = randomise(shapes(model, images.shape[1:])[0]["params"])
    outputs = jax.jit(lambda params: model.apply({"params": params}, images, train=False))(params)
    x = images.reshape(2, 4)
    for name in ("hidden0", "hidden1"):
        before = np.asarray(x) @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])
        x = relu(before)
    np.testing.assert_allclose(outputs.features, before, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs.logits, x @ np.asarray(params["classifier"]["kernel"]), rtol=1e-4, atol=1e-5)


# Settings.


@pytest.mark.parametrize(
    "make",
    [functools.partial(CResNet, 3, 8, 4), functools.partial(ResNet, 3, 18, "tiny", 4), functools.partial(MLP, 3)],
)
def test_dropout_acts_in_training_alone(make):
    images = jnp.asarray(RNG.normal(size=(4, 8, 8, 3)), jnp.float32)
    model = make(dropout_rate=0.5)
    variables = randomise(shapes(make(), images.shape[1:])[0])
    train = jax.jit(
        lambda key: model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    )
    first, again, other = (train(jax.random.key(seed))[0].logits for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2
    evaluate = jax.jit(lambda variables, model: model.apply(variables, images, train=False).logits, static_argnums=1)
    np.testing.assert_array_equal(evaluate(variables, model), evaluate(variables, make()))


@pytest.mark.parametrize("model", [CResNet(5, 8, 4), ResNet(5, 18, "tiny", 4), MLP(5)], ids=lambda m: type(m).__name__)
def test_bfloat16_computes_narrow_and_answers_wide(model):
    images = jnp.asarray(RNG.normal(size=(8, 32, 32, 3)), jnp.float32)
    narrow = model.clone(dtype=jnp.bfloat16)
    variables = shapes(narrow, images.shape[1:])[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    variables = randomise(variables)
    run = jax.jit(lambda model, v: model.apply(v, images, train=True, mutable=["batch_stats"])[0], static_argnums=0)
    rough, exact = run(narrow, variables), run(model, variables)
    assert rough.features.dtype == jnp.bfloat16
    assert rough.logits.dtype == exact.logits.dtype == jnp.float32
    assert np.abs(rough.logits - exact.logits).max() < 0.15 * np.abs(exact.logits).max()
    assert np.any(rough.logits != rough.logits.astype(jnp.bfloat16))  # not rounded on the way out


def test_classifier_adds_up_in_float32():
    x, classifier = jnp.ones((1, 3000), jnp.bfloat16), Classifier(1, dtype=jnp.bfloat16)
    assert classifier.apply({"params": {"kernel": jnp.ones((3000, 1))}}, x) == 3000  # 2992 or 3008 in bfloat16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CResNet(10, depth=18), r"CResNet\(depth=18\): the depth is 6n \+ 2"),
        (lambda: CResNet(10, depth=2), r"CResNet\(depth=2\)"),
        (lambda: CResNet(10, width=0), r"CResNet\(width=0\): a layer has at least one channel"),
        (lambda: ResNet(10, depth=20), r"ResNet\(depth=20\): the depth is one of \[10, 18, 34, 50, 101\]"),
        (lambda: ResNet(10, stem="cifar"), r"""ResNet\(stem='cifar'\): the stem is "imagenet" or "tiny"."""),
        (lambda: ResNet(10, width=0), r"width=0, inner_width=1\): a layer has at least one channel"),
        (lambda: ResNet(10, depth=18, inner_width=2), r"only the bottlenecks of depth 50 and more"),
    ],
)
def test_impossible_networks(make, message):
    with pytest.raises(ValueError, match=message):
        make()
