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
# # Networks that you have already
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jsubspace/jsubspace/blob/main/experiments/notebooks/checkpoints.ipynb)
#
# Checkpoints of a run, and fine-tunings of one network, can be averaged. Sometimes the average is better than every one of them. We average
# both kinds, measure what was gained, and save one network. The networks read handwritten
# digits, and 30 % of their training labels are random. It takes seconds on the CPU.
#
# `docs/existing_networks.md`, `docs/averaged_checkpoints.md` and `docs/soups.md` explain the steps.

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
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jsubspace
from jsubspace.examples import mlp, small_images

digits = small_images.digits()
x, y = map(jnp.asarray, digits.train)
rng = np.random.default_rng(0)
y = jnp.where(rng.random(len(y)) < 0.3, rng.integers(0, 10, len(y)), y)  # 30 % of the training labels are random
x_test, y_test = map(jnp.asarray, digits.test)
validation = [digits.validation]


def log_prob_fn(network, x, y):
    """One number per example. The functions below need no more of a network."""
    return -optax.softmax_cross_entropy_with_integer_labels(mlp.apply(network, x), y)


@jax.jit
def trained(network, key, rate):
    """100 steps of SGD at a constant rate, each with 4 digits."""

    def step(network, key):
        rows = jax.random.randint(key, (4,), 0, len(x))
        gradient = jax.grad(small_images.loss_fn)(network, x[rows], y[rows])
        return jax.tree.map(lambda leaf, g: leaf - rate * g, network, gradient), None

    return jax.lax.scan(step, network, jax.random.split(key, 100))[0]


@jax.jit
def test_nll(network):
    return -log_prob_fn(network, x_test, y_test).mean()


# %% [markdown]
# ## Checkpoints of one run
#
# The run has a constant rate, so its steps are noisy until the end. Every 100 steps it writes a checkpoint. The files could come from any program.

# %%
folder = pathlib.Path("run")
folder.mkdir(exist_ok=True)
network = small_images.init_fn(jax.random.key(0))
steps, of_checkpoints = [], []
for number in range(1, 11):
    network = trained(network, jax.random.fold_in(jax.random.key(1), number), 0.05)
    steps.append(100 * number)
    of_checkpoints.append(float(test_nll(network)))
    jsubspace.save(folder / f"checkpoint-{steps[-1]}.safetensors", network)
last = network

# %% [markdown]
# A weighted average of checkpoints stands for the end of a run with a decaying rate. `average_checkpoints` reads the files leaf by leaf.

# %%
files = [folder / f"checkpoint-{step}.safetensors" for step in steps[4:]]
of_averages = {}
for decay in ("linear", "cosine", "1-sqrt"):
    weights = jsubspace.checkpoint_weights(decay, steps[4:])
    average = jsubspace.average_checkpoints(files, weights, like=last)
    of_averages[decay] = float(test_nll(average))
    print(f"{decay:<7} weights {weights.round(2)}  NLL {of_averages[decay]:.4f}")
print(f"the last checkpoint alone                          NLL {of_checkpoints[-1]:.4f}")

# %% [markdown]
# ## Fine-tunings of one network
#
# Three trainings start from the same checkpoint, and see the digits in different orders. The first question is whether they can be averaged.
# `connected` looks at the loss between every two of them. A barrier is an excess of the loss on the way.

# %%
base = jsubspace.load(files[0], like=last)
networks = {f"order {seed}": trained(base, jax.random.key(seed), 0.05) for seed in (1, 2, 3)}
found = jsubspace.connected(log_prob_fn, networks, validation)
print(found)

# %% [markdown]
# Then a soup. "uniform" is the mean of all, "greedy" keeps a network only if the average does not become worse, and "fitted" learns weights. The
# choice is made with validation digits. A gain is estimated on folds that the choice has not seen.

# %%
soups = {how: jsubspace.soup(log_prob_fn, networks, validation, how=how) for how in ("uniform", "greedy", "fitted")}
for how, soup in soups.items():
    weights = {name: round(float(weight), 2) for name, weight in soup.weights.items()}
    print(f"{how}: {weights}\n  {soup.report.over_best}")

# %% [markdown]
# `fit_alpha` fits a position in any subspace, such as this line between two of them. A step costs one gradient of one network.

# %%
line, between = jsubspace.Line(), jsubspace.stack([networks["order 1"], networks["order 2"]])
best = jsubspace.fit_alpha(log_prob_fn, between, line, validation)
print(best.table())
way = jsubspace.measure(mlp.apply, between, line, validation, num_points=11)

# %%
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
figure, (above, below) = plt.subplots(2, 1, figsize=(5.2, 6), layout="constrained")
above.plot(steps, of_checkpoints, "o-", color=BLUE, label="checkpoint")
for (decay, value), colour, style in zip(of_averages.items(), (ORANGE, GREEN, "black"), ("-", "--", ":"), strict=True):
    above.axhline(value, color=colour, linestyle=style, label=f"average of the last 6, {decay}")
above.set_xlabel("step")
above.set_ylabel("test NLL (nats)")
above.set_title("one run", fontsize=10)
above.legend(frameon=False, fontsize=9)
alphas = [row.alpha for row in way.points]
low, high = np.transpose([row.intervals["nll"] for row in way.points])
below.fill_between(alphas, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95 % interval")
below.plot(alphas, [row.nll for row in way.points], "o-", color=BLUE, label="P(α)")
below.axvline(float(best.alpha), color=ORANGE, linestyle="--", label=f"fit_alpha: {float(best.alpha):.2f}")
below.set_xlabel("α, from order 1 to order 2")
below.set_ylabel("validation NLL (nats)")
below.set_title("between two fine-tunings", fontsize=10)
below.set_ylim(bottom=2 * min(low) - max(low))  # room for the legend
below.legend(frameon=False, fontsize=9, loc="lower center")
for axes in (above, below):
    axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## Save one network

# %%
jsubspace.save("soup.safetensors", soups["uniform"].network)
loaded = jsubspace.load("soup.safetensors", like=last)
print(f"NLL of the file's network on test digits: {float(test_nll(loaded)):.4f}")
assert max(of_averages.values()) < of_checkpoints[-1] + 0.05
assert test_nll(loaded) < max(float(test_nll(network)) for network in networks.values()) + 0.05

# %% [markdown]
# ## Where to go on
#
# - `docs/averaged_checkpoints.md`: other weights, merging files from the shell, and how far an average carries.
# - `docs/existing_networks.md`: what to do with networks that are not connected.
# - `docs/soups.md`: weights per layer, groups of examples, Model Stock, task arithmetic, and what the gains mean.
# - A network with BatchNorm needs statistics of its own after averaging: `jsubspace.reestimate_batch_stats`.
# - [fine_tuning](fine_tuning.ipynb): train a line around a pretrained network instead.
