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
# # Reading a loss plane
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jsubspace/jsubspace/blob/main/experiments/notebooks/loss_plane.ipynb)
#
# Three networks $\omega_1, \omega_2, \omega_3$ of one architecture are three points in the space of weights, and through them goes one
# plane. Every point on it is a network too,
#
# $$\theta = w_1 \omega_1 + w_2 \omega_2 + w_3 \omega_3, \qquad w_1 + w_2 + w_3 = 1,$$
#
# and the test error of these networks, drawn over the plane, shows whether the three lie in one valley. Inside the triangle the
# weights are positive; outside one of them is negative. After figure 2 of Wortsman et al., *Learning Neural Network Subspaces*,
# 2021.

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

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm

from jsubspace import program, runs
from jsubspace.runs import recipes

program.log_ours_only(sys.stdout)
folder = pathlib.Path("runs/loss_plane")
folder.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A triangle that was trained
#
# A simplex with three endpoints is the triangle between them. `evaluation.plane_points` asks for a grid of so many points a side
# on its plane. The data are the handwritten digits that come with scikit-learn.


# %%
def make_config(subspace, num_epochs, **fields):
    config = recipes.digits_cresnet8(subspace, **fields)
    config.model.name = "mlp"
    config.model.depth = 2
    config.model.width = 128
    config.optimizer.num_epochs = num_epochs
    config.log_every_steps = 300
    config.evaluation.num_resamples = 100
    return config


config = make_config("simplex", num_epochs=100, num_endpoints=3)
config.evaluation.plane_points = 17
triangle = runs.train(config, folder / "triangle")

# %% [markdown]
# ## Three independent runs
#
# Standard training with three seeds. Their networks become the corners of a simplex on which nothing is trained.

# %%
for seed in range(3):
    config = make_config("point", num_epochs=20)
    config.seed = seed
    runs.train(config, folder / f"seed{seed}")

config = make_config("simplex", num_epochs=0, num_endpoints=3)
config.start.runs = ",".join(str(folder / f"seed{seed}") for seed in range(3))
config.evaluation.plane_points = 17
independent = runs.train(config, folder / "independent")

# %% [markdown]
# ## Both planes

# %%
names = [("trained triangle", triangle), ("three independent runs", independent)]
levels = [0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.7, 0.9]

figure, panels = plt.subplots(1, 2, figsize=(6.4, 3.3), layout="constrained")
for axes, (name, results) in zip(panels, names, strict=True):
    plane = results["plane"]
    error = np.clip(1 - np.array(plane["accuracy"]), levels[0], levels[-1])
    filled = axes.contourf(plane["x"], plane["y"], error, levels=levels, norm=LogNorm(), cmap="cividis")
    corners = np.array(plane["corners"])
    axes.plot(*corners[[0, 1, 2, 0]].T, color="white", linewidth=0.8)
    axes.plot(*corners.T, "o", color="white", markeredgecolor="black")
    axes.plot(*corners.mean(axis=0), "*", color="white", markeredgecolor="black", markersize=12)
    for number, corner in enumerate(corners, 1):
        axes.annotate(rf"$\omega_{number}$", corner, xytext=(6, 5), textcoords="offset points", color="white")
    axes.set_aspect("equal")
    axes.set_title(name, fontsize=10)
    axes.set_xlabel("L2 distance")
figure.colorbar(filled, ax=panels, label="test error", ticks=levels, format="%g")
plt.show()

# %%
scores = {}
for name, results in names:
    scores[name] = {row["name"]: row["accuracy"] for row in results["points"]}
    corners = ", ".join(f"{scores[name][f'corner {i}']:.3f}" for i in (1, 2, 3))
    cosine = results["endpoints"]["kernels"]["cosine_squared"][0][1]
    print(f"{name:<23} corners {corners}; center {scores[name]['center']:.3f}; squared cosine {cosine:.4f}")

assert scores["trained triangle"]["center"] > 0.95
assert scores["three independent runs"]["center"] < scores["trained triangle"]["center"] - 0.1

# %% [markdown]
# ## How to read them
#
# - **Axes.** Both are distances in the space of all parameters, so the triangle has its true shape: the first network is the origin, the second
#   lies on the horizontal axis, and the third above it. Colours are test errors on a logarithmic scale, the same in both panels.
# - **Corners** (dots) are the endpoints. All six are accurate, the independent ones even a little more: single networks do not
#   tell that the panels differ.
# - **The center** (star) is the mean of the three weights, the network that is used in the end. On the left it lies in the same
#   valley as the corners.
# - **The barrier.** On the right, every way between two corners that stays on the plane leads over a region of large error:
#   independent runs end in different valleys. Other ways, off the plane, may avoid it; a `Curve` between fixed ends finds one.
# - **Outside the triangle** the networks are extrapolated, and no training step ever saw them. On the left the valley reaches
#   a little beyond the edges.
# - **A plane is a slice.** It contains the three networks and says nothing about other directions.
#
# **BatchNorm.** Running averages belong to one network, and those of a corner are wrong everywhere else; with them, a barrier would
# be drawn where there is none. Here each grid point gets statistics of its own first, from a pass over the training data. This
# perceptron has no BatchNorm; the recipe's own network does, and its planes take some minutes on the CPU: delete the lines about
# `config.model` and choose another folder than `runs/loss_plane`.
#
# ## Where to go on
#
# - Of a finished run with three endpoints: `python -m jsubspace.evaluate --workdir=RUN --config.evaluation.plane_points=21`.
# - `jsubspace.evaluation.planes.plane` gives grid and weights for three networks of your own, from their distances.
# - `recipes.digits_cresnet8("curve")` has three endpoints too: the third is the bend, and the curve does not go through it.
# - `first_tour.ipynb`: a line in detail. `your_own_model.ipynb`: the barrier between two networks, and how training the line removes it.
