"""The code of docs/language_models.md trains GPTs that beat a bigram table, and its parts are what they say."""

import itertools
import math

import guides
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace.examples import bigrams, gpt, language_model, source_text


@pytest.fixture(scope="module")
def guide():
    """The names of the page, after all of its code has run."""
    return guides.execute("language_models.md")


def test_the_whole_line_beats_a_bigram_table_on_files_that_it_has_not_seen(guide):
    """The table is counted on the same training bytes, and scores the same test bytes after the same byte before."""
    assert max(row.scores["nll"] for row in guide["report"].points) < guide["bigram_nll"] - 0.01
    assert guide["report"].center.nll < guide["bigram_nll"] - 0.05
    assert guide["report"].ensemble(0.0, 1.0).nll < np.mean([row.scores["nll"] for row in guide["report"].ends])
    assert float(jsubspace.cosine_squared(guide["endpoints"], 0, 1)) < 0.1


def test_the_report_has_the_loss_of_training(guide):
    point, tokens = jsubspace.midpoint(guide["endpoints"]), guide["tokens"]["test"]
    nll = float(jax.jit(guide["model"].loss_fn)(point, tokens))
    np.testing.assert_allclose(guide["report"].center.nll, nll, rtol=1e-4)
    np.testing.assert_allclose(guide["report"].center.bits_per_byte, language_model.bits(nll), rtol=1e-4)


def test_generation_is_the_network_s_own_sampling(guide):
    """Token by token with the whole text before, also where the text is longer than the network's window."""
    model, point = guide["model"], jsubspace.midpoint(guide["endpoints"])
    prompt, key = np.frombuffer(b"    def __init__(self):\n", np.uint8), jax.random.key(3)
    found = model.generate(point, key, jnp.asarray(prompt), 40, 1.5)
    predict, text = jax.jit(model.predict_fn), prompt.tolist()
    for step in jax.random.split(key, 40):
        window = np.zeros(32, np.uint8)
        last = text[-32:]
        window[: len(last)] = last
        logits = predict(point, window[None])[0, len(last) - 1]
        text.append(int(jax.random.categorical(step, logits / 1.5)))
    assert len(text) > 32
    assert len(set(text[32:])) > 10  # A text of spaces alone would show little.
    assert text[len(prompt) :] == found.tolist()


def test_the_network_does_not_look_ahead(guide):
    tokens = guide["tokens"]["test"][:4, :-1]
    changed = tokens.copy()
    changed[:, 20:] = 7
    point = jsubspace.midpoint(guide["endpoints"])
    predict = jax.jit(guide["model"].predict_fn)
    before, after = (predict(point, rows) for rows in (tokens, changed))
    np.testing.assert_array_equal(before[:, :20], after[:, :20])
    assert float(jnp.abs(before[:, 20:] - after[:, 20:]).max()) > 0.1


def test_an_empty_prompt_is_refused(guide):
    with pytest.raises(ValueError, match="the prompt is empty"):
        guide["model"].generate(guide["midpoint"], jax.random.key(0), jnp.zeros(0, int), 3)


def test_the_bigram_table_is_a_table_of_bigrams():
    """Against a loop, and every row is a distribution."""
    rng = np.random.default_rng(0)
    text, tokens = rng.integers(0, 5, 300).astype(np.uint8), rng.integers(0, 7, (4, 9))
    table, k = bigrams.Bigrams(text, 2.5), 2.5
    np.testing.assert_allclose(np.exp(table.log_probability).sum(axis=1), 1)
    total = 0.0
    for row in tokens.tolist():
        for a, b in itertools.pairwise(row):
            pairs = sum(x == a and y == b for x, y in zip(text[:-1].tolist(), text[1:].tolist(), strict=True))
            before, single = (text[:-1] == a).sum(), ((text == b).sum() + 1) / (len(text) + 256)
            total -= math.log((pairs + k * single) / (before + k))
    np.testing.assert_allclose(table.nll(tokens), total / tokens[:, 1:].size)


def test_the_smoothing_is_chosen_on_validation_text():
    """Text like the training text wants little smoothing, and text with new pairs wants much."""
    text = np.tile(np.arange(4), 50)
    like, unlike = np.array([[0, 1, 2, 3]]), np.array([[0, 2, 1, 3]])
    for tokens, other in ((like, unlike), (unlike, like)):
        assert bigrams.fitted(text, tokens).nll(tokens) < bigrams.fitted(text, other).nll(tokens) - 0.01


def test_splits_share_no_file_and_are_large():
    names = [name for files in source_text.FILES.values() for name in files]
    assert len(set(names)) == len(names)
    texts = {split: source_text.read(split) for split in source_text.FILES}
    assert len(texts["train"]) > 2_000_000
    assert min(map(len, texts.values())) > 100_000
    assert str(len(texts["test"])) in source_text.describe().replace(",", "")


def test_pieces_are_of_the_text_and_do_not_overlap():
    text = np.arange(1000) % 251
    pieces = source_text.sequences(text, 9, 100)
    np.testing.assert_array_equal(pieces.ravel(), text)
    np.testing.assert_array_equal(source_text.sequences(text, 4, 10)[3], text[300:305])
    (drawn,) = source_text.windows(50, 9)(jax.random.key(0), jnp.asarray(text))
    np.testing.assert_array_equal((drawn[:, 1:] - drawn[:, :-1]) % 251, np.ones((50, 9)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: source_text.sequences(np.zeros(99), 9, 10), "10 pieces of 10 bytes do not fit into a text of 99 bytes"),
        (lambda: source_text.read("tests"), "no split 'tests'. The splits are train, validation, test"),
        (lambda: language_model.train(gpt.GPT(gpt.Shape(blocks=1)), jsubspace.Line(), 20), "num_steps is 20. It must be a positive multiple of 50"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_python_without_source_text_is_told_so(tmp_path):
    with pytest.raises(ValueError, match=r"argparse.py cannot be read .* Use a Python"):
        source_text.read("train", tmp_path)
