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
# # Images that are none of the classes
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jsubspace/jsubspace/blob/main/experiments/notebooks/detection.ipynb)
#
# Networks are trained on scikit-learn's digits. Then they see patches of photographs and pieces of clothing, and the uncertainty of their
# predictions should show that these are no digits. A line of networks is compared with standard training and with two independent
# networks, over five seeds. It takes some minutes on two CPU cores.
#
# `docs/detection.md` explains the steps, and the code is in `jsubspace/examples/detection.py`.

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
import matplotlib.pyplot as plt
import numpy as np

from jsubspace.evaluation import bounds
from jsubspace.examples import detection, small_images

# %% [markdown]
# ## The images
#
# The photographs come with scikit-learn. Fashion-MNIST is measured too where it is prepared
# (`python -m jsubspace.data.prepare fashion_mnist`). All images have 8 x 8 pixels, and the same standardisation as the digits.

# %%
outside = {"photographs": small_images.photographs()}
if small_images.is_fashion_mnist_prepared():
    outside["Fashion-MNIST"] = small_images.fashion_mnist()
print({name: images.shape for name, images in outside.items()})

# %% [markdown]
# ## Train and measure
#
# For each of five seeds: a line, and two independent networks with as many steps each.

# %%
found = [detection.compare(seed, outside) for seed in range(5)]
for name in outside:
    print(f"\nDigits against {name}: means of five seeds, ± half of the 95 % t interval\n")
    print(detection.table([rows[name] for rows in found]))

# %%
COLOURS = ("#D55E00", "#0072B2", "#56B4E9", "#009E73", "#CC79A7")
figure, panels = plt.subplots(
    1, len(outside), figsize=(4.6 * len(outside), 3.0), layout="constrained", squeeze=False, sharey=True
)
for axes, name in zip(panels[0], outside, strict=True):
    predictors = list(found[0][name])
    for place, (predictor, colour) in enumerate(zip(predictors, COLOURS, strict=True)):
        areas = [rows[name][predictor].detection["entropy"].auroc for rows in found]
        low, high = bounds.of_runs(areas)
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot(areas, [place] * len(areas), "o", color=colour, markersize=4, alpha=0.5)
        axes.plot(np.mean(areas), place, "D", color=colour)
    axes.set_title(f"digits against {name}", fontsize=10)
    axes.set_xlabel("AUROC of the entropy")
    axes.set_yticks(range(len(predictors)), predictors)
panels[0][0].invert_yaxis()
plt.show()

# %% [markdown]
# A dot is a seed, a diamond is the mean, and the bar is its 95 % t interval.

# %%
for rows in found:
    assert min(row.scores["accuracy"] for row in rows["photographs"].values()) > 0.94
    assert min(row.detection["entropy"].auroc for row in rows["photographs"].values()) > 0.85
