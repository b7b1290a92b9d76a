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
# # A first tour
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jsubspace/jsubspace/blob/main/experiments/notebooks/first_tour.ipynb)
#
# We train a *line* of neural networks in one run, walk along it, take an ensemble from it, and write its midpoint to a file
# for any other program. It takes less than a minute on the CPU and runs unchanged on a GPU or TPU.
#
# The line between two endpoints $\omega_1$ and $\omega_2$, which are networks of one architecture, is
#
# $$P(\alpha) = (1 - \alpha)\,\omega_1 + \alpha\,\omega_2, \qquad 0 \le \alpha \le 1.$$
#
# Each step draws an $\alpha$, takes the gradient of *one* network, the one at $P(\alpha)$, and hands it on to both endpoints.
# What is minimised is
#
# $$\mathbb{E}_{\alpha}\big[\ell(P(\alpha))\big] + \beta \cos^2(\omega_1, \omega_2),$$
#
# where the second term keeps the endpoints apart: without it, the line could shrink to a point. After Wortsman et al., *Learning
# Neural Network Subspaces*, 2021.

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
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from jsubspace import export, program, runs
from jsubspace.exchange import network_files
from jsubspace.runs import recipes
from jsubspace.runs import results as run_results
from jsubspace.storage import writer

program.log_ours_only(sys.stdout)
print(f"{len(jax.devices())} x {jax.devices()[0].device_kind}")

# %% [markdown]
# ## Train a line
#
# A config says everything about a run; `docs/settings.md` lists all fields, and a typo in a name is an error. The data are
# 1,437 handwritten digits for training and 360 for testing. They come with scikit-learn, so nothing is downloaded.
#
# The recipe's network is a small residual network. A multilayer perceptron is trained here because it compiles in a few seconds.

# %%
config = recipes.digits_cresnet8("line")
config.model.name = "mlp"
config.model.depth = 2  # hidden layers
config.model.width = 128
config.optimizer.num_epochs = 40
config.evaluation.num_points = 11
config.log_every_steps = 120

workdir = pathlib.Path("runs/first_tour")
results = runs.train(config, workdir)

# %% [markdown]
# The run's folder holds the config, checkpoints, metrics and results. Run the cell again and it returns the results at once;
# interrupt it first, and it goes on from the newest checkpoint to the same bits. With other settings, choose another folder.
#
# ## Walk along it
#
# Below, every row is one network of the line, and every row of the second table the ensemble of two: the mean of their
# probabilities. The TV distance says how differently the two predict.

# %%
print(run_results.table(results))

# %%
BLUE, ORANGE = "#0072B2", "#D55E00"
points = results["points"]
alphas = [row["alpha"] for row in points]
low, high = np.transpose([row["intervals"]["accuracy"] for row in points])
pairs = [row["mean_probability"]["accuracy"] for row in results["ensembles"]]
rows = writer.read_rows(workdir, "endpoints")
epochs = [row["epoch"] for row in rows]

figure, (left, right) = plt.subplots(1, 2, figsize=(6.8, 3.1), layout="constrained")
left.fill_between(alphas, low, high, color=BLUE, alpha=0.12, linewidth=0, label="95 % interval")
left.plot(alphas, [row["accuracy"] for row in points], "o-", color=BLUE, label="P(α)")
left.plot(alphas[: len(pairs)], pairs, "s--", color=ORANGE, label="ensemble of P(α) and P(1 − α)")
left.set_xlabel("α")
left.set_ylabel("test accuracy")
left.set_ylim(bottom=min(low) - 0.02)
left.legend(frameon=False, fontsize=8, loc="lower right")
right.plot(epochs, [row["l2"] for row in rows], color=BLUE)
right.set_xlabel("epoch")
right.set_ylabel("L2 distance of the endpoints", color=BLUE)
right.set_ylim(0, 1.1 * max(row["l2"] for row in rows))
twin = right.twinx()
twin.plot(epochs, [row["cosine_squared"] for row in rows], "--", color=ORANGE)
twin.set_ylabel("squared cosine", color=ORANGE)
twin.set_ylim(0, 1.1 * max(row["cosine_squared"] for row in rows))
plt.show()

# %% [markdown]
# Left: the whole line is accurate. The band is what another draw of 360 test digits could change, and it is wide: differences
# along the line mean little here. Right: all the while the endpoints are far apart, and nearly orthogonal.
#
# ## Take the midpoint along
#
# One network, with nothing of this library in it.

# %%
file = workdir / "midpoint.safetensors"
file.unlink(missing_ok=True)  # from the last time that this cell was run
facts = export.export(workdir, file)  # alpha="0.25" would be another point
network, _ = network_files.load(file)
print({name: array.shape for name, array in network_files.flatten(network).items()})
print(f"{file.stat().st_size / 1e3:.0f} kB, alpha = {facts['alpha']}")

# %% [markdown]
# It is a dictionary of arrays, so numpy is enough to predict with it.

# %%
digits = load_digits()
test = np.random.default_rng(0).permutation(len(digits.images))[:360]  # the data set's test split
params = network["params"]

x = np.round(digits.images[test] * (255 / 16)) / 255  # [360, 8, 8], pixels in [0, 1]
x = ((x - facts["mean"]) / facts["std"]).reshape(-1, 64)
for layer in ("hidden0", "hidden1"):
    x = np.maximum(x @ params[layer]["kernel"] + params[layer]["bias"], 0)
predicted = np.argmax(x @ params["classifier"]["kernel"], axis=1)

accuracy = np.mean(predicted == digits.target[test])
midpoint = next(row for row in points if row["name"] == results["midpoint"])
print(f"test accuracy {accuracy:.4f}; in the table, {midpoint['accuracy']:.4f}")
assert accuracy > 0.95
assert abs(accuracy - midpoint["accuracy"]) < 0.006  # two digits: a TPU or GPU may round otherwise

# %% [markdown]
# ## Where to go on
#
# - Delete the lines about `config.model`, train for the recipe's 60 epochs (a few minutes on the CPU), and compare with the recorded run in
#   the README. `recipes.digits_cresnet8("point")` is standard training, `"curve"` a Bezier curve, and `"simplex"` with
#   `num_endpoints=3` a triangle.
# - `your_own_model.ipynb`: the same in your own training loop, in Flax, Equinox, or from a network that you have.
# - `loss_plane.ipynb`: what the loss looks like around the endpoints.
# - In a terminal: `python -m jsubspace.main --config=configs/digits_cresnet8_line.py`.
