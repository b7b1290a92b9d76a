"""A small GPT in Flax nnx: causal attention, LayerNorm, and one table that embeds tokens and gives the logits."""

import dataclasses
from typing import Any

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a GPT.

    Attributes:
      vocabulary: the number of tokens.
      length: the number of tokens that the network sees at most.
      width: of the embeddings.
      heads: of the attention in each block.
      blocks: the number of blocks.
    """

    vocabulary: int = 256
    length: int = 64
    width: int = 96
    heads: int = 4
    blocks: int = 3


class Block(nnx.Module):
    """Attention to the tokens before, and a network for every token, each added to its input."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        width = shape.width
        self.heads = shape.heads
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attention = nnx.Linear(width, 3 * width, rngs=rngs)
        self.project = nnx.Linear(width, width, rngs=rngs)
        self.widen = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Adds to the tokens ``[n, t, width]``."""
        by_head = self.attention(self.norms[0](x)).reshape(*x.shape[:-1], self.heads, -1)
        query, key, value = jnp.split(by_head, 3, axis=-1)
        # jax.nn.dot_product_attention would round the scores of float64 to float32.
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / key.shape[-1] ** 0.5
        is_before = jnp.tri(x.shape[-2], dtype=bool)
        attention = jax.nn.softmax(jnp.where(is_before, scores, -jnp.inf))
        x += self.project(jnp.einsum("nhqk,nkhd->nqhd", attention, value).reshape(x.shape))
        return x + self.narrow(nnx.gelu(self.widen(self.norms[1](x))))


class Module(nnx.Module):
    """Tokens ``[n, t]`` to logits ``[n, t, vocabulary]`` of the tokens after them."""

    def __init__(self, shape: Shape, rngs: nnx.Rngs):
        table = (shape.vocabulary, shape.width)
        # nnx.Embed would compute in the dtype that its table is initialised in, whatever the dtype of the point is.
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), table) / shape.width**0.5)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (shape.length, shape.width)))
        self.blocks = nnx.List([Block(shape, rngs) for _ in range(shape.blocks)])
        self.norm = nnx.LayerNorm(shape.width, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """The logits of the token after each token."""
        x = self.embedding[tokens] + self.positions[: tokens.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embedding.T


class GPT:
    """A GPT as functions of its parameters, which are one network of a subspace.

    Args:
      shape: its sizes.

    Example:
      >>> model = GPT(Shape(vocabulary=5, length=8, width=4, heads=2, blocks=1))
      >>> model.predict_fn(model.init_fn(jax.random.key(0)), jnp.zeros((3, 8), int)).shape
      (3, 8, 5)
    """

    def __init__(self, shape: Shape | None = None):
        self.shape = Shape() if shape is None else shape
        empty = nnx.eval_shape(lambda: Module(self.shape, nnx.Rngs(0)))
        parts: Any = nnx.split(empty, nnx.Param, ...)  # nnx's type says that there may be two parts alone.
        self._graph, _, self._rest = parts

    def init_fn(self, key: jax.Array) -> nnx.State:
        """The parameters of one network."""
        return nnx.state(Module(self.shape, nnx.Rngs(key)), nnx.Param)

    def predict_fn(self, point: nnx.State, tokens: jax.Array) -> jax.Array:
        """The logits ``[n, t, vocabulary]`` of the tokens after each of ``[n, t]``."""
        return nnx.merge(self._graph, point, self._rest)(tokens)

    def loss_fn(self, point: nnx.State, tokens: jax.Array) -> jax.Array:
        """The mean negative log-likelihood of every token after the first, in nats. Tokens are ``[n, t + 1]``."""
        logits = self.predict_fn(point, tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    def generate(
        self, point: nnx.State, key: jax.Array, prompt: jax.Array, num_tokens: int, temperature: float = 1.0
    ) -> jax.Array:
        """Tokens ``[num_tokens]`` that are drawn one after the other, after a prompt ``[t]`` of at least one token.

        The network sees the last ``shape.length`` tokens. The logits are divided by the temperature.

        Raises:
          ValueError: if the prompt is empty.
        """
        if not len(prompt):
            raise ValueError("the prompt is empty. Give at least one token, for example a line break.")
        length = self.shape.length
        prompt = jnp.asarray(prompt)[-length:]
        window = jnp.zeros(length, prompt.dtype).at[: len(prompt)].set(prompt)

        def step(carry: tuple[jax.Array, jax.Array], key: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            window, count = (
                carry  # The places from `count` on are empty. The attention looks back alone, so they do not matter.
            )
            logits = self.predict_fn(point, window[None])[0, count - 1]
            token = jax.random.categorical(key, logits / temperature).astype(window.dtype)
            is_full = count == length
            window = jnp.where(is_full, jnp.roll(window, -1), window)
            window = window.at[jnp.where(is_full, length - 1, count)].set(token)
            return (window, jnp.minimum(count + 1, length)), token

        _, tokens = jax.lax.scan(step, (window, jnp.asarray(len(prompt))), jax.random.split(key, num_tokens))
        return tokens
