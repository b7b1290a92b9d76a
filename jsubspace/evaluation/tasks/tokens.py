"""Sequences of tokens, and language models."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments
from jsubspace.evaluation import ensembles, metrics
from jsubspace.evaluation.tasks import checks
from jsubspace.evaluation.tasks.task import Outcomes, Task


@dataclasses.dataclass(frozen=True)
class Tokens(Task):
    """Integer labels ``[n, T]``, and networks that return logits ``[n, T, V]``: a language model, a masked one, a tagger.

    A batch is ``(*inputs, labels)``. ``labels[i, t]`` is the token that ``logits[i, t]`` predicts, so the labels of a language
    model are its inputs, shifted by one. A negative label does not count. The scores are

    - ``nll``: nats per token that counts, the sum over all sequences divided by the number of all tokens.
    - ``perplexity``: exp(nll).
    - ``bits_per_byte``: the sum in bits divided by the number of all bytes, if ``token_bytes`` is given.

    A sequence without a token that counts is refused where the host sees the labels: in measuring, and before a run trains on
    arrays in memory. In the training loss of a stream or of an augmentation such a sequence adds nothing (`losses`).

    A sequence is one example: intervals draw sequences, and never tokens. An ensemble predicts every token with the mean of
    its members' probabilities. Only the log-probability of each label is kept for every point, and never the logits.

    Args:
      token_bytes: the number of bytes of a token: a number (1 for a model of bytes), or one number for each of the V tokens.
      masked: whether the last array of a batch is a mask ``[n, T]``, behind the labels. A token counts where the mask is True
        or 1.
      tolerance: how much larger the NLL may be along a connector than at its ends.

    Raises:
      ValueError: if an option is something else.
    """

    token_bytes: float | Sequence[float] | None = None
    masked: bool = False
    tolerance: float = 0.01

    main: ClassVar[str] = "nll"

    def __post_init__(self) -> None:
        object.__setattr__(self, "masked", arguments.truth("masked", self.masked))
        object.__setattr__(self, "tolerance", checks.tolerance(self.tolerance))
        if self.token_bytes is not None and not _are_sizes(self.token_bytes):
            raise ValueError(
                f"token_bytes is {self.token_bytes!r}. It must be a positive number of bytes, or one number for every token of the "
                "vocabulary."
            )

    @property
    def higher_is_better(self) -> Mapping[str, bool]:
        """The names of the scores."""
        names = ("nll", "perplexity", *(() if self.token_bytes is None else ("bits_per_byte",)))
        return dict.fromkeys(names, False)

    @property
    def target_names(self) -> tuple[str, ...]:
        """The last arrays of a batch."""
        return ("labels", "mask") if self.masked else ("labels",)

    def check_targets(self, number: int, *targets: Any) -> None:
        """Raises ValueError if the labels are not integers ``[n, T]``, the mask does not fit, or a sequence has no token."""
        labels = targets[0]
        checks.check_integers(
            number,
            labels,
            2,
            "It must hold the labels [n, T], one integer per token. For one label per example use Classification.",
        )
        if self.masked:
            _check_mask(number, targets[1], np.shape(labels))
        empty = np.flatnonzero(~self._counts(*map(np.asarray, targets)).any(-1))
        if len(empty):
            raise ValueError(
                f"sequence {empty[0]} of batch {number} has no token that counts: its labels are negative or masked. Leave the "
                "sequence out. A smaller last batch needs no padding."
            )

    def check_range(self, number: int, outputs: Any, *targets: Any) -> None:
        """Raises ValueError if a label that counts is larger than every token. A subclass may take other outputs."""
        if type(self).reduce is Tokens.reduce:
            arrays = tuple(map(np.asarray, targets))
            checks.check_below(number, arrays[0][self._counts(*arrays)], outputs.shape[-1], "tokens")

    def reduce(self, outputs: Any, *targets: Any) -> tuple[jax.Array, jax.Array]:
        """The log-probability of every label ``[n, T]``, and whether a label that counts is no token ``[n]``.

        Raises:
          ValueError: if the outputs are not logits that fit the labels.
        """
        labels = targets[0]
        if getattr(outputs, "ndim", 0) == 3:
            checks.check_real(outputs, "predict_fn", "logits")
        if getattr(outputs, "ndim", 0) != 3 or outputs.shape[:2] != labels.shape or outputs.shape[2] < 2:
            raise ValueError(
                f"predict_fn returned {checks.in_words(outputs)} for labels of the shape {list(labels.shape)}. For tokens it must return "
                f"logits [n, T, V], here [{', '.join(map(str, labels.shape))}, V], of at least two tokens."
            )
        size, sizes = outputs.shape[-1], np.asarray(self.token_bytes)
        if sizes.ndim and sizes.size != size:
            raise ValueError(
                f"token_bytes has {sizes.size} numbers, but the logits are of {size} tokens. Give one number for every "
                "token."
            )
        wide = checks.wide(outputs)
        labels = metrics.wide_labels(labels)
        places = jnp.clip(labels, 0, size - 1)[..., None]
        log_probs = jnp.take_along_axis(wide, places, axis=-1)[..., 0] - jax.nn.logsumexp(wide, axis=-1)
        return log_probs, jnp.any(self._counts(*targets) & (labels >= size), axis=-1)

    def per_example(self, members: tuple[jax.Array, jax.Array], *targets: Any) -> dict[str, jax.Array]:
        """Sums over the tokens of every sequence ``[n]``, from what `reduce` returned for e members."""
        labels, counts = targets[0], self._counts(*targets)
        log_probs = ensembles.log_mean(members[0])
        sums = {
            "nll": -jnp.sum(jnp.where(counts, log_probs, 0), axis=-1),
            "tokens": jnp.sum(counts, axis=-1),
            "unknown": members[1][0],
        }
        if self.token_bytes is not None:
            sizes = jnp.asarray(self.token_bytes, log_probs.dtype)
            of_token = sizes[jnp.maximum(labels, 0)] if sizes.ndim else sizes
            sums["bytes"] = jnp.sum(jnp.where(counts, of_token, 0), axis=-1)
        return sums

    def losses(self, outputs: Any, *targets: Any) -> jax.Array:
        """The mean NLL of the tokens that count, for every sequence ``[n]``. It is NaN if a label is no token.

        A sequence without a token that counts has the loss 0, and its gradient is 0. It remains one of the n sequences that
        the training loss is the mean over, so that devices with equal parts of a batch have equal weights.
        """
        members = jax.tree.map(lambda leaf: leaf[None], self.reduce(outputs, *targets))
        sums = self.per_example(members, *targets)
        return jnp.where(sums["unknown"], jnp.nan, sums["nll"] / jnp.maximum(sums["tokens"], 1))

    def summary(self, means: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Ratios of the means, which are ratios of the sums over all sequences."""
        nll = means["nll"] / means["tokens"]
        scores = {"nll": nll, "perplexity": np.exp(nll)}
        if self.token_bytes is not None:
            scores["bits_per_byte"] = means["nll"] / means["bytes"] / math.log(2)
        return scores

    def check_outcomes(self, outcomes: Outcomes) -> None:
        """Raises ValueError if a label is larger than every token."""
        if np.any(outcomes.points["unknown"]):
            raise ValueError(
                "measure: a label is no token. The labels that count are integers below the number of logits, V."
            )

    def _counts(self, *targets: Any) -> Any:
        """Which tokens count, ``[n, T]``."""
        counts = targets[0] >= 0
        return counts & targets[1].astype(bool) if self.masked else counts


def _are_sizes(token_bytes: Any) -> bool:
    """Whether this is a positive number, or a list of numbers of at least 0 that are not all 0."""
    if not arguments.are_real_numbers(token_bytes):
        return False
    sizes = np.asarray(token_bytes)
    return sizes.ndim <= 1 and bool(np.isfinite(sizes).all() and sizes.min() >= 0 and sizes.max() > 0)


def _check_mask(number: int, mask: Any, shape: tuple[int, ...]) -> None:
    if np.shape(mask) != shape:
        raise ValueError(
            f"the mask of batch {number} has the shape {list(np.shape(mask))}, but the labels have {list(shape)}. The mask has one "
            "value per token."
        )
    if not np.isin(np.asarray(mask), (0, 1)).all():
        raise ValueError(
            f"the mask of batch {number} has values other than 0 and 1. A token counts or does not count, and has no weight."
        )
