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
# # An Equinox network in the library's own loop
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jsubspace/jsubspace/blob/main/experiments/notebooks/equinox_digits.ipynb)
#
# A line of convolutional networks in Equinox is trained on scikit-learn's digits by `training.train`, beside standard training. The runs
# resume exactly after any interruption, and keep checkpoints, results and figures. It takes a minute on two CPU cores.
#
# `docs/equinox_digits.md` explains the steps, and the code is in `jsubspace/examples/equinox_digits.py`.

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
import pathlib

import matplotlib.pyplot as plt
import numpy as np

from jsubspace import export, program, training
from jsubspace.examples import equinox_digits, small_images
from jsubspace.exchange import network_files
from jsubspace.runs import results as run_results

program.log_ours_only(sys.stdout)
folder = pathlib.Path("runs/equinox")

# %% [markdown]
# ## Train a line, and one network
#
# Both make 30 epochs of 17 steps. The line has the two options of `docs/center.md`, by which its midpoint learns faster. Standard training is
# the subspace "point".

# %%
settings = equinox_digits.make_settings(num_epochs=30)
settings.log_every_steps = 170
results = training.train(equinox_digits.make_problem, settings, folder / "line")

# %%
settings.subspace.name, settings.subspace.pull_back, settings.subspace.spread_growth = "point", "plain", 0.0
standard = training.train(equinox_digits.make_problem, settings, folder / "standard")

# %%
print(run_results.table(results))
print(run_results.table(standard))

# %%
BLUE, ORANGE = "#0072B2", "#D55E00"
alphas = [row["alpha"] for row in results["points"]]
pairs = [row["mean_probability"] for row in results["ensembles"]]
figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for axes, score, label in zip(panels, ("accuracy", "nll"), ("test accuracy", "test NLL"), strict=True):
    axes.plot(alphas, [row[score] for row in results["points"]], "o-", color=BLUE, label="P(α)")
    axes.plot(
        alphas[: len(pairs)], [row[score] for row in pairs], "s--", color=ORANGE, label="ensemble of P(α) and P(1 − α)"
    )
    axes.axhline(standard["points"][0][score], color="black", linewidth=1, label="standard training")
    axes.set_xlabel("α")
    axes.set_ylabel(label)
panels[1].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## Take the midpoint along
#
# The file holds arrays, and the adapter of the problem calls them on new images.

# %%
file = folder / "midpoint.safetensors"
file.unlink(missing_ok=True)  # from the last time that this cell was run
export.export(folder / "line", file, problem=equinox_digits.make_problem)
network, facts = network_files.load(file)
x, y = small_images.digits().test
model = equinox_digits.make_problem(settings).network
accuracy = np.mean(np.argmax(model.apply(network["params"], x.reshape(-1, 1, 8, 8)), axis=-1) == y)
print({name: array.shape for name, array in network_files.flatten(network).items()})
print(f"test accuracy {accuracy:.4f}")
assert accuracy > 0.95
