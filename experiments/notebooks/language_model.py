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
# # A line of small language models
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/jsubspace/jsubspace/blob/main/experiments/notebooks/language_model.ipynb)
#
# We train a line of GPTs in Flax nnx on the source text of Python's standard library, byte by byte. The text is on the disk of every
# Python, so nothing is downloaded. Then we measure the likelihood along the line, and generate text from the midpoint. It takes some
# minutes on two CPU cores.
#
# `docs/language_models.md` explains the steps. The network, the text and the loop are in `jsubspace/examples`.

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

import jsubspace
from jsubspace.examples import bigrams, gpt, language_model, source_text

# %% [markdown]
# ## The text, and what must be beaten
#
# A fixed list of modules is divided by file. The text differs between versions of Python, so the numbers below belong to this one:

# %%
print(source_text.describe())
model = gpt.GPT()
length = model.shape.length
validation, test = (source_text.sequences(source_text.read(split), length, 512) for split in ("validation", "test"))
table = bigrams.fitted(source_text.read("train"), validation)
bigram_bits = language_model.bits(table.nll(test))
print(model.shape)
print(f"a table of byte pairs, of the same training text: {bigram_bits:.3f} bits per byte on test text")

# %% [markdown]
# ## Train
#
# First standard training, which is the subspace of one endpoint, and then a line. Both make 2,000 steps with the same optimizer: clipping by the
# norm of one network, and AdamW that decays kernels alone.


# %%
def report(step, loss):
    if step % 250 == 0:
        print(f"step {step:5d}: {language_model.bits(loss):.3f} bits per byte of training text")


standard = language_model.train(model, jsubspace.Point(), 2000, report=report)

# %%
line = language_model.train(model, jsubspace.Line(), 2000, report=report)
print(f"squared cosine of the ends: {float(jsubspace.cosine_squared(line, 0, 1)):.4f}")

# %% [markdown]
# ## Measure
#
# The test text is from files that were not trained on. The intervals draw whole pieces of text.

# %%
task = jsubspace.Tokens(token_bytes=1)
batches = language_model.batches(test)
of_standard = jsubspace.measure(model.predict_fn, standard, jsubspace.Point(), batches, task=task).center
measured = jsubspace.measure(model.predict_fn, line, jsubspace.Line(), batches, task=task, num_points=11)
print(measured.table())
print(f"standard training: {of_standard.bits_per_byte:.3f} bits per byte")

# %%
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"
alphas = [row.alpha for row in measured.points]
values = [row.bits_per_byte for row in measured.points]
low, high = zip(*(row.intervals["bits_per_byte"] for row in measured.points), strict=True)
pairs = [measured.ensemble(alpha, 1 - alpha).bits_per_byte for alpha in alphas[:5]]

figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
axes.fill_between(alphas, low, high, color=BLUE, alpha=0.12, linewidth=0, label="95 % interval")
axes.plot(alphas, values, "o-", color=BLUE, label="P(α)")
axes.plot(alphas[:5], pairs, "s--", color=ORANGE, label="ensemble of P(α) and P(1 − α)")
axes.axhline(of_standard.bits_per_byte, color="black", linewidth=1, label="standard training")
axes.axhline(bigram_bits, color=GREY, linestyle=":", label="table of byte pairs")
axes.set_xlabel("α")
axes.set_ylabel("bits per byte of test text")
axes.legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1.0, 0.68))
plt.show()

# %%
assert max(values) < bigram_bits - 0.3
assert measured.center.bits_per_byte < min(values[0], values[-1])

# %% [markdown]
# ## Generate from the midpoint
#
# The midpoint is one network. It has seen bytes alone, and learnt words and the layout of code from them.

# %%
midpoint = jsubspace.midpoint(line)
prompt = jnp.frombuffer(b"    def __init__(self", jnp.uint8)
generated = jax.jit(model.generate, static_argnums=3)(midpoint, jax.random.key(2), prompt, 400, 0.7)
print("    def __init__(self" + language_model.text_of(generated))
