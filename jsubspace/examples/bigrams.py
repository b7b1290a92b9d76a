"""A table of the bytes that follow each byte: what a language model must beat."""

import numpy as np


class Bigrams:
    """The smoothed probabilities of a byte after a byte, counted in a text.

    P(b | a) = (n(a, b) + k P(b)) / (n(a) + k), and P(b) = (n(b) + 1) / (n + 256).

    Args:
      text: bytes ``[n]``.
      k: how many counts the prior is worth.

    Example:
      >>> table = Bigrams(np.frombuffer(b"abababab", np.uint8), k=0.1)
      >>> bool(table.nll(np.array([[97, 98, 97]])) < 0.1)
      True
    """

    def __init__(self, text: np.ndarray, k: float):
        single = np.bincount(text, minlength=256) + 1.0
        pairs = np.bincount(256 * text[:-1].astype(int) + text[1:], minlength=256**2).reshape(256, 256)
        probability = pairs + k * single / single.sum()
        self.log_probability = np.log(probability / probability.sum(axis=1, keepdims=True))

    def nll(self, tokens: np.ndarray) -> float:
        """The mean negative log-likelihood of every byte after the first, in nats. Tokens are ``[n, t + 1]``."""
        return -float(self.log_probability[tokens[:, :-1], tokens[:, 1:]].mean())


def fitted(text: np.ndarray, validation: np.ndarray) -> Bigrams:
    """The table of a text, with the k of seven powers of ten that is best on validation tokens ``[n, t + 1]``."""
    return min((Bigrams(text, 10.0**power) for power in range(-3, 4)), key=lambda table: table.nll(validation))
