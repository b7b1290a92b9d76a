"""A small GPT in Flax nnx for tests: causal attention, LayerNorm, and one table that embeds tokens and gives the logits."""

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import optax

VOCABULARY, LENGTH, WIDTH, HEADS, BLOCKS = 128, 16, 32, 4, 2


class Block(nnx.Module):
    """Attention to the tokens before, and a network for every token, each added to its input."""

    def __init__(self, rngs: nnx.Rngs):
        self.norms = nnx.List([nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(2)])
        self.attention = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.project = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.widen = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.narrow = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        by_head = self.attention(self.norms[0](x)).reshape(*x.shape[:-1], HEADS, -1)
        query, key, value = jnp.split(by_head, 3, axis=-1)
        # jax.nn.dot_product_attention would round the scores of float64 to float32.
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / key.shape[-1] ** 0.5
        is_before = jnp.tri(x.shape[-2], dtype=bool)
        attention = jax.nn.softmax(jnp.where(is_before, scores, -jnp.inf))
        x += self.project(jnp.einsum("nhqk,nkhd->nqhd", attention, value).reshape(x.shape))
        return x + self.narrow(nnx.gelu(self.widen(self.norms[1](x))))


class GPT(nnx.Module):
    """Tokens ``[n, length]`` to logits ``[n, length, VOCABULARY]`` of the tokens after them."""

    def __init__(self, rngs: nnx.Rngs):
        # nnx.Embed would compute in the dtype that its table is initialised in, whatever the dtype of the point is.
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (VOCABULARY, WIDTH)) / WIDTH**0.5)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (LENGTH, WIDTH)))
        self.blocks = nnx.List([Block(rngs) for _ in range(BLOCKS)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embedding[tokens] + self.positions[: tokens.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embedding.T


GRAPH, _, REST = nnx.split(nnx.eval_shape(lambda: GPT(nnx.Rngs(0))), nnx.Param, ...)


def init_fn(key: jax.Array) -> nnx.State:
    """The parameters of one network."""
    return nnx.state(GPT(nnx.Rngs(key)), nnx.Param)


def loss_fn(point: nnx.State, tokens: jax.Array) -> jax.Array:
    """The mean negative log-likelihood of every token after the first. Tokens are ``[n, length + 1]``."""
    logits = nnx.merge(GRAPH, point, REST)(tokens[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()
