"""A small GPT for tests: the network of `jsubspace.examples.gpt` with a vocabulary and a width that compile quickly."""

from jsubspace.examples import gpt

VOCABULARY, LENGTH, WIDTH, HEADS, BLOCKS = 128, 16, 32, 4, 2

MODEL = gpt.GPT(gpt.Shape(VOCABULARY, LENGTH, WIDTH, HEADS, BLOCKS))
init_fn, loss_fn = MODEL.init_fn, MODEL.loss_fn
