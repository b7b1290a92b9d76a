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
# # Fine-tune a pretrained network as a line
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jsubspace/jsubspace/blob/main/experiments/notebooks/fine_tuning.ipynb)
#
# A network was pretrained on handwritten digits. Now it shall read mirrored digits, and there are 200 of them. We fine-tune a *line* of
# networks around it: first all weights, then low-rank factors (LoRA). Then we ask what the fine-tuning has forgotten. It takes seconds on the CPU.
#
# `docs/fine_tuning.md` explains the steps, and has a comparison over five seeds.

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
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jsubspace
from jsubspace.examples import mlp, small_images

# %% [markdown]
# ## The pretrained network
#
# A perceptron learns the digits as they are. It reads few of the mirrored digits.


# %%
def mirrored(images):
    return images.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64)


def loss(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def accuracy(logits, y):
    return float(np.mean(np.argmax(logits, axis=-1) == y))


def train(key, endpoints, loss_fn, subspace, x, y, num_steps=300, products=None):
    """The trained endpoints, leaves ``[m, *s]``. All steps are one program."""
    grad_fn = jsubspace.value_and_grad(loss_fn, subspace, products=products)
    optimizer = jsubspace.per_endpoint(optax.adam(1e-2))

    def step(state, key):
        rows = jax.random.randint(key, (64,), 0, len(x))
        (_, info), grads = grad_fn(key, state[0], x[rows], y[rows])
        updates, opt_state = optimizer.update(grads, state[1], state[0])
        return (optax.apply_updates(state[0], updates), opt_state), info.loss

    @jax.jit
    def run(endpoints, key):
        keys = jax.random.split(key, num_steps)
        return jax.lax.scan(step, (endpoints, optimizer.init(endpoints)), keys)

    (endpoints, _), losses = run(endpoints, key)
    print(f"training loss of the last 20 steps {losses[-20:].mean():.4f}")
    return endpoints


digits = small_images.digits()
x, y = map(jnp.asarray, digits.train)
x_test, y_test = map(jnp.asarray, digits.test)
x_few, y_few = mirrored(x[:200]), y[:200]

point = jsubspace.Point()  # standard training
base = jsubspace.init_endpoints(jax.random.key(0), small_images.init_fn, point)
base = jsubspace.midpoint(train(jax.random.key(1), base, small_images.loss_fn, point, x[200:], y[200:]))
print(f"digits {accuracy(mlp.apply(base, x_test), y_test):.3f}")
print(f"mirrored digits {accuracy(mlp.apply(base, mirrored(x_test)), y_test):.3f}")

# %% [markdown]
# ## Train differences from it
#
# The endpoints are the *differences* from the base, and they start as zeros. The loss adds the base. The penalty then keeps the two differences
# apart. Whole networks would not do, because two copies of one base have a squared cosine of 1.


# %%
def with_base(delta, x):
    return mlp.apply(jax.tree.map(jnp.add, base, delta), x)


line = jsubspace.Line()
deltas = jsubspace.deltas(base, line)
deltas = train(jax.random.key(2), deltas, lambda delta, x, y: loss(with_base(delta, x), y), line, x_few, y_few)
print(f"squared cosine of the differences: {float(jsubspace.cosine_squared(deltas, 0, 1)):.4f}")

# %% [markdown]
# ## What it learnt, and what it forgot
#
# `measure` walks along the line, once with mirrored digits and once with the digits of the pretraining.

# %%
learnt = jsubspace.measure(with_base, deltas, line, [(mirrored(x_test), y_test)], num_points=5)
kept = jsubspace.measure(with_base, deltas, line, [(x_test, y_test)], num_points=5)
print(learnt.table())

# %% [markdown]
# ## Train low-rank factors
#
# LoRA keeps the base, and adds a product A B of two thin matrices to one kernel. With `products=`, a point of the line has the mean of the
# *products*, and the penalty compares the products.


# %%
def with_factors(factors, x):
    layer = base["layer0"]
    hidden = x @ layer["kernel"] + (x @ factors["lora_a"]) @ factors["lora_b"] + layer["bias"]
    rest = {"layer0": base["layer1"], "layer1": base["layer2"]}
    return mlp.apply(rest, jax.nn.relu(hidden))


def init_factors(key):
    return {"lora_a": jax.random.normal(key, (64, 4)) / 8, "lora_b": jnp.zeros((4, 128))}


pair = ("lora_a", "lora_b")
factors = jsubspace.init_endpoints(jax.random.key(3), init_factors, line)
factors = train(
    jax.random.key(4), factors, lambda point, x, y: loss(with_factors(point, x), y), line, x_few, y_few, products=pair
)
products = jsubspace.as_products(factors, pair)  # endpoints that every function takes
low_rank = jsubspace.measure(with_factors, products, line, [(mirrored(x_test), y_test)], num_points=5)
low_rank_kept = jsubspace.measure(with_factors, products, line, [(x_test, y_test)], num_points=5)
sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (base, init_factors(jax.random.key(0)))]
print(f"numbers per endpoint: {sizes[0]:,} differences, or {sizes[1]:,} factors")
print(f"squared cosine of the products: {float(jsubspace.cosine_squared(factors, 0, 1, products=pair)):.4f}")

# %%
shown = {
    "all weights": (learnt, kept, "#0072B2", "o-"),
    "LoRA of rank 4": (low_rank, low_rank_kept, "#D55E00", "s--"),
}
figure, panels = plt.subplots(1, 2, figsize=(6, 3.1), layout="constrained")
for axes, place, title in zip(panels, (0, 1), ("learnt: mirrored digits", "kept: the digits before"), strict=True):
    for name, (*reports, colour, style) in shown.items():
        points = reports[place].points
        alphas = [row.alpha for row in points]
        low, high = np.transpose([row.intervals["accuracy"] for row in points])
        axes.fill_between(alphas, 100 * low, 100 * high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(alphas, [100 * row.accuracy for row in points], style, color=colour, label=name)
    before = accuracy(mlp.apply(base, (mirrored(x_test), x_test)[place]), y_test)
    axes.axhline(100 * before, color="black", linestyle=":", label="before the fine-tuning")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("α, from end to end")
    axes.set_ylabel("test accuracy (%)")
    axes.spines[["top", "right"]].set_visible(False)
handles, labels = panels[0].get_legend_handles_labels()
figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# The bands are 95 % intervals over the 360 test digits. All networks of the lines read mirrored digits, and all have forgotten much of what
# the base could do. This is one run: the bands know nothing of other seeds, and do not decide between the two ways.
#
# ## Save one network
#
# The base plus the midpoint of the differences is one ordinary network.

# %%
network = jax.tree.map(jnp.add, base, jsubspace.midpoint(deltas))
jsubspace.save("fine_tuned.safetensors", network)
loaded = jsubspace.load("fine_tuned.safetensors", like=network)
found = accuracy(mlp.apply(loaded, mirrored(x_test)), y_test)
print(f"accuracy of the file's network on mirrored digits: {found:.3f}")
assert found > 0.8
assert abs(found - learnt.center.accuracy) < 0.006  # two digits: a TPU or GPU may round otherwise
assert low_rank.center.accuracy > 0.8

# %% [markdown]
# ## Where to go on
#
# - `docs/fine_tuning.md`: a start from a file, an origin, LoRA of many layers, and what five seeds say.
# - [checkpoints](checkpoints.ipynb): what to do with several fine-tunings of one base.
