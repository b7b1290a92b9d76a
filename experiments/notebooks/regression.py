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
# # Regression with uncertainty
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jsubspace/jsubspace/blob/main/experiments/notebooks/regression.ipynb)
#
# Networks that return a Gaussian are trained on scikit-learn's diabetes data: 442 patients, ten numbers each. A line of networks is
# compared with independent networks, on ten random splits. Every network and every line makes the same number of steps. It takes
# some minutes on two CPU cores.
#
# `docs/regression.md` explains the steps, and the code is in `jsubspace/examples/diabetes.py`.

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

from jsubspace.examples import diabetes

# %% [markdown]
# ## Train everything
#
# Twelve settings: three numbers of steps, and four strengths of weight decay. For each of them, a line and five independent networks are
# trained on each of ten splits.

# %%
found = {}
for settings in diabetes.GRID:
    found[settings] = diabetes.compare(settings, num_splits=10)
    of_line, of_networks = (
        found[settings]["validation"][name]["nll"].mean() for name in ("midpoint of the line", "5 independent networks")
    )
    print(
        f"{settings.num_steps} steps, decay {settings.decay}: NLL on validation data, "
        f"midpoint {of_line:.3f}, five networks {of_networks:.3f}"
    )

# %% [markdown]
# ## With settings that validation data chose
#
# Each predictor gets its own settings: those with the lowest mean NLL on the validation parts of the ten splits. The table shows the
# test parts. Each number is a mean over splits, ± half of its 95 % t interval. The ten splits share patients, so these intervals are
# rather too short. RMSE and CRPS are in units of 75 points of the disease score. The last column is the difference of the NLL to five
# independent networks, split by split.

# %%
chosen = diabetes.chosen(found)
print(diabetes.table(found, chosen))

# %% [markdown]
# ## With the same, careless settings
#
# 800 steps with little weight decay are too many for 264 patients. Nobody looked at validation data.

# %%
careless = diabetes.Settings(num_steps=800, decay=0.1)
print(diabetes.table(found, dict.fromkeys(chosen, careless)))

# %%
COLOURS = {0.1: "#D55E00", 1.0: "#0072B2", 5.0: "#009E73", 10.0: "#CC79A7"}
SHOWN = ("one network", "midpoint of the line", "ensemble of its ends", "5 independent networks")
figure, panels = plt.subplots(1, len(SHOWN), figsize=(10, 3.2), layout="constrained", sharey=True)
for axes, name in zip(panels, SHOWN, strict=True):
    for decay, colour in COLOURS.items():
        of_decay = [settings for settings in diabetes.GRID if settings.decay == decay]
        nll = [found[settings]["test"][name]["nll"].mean() for settings in of_decay]
        axes.plot(range(3), nll, "o-", color=colour, label=f"decay {decay:g}")
    axes.set_title(name, fontsize=10)
    axes.set_xticks(range(3), [settings.num_steps for settings in of_decay])
    axes.set_xlabel("steps")
    axes.set_yscale("log")
    axes.set_yticks([1, 2, 5, 10, 100, 1000], ["1", "2", "5", "10", "100", "1000"])
    axes.minorticks_off()
panels[0].set_ylabel("NLL of test patients")
panels[0].legend(frameon=False, fontsize=8, loc="upper left")
plt.show()

# %% [markdown]
# Each dot is the mean of ten splits.

# %%
of_careless = {name: scores["nll"] for name, scores in found[careless]["test"].items()}
assert of_careless["midpoint of the line"].mean() < of_careless["5 independent networks"].mean()
best = {name: found[settings]["test"][name]["nll"].mean() for name, settings in chosen.items()}
assert np.ptp(list(best.values())) < 0.1
