"""What is no parameter never becomes a part of the endpoints, and the message says where the parameters are."""

import equinox
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import pytest

import jsubspace

LINE = jsubspace.Line()


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.dense(x))


class WithStream(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(3, 4, rngs=rngs)


class Equinox(equinox.Module):
    dense: equinox.nn.Linear
    norm: equinox.nn.BatchNorm

    def __init__(self, key):
        self.dense = equinox.nn.Linear(3, 4, key=key)
        self.norm = equinox.nn.BatchNorm(4, "examples", mode="batch")


class WithBool(equinox.Module):
    dense: equinox.nn.Linear
    dropout: equinox.nn.Dropout

    def __init__(self, key):
        self.dense = equinox.nn.Linear(3, 4, key=key)
        self.dropout = equinox.nn.Dropout(0.5)


class Tied(nnx.Module):
    def __init__(self, rngs):
        self.embed, self.unembed = nnx.Embed(5, 3, rngs=rngs), nnx.Embed(5, 3, rngs=rngs)
        self.unembed.embedding = self.embed.embedding


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x))


def parameters_of_equinox(model):
    return equinox.filter(model, equinox.is_inexact_array)


IN_NNX = r"nnx\.state\(model, nnx\.Param\) in Flax nnx"
IN_EQUINOX = r"equinox\.filter\(model, equinox\.is_inexact_array\) in Equinox"

REFUSED = {
    "a module of nnx": (lambda key: Nnx(nnx.Rngs(key)), rf"norm\.mean is a BatchStat and no parameter.*{IN_NNX}"),
    "its whole state": (lambda key: nnx.state(Nnx(nnx.Rngs(key))), rf"\['norm'\]\['mean'\] is a BatchStat.*{IN_NNX}"),
    "a subclass": (lambda key: {"mean": type("Ema", (nnx.BatchStat,), {})(jnp.ones(3))}, "is a Ema and no parameter"),
    "a cache": (lambda key: {"keys": nnx.Cache(jnp.ones(3))}, "is a Cache and no parameter"),
    "counter of a stream": (lambda key: WithStream(nnx.Rngs(key)), rf"rngs\.count.*uint32.*{IN_NNX} and {IN_EQUINOX}"),
    "a key": (lambda key: {"key": key, "kernel": jnp.ones(3)}, rf"'key'.*dtype key<.*>.*{IN_NNX} and {IN_EQUINOX}"),
    "a bool": (WithBool, rf"dropout\.inference has dtype bool.*{IN_EQUINOX}"),
    "a layer's first state": (
        lambda key: parameters_of_equinox(Equinox(key)),
        rf"norm\.batch_state_index is a StateIndex and no parameter.*{IN_EQUINOX}, of a model from equinox\.nn\.make_with_state",
    ),
    "a function": (
        lambda key: equinox.nn.MLP(2, 2, 4, 1, key=key),
        rf"\.activation is a custom_jvp and no array.*{IN_EQUINOX}",
    ),
    "a text": (lambda key: {"kernel": jnp.ones(3), "name": "x"}, r"\['name'\] is a str and no array"),
    "tied weights": (
        lambda key: Tied(nnx.Rngs(key)),
        rf"leaves \.embed\.embedding and \.unembed\.embedding are one variable.*one leaf of {IN_NNX}",
    ),
    "variables of linen": (
        lambda key: Linen().init(key, jnp.ones((2, 3))),
        r"linen's collection 'batch_stats' beside 'params'.*variables\[\"params\"\]",
    ),
}


@pytest.mark.parametrize("way", ["vmap", "map", "common start"])
@pytest.mark.parametrize(("init_fn", "message"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_where_endpoints_are_made(init_fn, message, way):
    key = jax.random.key(0, impl="rbg" if way == "map" else "threefry2x32")
    with pytest.raises(ValueError, match=message):
        jsubspace.init_endpoints(key, init_fn, LINE, common_start=way == "common start")


@pytest.mark.parametrize("name", ["a function", "a text", "tied weights"])
def test_it_is_refused_where_networks_are_stacked(name):
    init_fn, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        jsubspace.stack([init_fn(jax.random.key(0))] * 2)


def test_state_is_refused_where_endpoints_are_used():
    """Networks may also be stacked by hand."""
    endpoints = jsubspace.stack([Nnx(nnx.Rngs(0)), Nnx(nnx.Rngs(1))])
    x = jnp.ones((2, 3))
    for use in (
        lambda: jsubspace.midpoint(endpoints),
        lambda: jsubspace.value_and_grad(lambda model, x: model(x).sum(), LINE)(jax.random.key(0), endpoints, x),
        lambda: jsubspace.measure(lambda model, x: model(x), endpoints, LINE, [(x, jnp.zeros(2, int))]),
        lambda: jsubspace.unstack(endpoints),
    ):
        with pytest.raises(ValueError, match=r"norm\.mean is a BatchStat and no parameter"):
            use()


class Prior(nnx.Variable):
    """A kind of parameter of a user's own."""


ACCEPTED = {
    "parameters of nnx": (lambda key: nnx.state(Nnx(nnx.Rngs(key)), nnx.Param), 4),
    "variables of a user's own": (lambda key: {"kernel": Prior(jax.random.normal(key, (3, 4)))}, 1),
    "parameters of linen": (lambda key: {"params": Linen().init(key, jnp.ones((2, 3)))["params"]}, 4),
    "parameters of equinox": (lambda key: parameters_of_equinox(equinox.nn.make_with_state(Equinox)(key)[0]), 4),
    "one array in two places": (lambda key: dict.fromkeys("ab", jax.random.normal(key, (3, 4))), 2),
    "a dictionary with such a name": (lambda key: {"cache": {"kernel": jax.random.normal(key, (3, 4))}}, 1),
}


@pytest.mark.parametrize(("init_fn", "count"), ACCEPTED.values(), ids=ACCEPTED)
def test_parameters_are_accepted(init_fn, count):
    endpoints = jsubspace.init_endpoints(jax.random.key(0), init_fn, LINE)
    assert len(jax.tree.leaves(endpoints)) == count
    assert len(jsubspace.unstack(endpoints)) == 2
