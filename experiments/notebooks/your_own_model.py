# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own model
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jsubspace/jsubspace/blob/main/experiments/notebooks/your_own_model.ipynb)
#
# jsubspace takes any network that is a function of a tree of arrays, and leaves the training loop to you. Below, one loop of a dozen lines
# trains a line of networks in Flax linen, Flax nnx and Equinox, from a network that was trained before, and with BatchNorm.
#
# Two functions are all that it needs to know of a network:
#
# - `init_fn(key)`, which returns the tree of one freshly initialised network, leaves `[*s]`;
# - `loss_fn(network, *batch)`, the ordinary loss of one network.
#
# The endpoints are one tree of the same structure, with leaves `[m, *s]`.

# %% [markdown]
# ## Install
#
# Where jsubspace is installed already, this cell does nothing.

# %%
import importlib.util
import shutil
import subprocess
import sys

if importlib.util.find_spec("jsubspace") is None:
    chip = "cuda," if shutil.which("nvidia-smi") else "tpu," if importlib.util.find_spec("libtpu") else ""
    package = f"jsubspace[{chip}demo] @ git+https://github.com/jsubspace/jsubspace"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package, "equinox"], check=True)

# %%
import equinox
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import jsubspace

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.images))
images = jnp.asarray((digits.images / 16 - 0.305) / 0.376, jnp.float32).reshape(-1, 64)
labels = jnp.asarray(digits.target)
x_test, y_test = images[order[:360]], labels[order[:360]]
x_train, y_train = images[order[360:]], labels[order[360:]]

# %% [markdown]
# ## One loop for all of them
#
# `value_and_grad` draws $\alpha$ and differentiates the network at $P(\alpha)$; its gradients look like the endpoints and go
# into any optax optimizer. The line that differs from the loop you have is the one with `grad_fn`.


# %%
def train(key, endpoints, loss_fn, subspace=None, beta=1.0, num_steps=300, dropout=False):
    """The trained endpoints, leaves ``[m, *s]``. With dropout, the loss also gets a fresh key in every step."""
    grad_fn = jsubspace.value_and_grad(loss_fn, subspace or jsubspace.Line(), beta=beta)
    optimizer = optax.sgd(optax.cosine_decay_schedule(0.1, num_steps), momentum=0.9)

    @jax.jit
    def step(endpoints, state, i):
        batch_key, grad_key, dropout_key = jax.random.split(jax.random.fold_in(key, i), 3)
        batch = jax.random.randint(batch_key, (128,), 0, len(x_train))
        keys = (dropout_key,) if dropout else ()
        (_, info), grads = grad_fn(grad_key, endpoints, x_train[batch], y_train[batch], *keys)
        updates, state = optimizer.update(grads, state, endpoints)
        return optax.apply_updates(endpoints, updates), state, info

    state = optimizer.init(endpoints)
    for i in range(num_steps):
        endpoints, state, info = step(endpoints, state, i)
    print(f"task loss of the last step {info.loss:.4f}")
    return endpoints


def cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def accuracy(logits):
    return jnp.mean(jnp.argmax(logits, axis=-1) == y_test)


def walk(endpoints, predict_fn):
    """Measures five networks on the line: accuracy, likelihood, calibration, ensembles, and whether the line connects its ends."""
    report = jsubspace.measure(predict_fn, endpoints, jsubspace.Line(), [(x_test, y_test)], num_points=5)
    print(report.table())


# %% [markdown]
# ## Flax linen
#
# A linen module is a function of its parameters already.


# %%
class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(128)(x))
        return nn.Dense(10)(x)


linen = Linen()


def init_linen(key):
    return linen.init(key, x_train[:1])["params"]


def apply_linen(network, x):
    return linen.apply({"params": network}, x)


def linen_loss(network, x, y):
    return cross_entropy(apply_linen(network, x), y)


endpoints = jsubspace.init_endpoints(jax.random.key(0), init_linen, jsubspace.Line())
endpoints = train(jax.random.key(1), endpoints, linen_loss)
walk(endpoints, apply_linen)

network = jsubspace.midpoint(endpoints)  # one network again, for linen.apply
assert accuracy(apply_linen(network, x_test)) > 0.95

# %% [markdown]
# ## Flax nnx
#
# An nnx module is a tree of arrays. If all its arrays are parameters, as here, it is the network itself. With BatchNorm or keys
# of Dropout it holds more, and is split first: see below.


# %%
class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 128, rngs=rngs)
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


def init_nnx(key):
    return Nnx(nnx.Rngs(key))


def apply_nnx(model, x):
    return model(x)


def nnx_loss(model, x, y):
    return cross_entropy(model(x), y)


endpoints = jsubspace.init_endpoints(jax.random.key(0), init_nnx, jsubspace.Line())
endpoints = train(jax.random.key(1), endpoints, nnx_loss)
walk(endpoints, apply_nnx)

model = jsubspace.midpoint(endpoints)  # an nnx module
assert accuracy(model(x_test)) > 0.95

# %% [markdown]
# ## Equinox
#
# An Equinox module is a tree of arrays and of other things, such as activation functions. `partition` separates them and
# `combine` joins them.


# %%
def make_mlp(key):
    return equinox.nn.MLP(64, 10, width_size=128, depth=1, key=key)


_, static = equinox.partition(make_mlp(jax.random.key(0)), equinox.is_inexact_array)


def init_equinox(key):
    return equinox.partition(make_mlp(key), equinox.is_inexact_array)[0]


def apply_equinox(network, x):
    return jax.vmap(equinox.combine(network, static))(x)


def equinox_loss(network, x, y):
    return cross_entropy(apply_equinox(network, x), y)


endpoints = jsubspace.init_endpoints(jax.random.key(0), init_equinox, jsubspace.Line())
endpoints = train(jax.random.key(1), endpoints, equinox_loss)
walk(endpoints, apply_equinox)

model = equinox.combine(jsubspace.midpoint(endpoints), static)  # an Equinox module
assert accuracy(jax.vmap(model)(x_test)) > 0.95

# %% [markdown]
# ## From a network that was trained before
#
# Standard training is the subspace with one endpoint, `Point()`. Two such networks take the place of yours.

# %%
first, second = (
    jsubspace.midpoint(
        train(
            jax.random.key(seed),
            jsubspace.init_endpoints(jax.random.key(seed), init_linen, jsubspace.Point()),
            linen_loss,
            jsubspace.Point(),
        )
    )
    for seed in (2, 3)
)

# %% [markdown]
# **One network.** `common_start=True` starts both endpoints from it, and every network on the line is accurate from the first step. The
# squared cosine is then 1 and the penalty's gradient vanishes, so the endpoints part slowly: the alphas make the first difference, and
# the penalty enlarges it by a factor a step. A larger beta makes that quicker.

# %%
endpoints = jsubspace.init_endpoints(jax.random.key(0), lambda key: first, jsubspace.Line(), common_start=True)
endpoints = train(jax.random.key(4), endpoints, linen_loss, beta=20.0)
walk(endpoints, apply_linen)

# %% [markdown]
# **Two networks.** Each is accurate, but the straight line between them is not: there is a barrier in the middle. Training the
# line removes it.

# %%
endpoints = jsubspace.stack([first, second])
walk(endpoints, apply_linen)
endpoints = train(jax.random.key(5), endpoints, linen_loss, num_steps=200)
walk(endpoints, apply_linen)

network = jsubspace.midpoint(endpoints)
assert accuracy(apply_linen(network, x_test)) > 0.95

# %% [markdown]
# Runs of this library are started from others by the config alone: `config.start.runs = "runs/a"` for one network, `"runs/a,runs/b"` for one
# an endpoint. With `config.optimizer.num_epochs = 0` they are only evaluated together, and with `config.subspace.name = "curve"`,
# `config.subspace.fixed_ends = True` and `config.penalty.beta = 0.0` the curve between them is trained while they stay as they are.
# A network in a safetensors file is read by `jsubspace.exchange.network_files.load`.
#
# ## With BatchNorm
#
# Running averages belong to one network: those of the endpoints say nothing about the network between them. So train by the
# statistics of the batch, keep none, and give every point that you evaluate its own, from a pass over training data.


# %%
class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        for _ in range(2):
            x = nn.Dense(128, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.0)(x))
        return nn.Dense(10)(x)


normalised = Normalised()


def init_normalised(key):
    return normalised.init(key, x_train[:1], train=True)["params"]


def normalised_loss(network, x, y):
    logits, _ = normalised.apply({"params": network}, x, train=True, mutable=["batch_stats"])
    return cross_entropy(logits, y)


def stats_fn(network, x):
    """The statistics of one batch: with momentum 0, the running averages are those of the last batch."""
    return normalised.apply({"params": network}, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]


def accuracy_with(network, stats):
    return accuracy(normalised.apply({"params": network, "batch_stats": stats}, x_test, train=False))


endpoints = jsubspace.init_endpoints(jax.random.key(0), init_normalised, jsubspace.Line())
endpoints = train(jax.random.key(1), endpoints, normalised_loss)
batches = [(x_train[i : i + 128],) for i in range(0, len(x_train), 128)]
end, middle = jsubspace.interpolate(endpoints, 0.0), jsubspace.midpoint(endpoints)
stats_of_end = jsubspace.reestimate_batch_stats(stats_fn, end, batches)
stats = jsubspace.reestimate_batch_stats(stats_fn, middle, batches)
print(f"end, with its own statistics       {accuracy_with(end, stats_of_end):.3f}")
print(f"midpoint, with those of the end    {accuracy_with(middle, stats_of_end):.3f}")
print(f"midpoint, with its own             {accuracy_with(middle, stats):.3f}")
assert accuracy_with(middle, stats) > 0.95

# %% [markdown]
# `measure` gives every point statistics of its own, in one pass over the training batches.


# %%
def predict_normalised(network, x, stats):
    return normalised.apply({"params": network, "batch_stats": stats}, x, train=False)


report = jsubspace.measure(
    predict_normalised,
    endpoints,
    jsubspace.Line(),
    [(x_test, y_test)],
    stats_fn=stats_fn,
    train_batches=batches,
    num_points=5,
)
print(report.table())

# %% [markdown]
# **In Flax nnx, with Dropout.** The parameters are the variables of the class `nnx.Param`. The statistics, of the class
# `nnx.BatchStat`, are in the rest, and the loss merges the two. Dropout gets its key in the call.


# %%
class NnxNormalised(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 128, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(128, momentum=0.0, rngs=rngs)
        self.dropout = nnx.Dropout(0.2)
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x, rngs=None):
        return self.head(self.dropout(nnx.relu(self.norm(self.hidden(x))), rngs=rngs))


graph, _, rest = nnx.split(NnxNormalised(nnx.Rngs(0)), nnx.Param, ...)


def init_nnx_normalised(key):
    return nnx.state(NnxNormalised(nnx.Rngs(key)), nnx.Param)


def nnx_normalised_loss(network, x, y, key):
    model = nnx.merge(graph, network, rest, copy=True)  # what it writes into the statistics is dropped with the copy
    return cross_entropy(model(x, rngs=nnx.Rngs(key)), y)


def nnx_stats_fn(network, x):
    model = nnx.merge(graph, network, rest, copy=True)
    model.dropout.deterministic = True  # the statistics are for the network without Dropout
    model(x)
    return nnx.state(model, nnx.BatchStat)


def predict_nnx_normalised(network, x, stats):
    model = nnx.merge(graph, network, stats, copy=True)
    model.eval()
    return model(x)


endpoints = jsubspace.init_endpoints(jax.random.key(0), init_nnx_normalised, jsubspace.Line())
endpoints = train(jax.random.key(1), endpoints, nnx_normalised_loss, dropout=True)
report = jsubspace.measure(
    predict_nnx_normalised,
    endpoints,
    jsubspace.Line(),
    [(x_test, y_test)],
    stats_fn=nnx_stats_fn,
    train_batches=batches,
    num_points=5,
)
print(report.table())
assert report.center.accuracy > 0.95

# %% [markdown]
# ## Where to go on
#
# - `docs/nnx_and_equinox.md`: Dropout, BatchNorm and tied weights in both frameworks, with several positions and devices.
# - Other subspaces: `jsubspace.Curve()`, `jsubspace.Simplex(3)`; pass the curve to `interpolate` and `midpoint` too.
# - `value_and_grad` has `layerwise=True` (an alpha per layer), `num_samples=` (several positions a step), and `axis_name=` (several
#   devices: one network's gradient travels, however many endpoints there are).
# - `jsubspace.per_endpoint(optimizer)` treats every endpoint as a network of its own. Clipping, masks, Muon, LARS and LAMB need it.
# - `first_tour.ipynb`: the library's own loop, with checkpoints, evaluation and export. `loss_plane.ipynb`: the barrier, drawn.
