"""Which leaves the penalty sees, in the trees that people have."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jsubspace
from jsubspace import leaf_kinds, tree

KEY = jax.random.key(0)


def counted(endpoints, strip="/value"):
    """The names of the leaves that count."""
    found = leaf_kinds.kernels(endpoints)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/").removesuffix(strip)
        for path, counts in jax.tree_util.tree_leaves_with_path(found)
        if counts
    }


def started(init_fn):
    """The shapes of two endpoints."""
    return jax.eval_shape(lambda: jsubspace.init_endpoints(KEY, init_fn, 2))


def stacked(shapes, m=2):
    return jax.tree.map(lambda shape: jnp.zeros((m, *shape)), shapes, is_leaf=lambda node: isinstance(node, tuple))


def test_linen_also_scanned():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            x = nn.LayerNorm()(nn.Dense(5)(x))
            return x + nn.MultiHeadDotProductAttention(num_heads=1, name="attention")(x), None

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Embed(7, 5)(x)
            return nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()(x, None)[0]

    def init_fn(key):
        return Network().init(key, jnp.zeros((2, 4), int))["params"]

    names = counted(started(init_fn))
    assert names == {
        "Embed_0/embedding",
        "ScanBlock_0/Dense_0/kernel",
        *(f"ScanBlock_0/attention/{part}/kernel" for part in ("query", "key", "value", "out")),
    }


def test_nnx_modules_also_stacked():
    class Block(nnx.Module):
        def __init__(self, rngs):
            self.linear, self.ln_1 = nnx.Linear(4, 4, rngs=rngs), nnx.LayerNorm(4, rngs=rngs)

    @nnx.vmap(in_axes=0, out_axes=0)
    def blocks(key):
        return Block(nnx.Rngs(key))

    for module in (lambda key: Block(nnx.Rngs(key)), lambda key: blocks(jax.random.split(key, 3))):
        for network in (module, lambda key, module=module: nnx.state(module(key), nnx.Param)):
            assert counted(started(network)) == {"linear/kernel"}


def test_equinox_also_stacked():
    class Block(eqx.Module):
        conv: eqx.nn.Conv2d
        first: eqx.nn.LayerNorm  # A norm that is not called one.
        linear: eqx.nn.Linear

        def __init__(self, key):
            self.conv, self.first = eqx.nn.Conv2d(3, 4, 1, key=key), eqx.nn.LayerNorm((4, 4))
            self.linear = eqx.nn.Linear(4, 1, key=key)

    def network(key):
        return eqx.filter(Block(key), eqx.is_inexact_array)

    def scanned(key):
        return jax.vmap(network)(jax.random.split(key, 3))

    for init_fn in (network, scanned):
        endpoints = started(init_fn)
        assert counted(endpoints) == {"conv/weight", "linear/weight"}
        assert tree.same_structure(leaf_kinds.kernels(endpoints), endpoints)


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        pytest.param(
            {"layers": {"attention_norm": (6, 8), "ffn_norm": (6, 8), "wq": (6, 8, 8), "w_bias": (6, 8)},
             "tok_embeddings": (20, 8), "output": (8, 20)},
            {"layers/wq", "tok_embeddings", "output"}, id="Llama",
        ),
        pytest.param(
            {"decoder": {"layers": {"pre_self_attention_layer_norm": {"scale": (6, 8)}, "mlp": {"wi": {"kernel": (8, 6, 16)}}},
                         "decoder_norm": {"scale": (8,)}}, "token_embedder": {"embedding": (20, 8)}},
            {"decoder/layers/mlp/wi/kernel", "token_embedder/embedding"}, id="MaxText",
        ),
        pytest.param(
            {"stack/linear": {"w": (6, 8, 8), "b": (6, 8)}, "stack/layer_norm": {"offset": (6, 8), "scale": (6, 8)},
             "head": {"w": (8, 1), "b": (1,)}},
            {"stack/linear/w", "head/w"}, id="Haiku",
        ),
        pytest.param(
            {"pre_norm_block/linear": {"w": (8, 8), "b": (8,)}, "normalizing_flow/~/linear": {"w": (8, 8)},
             "block/layer_norm": {"weight": (4, 4)}},
            {"pre_norm_block/linear/w", "normalizing_flow/~/linear/w"}, id="Haiku's paths",
        ),
        pytest.param(
            {"wq": (12, 4, 4), "bq": (12, 4), "w1": (12, 4, 8), "b1": (12, 8), "norms": {"weight": (12, 4)}},
            {"wq", "w1"}, id="biases beside their kernels",
        ),
        pytest.param(
            {"dense": {"a": (8, 2), "b": (2, 8)}, "other": {"lora_A": (8, 2), "lora_B": (2, 8)}},
            {"dense/a", "dense/b", "other/lora_A", "other/lora_B"}, id="LoRA",
        ),
        pytest.param(
            {"cls": (1, 1, 8), "pos_embedding": (1, 9, 8), "blocks": [{"ls1": {"gamma": (3, 8)}, "qkv": (8, 24)}],
             "normal_flow": (8, 8), "BatchNorm_0": {"weight": (4, 4)}, "qkvBias": (3, 8), "RMSNorm_1": (2, 8)},
            {"pos_embedding", "blocks/0/qkv", "normal_flow"}, id="others",
        ),
    ],
)  # fmt: skip
def test_names_and_shapes(shapes, names):
    assert counted(stacked(shapes)) == names


def test_only_a_class_of_norms_is_one():
    """The class of the whole network may have the word in its name, and hold norms with any name."""

    class PreNormBlock(eqx.Module):
        first: eqx.nn.LayerNorm
        wq: jax.Array
        value: jax.Array

    def init_fn(key):
        return PreNormBlock(eqx.nn.LayerNorm((4, 4)), jax.random.normal(key, (4, 4)), jax.random.normal(key, (4, 2)))

    endpoints = started(init_fn)
    assert counted(endpoints, strip="") == {"wq", "value"}
    assert jsubspace.layers(endpoints).value == jsubspace.layers(endpoints).wq == ""


def test_the_harm_that_the_rule_prevents():
    """Norms of ones, stacked for a scan, would look like parallel endpoints."""

    def init_fn(key):
        return {"wq": jax.random.normal(key, (6, 16, 16)) / 4, "attention_norm": jnp.ones((6, 16))}

    @jax.jit
    def cosines():
        endpoints = jsubspace.init_endpoints(KEY, init_fn, 2)
        of_all = jsubspace.cosine_squared(endpoints, 0, 1, mask=jsubspace.all_leaves)
        return jsubspace.cosine_squared(endpoints, 0, 1), of_all

    of_kernels, of_all = cosines()
    assert of_kernels < 0.01
    assert of_all > 0.2


def test_a_warning_where_leaves_that_count_start_alike():
    """A leaf whose name says nothing is found by what it does to cos²."""

    def init_fn(key, name="frequencies"):
        return {"wq": jax.random.normal(key, (6, 16, 16)) / 4, name: jnp.ones((6, 16))}

    with pytest.warns(
        UserWarning, match=r"cos² of their kernels is 0\.\d+ for 1632 numbers.*\['frequencies'\] above all"
    ):
        jsubspace.init_endpoints(KEY, init_fn, 3)
    # No warning: the rule knows the name, all endpoints start alike on purpose, few numbers, or a compiled function.
    jsubspace.init_endpoints(KEY, lambda key: init_fn(key, "attention_norm"), 3)
    jsubspace.init_endpoints(KEY, init_fn, 3, common_start=True)
    jsubspace.init_endpoints(KEY, lambda key: {"kernel": 1 + jax.random.normal(key, (4, 4))}, 3)
    jax.jit(lambda key: jsubspace.init_endpoints(key, init_fn, 3))(KEY)


def test_a_description_adds_up():
    def init_fn(key):
        keys = jax.random.split(key, 3)
        return {
            "a": 1 + jax.random.normal(keys[0], (3, 4)),
            "b": jax.random.normal(keys[1], (5, 2)),
            "bias": jnp.ones(3),
        }

    endpoints = jax.jit(lambda: jsubspace.init_endpoints(KEY, init_fn, 3))()
    found = jsubspace.describe(endpoints)
    rows = {row.name: row for row in found.rows}
    assert found.cosine_squared == pytest.approx(float(jax.jit(jsubspace.mean_cosine_squared)(endpoints)), rel=1e-5)
    assert sum(row.share for row in found.rows if row.counts) == pytest.approx(1)
    assert rows["['bias']"].share is None
    assert [rows[name].shape for name in ("['a']", "['b']")] == [(3, 4), (5, 2)]
    # Leaf by leaf: a pair's inner product over one leaf times the whole inner product, over both squared norms.
    vectors = {name: np.asarray(endpoints[name], np.float64).reshape(3, -1) for name in "ab"}
    whole = np.concatenate([vectors["a"], vectors["b"]], axis=1)
    parts = [
        (vectors["a"][i] @ vectors["a"][j]) * (whole[i] @ whole[j]) / (whole[i] @ whole[i]) / (whole[j] @ whole[j])
        for i in range(3) for j in range(i)
    ]  # fmt: skip
    assert rows["['a']"].share == pytest.approx(np.mean(parts) / found.cosine_squared, rel=1e-5)
    assert "The penalty sees 22 of them, and their mean cos² is" in str(found)


def test_a_description_of_shapes_or_of_one_network():
    shapes = jax.eval_shape(lambda: stacked({"kernel": (3, 4), "bias": (4,)}))
    found = jsubspace.describe(shapes)
    assert (found.num_endpoints, found.cosine_squared) == (2, None)
    assert [row.counts for row in found.rows] == [False, True]
    assert jsubspace.describe({"kernel": jnp.ones((1, 3, 4))}).cosine_squared is None
    assert [row.counts for row in jsubspace.describe(shapes, mask=jsubspace.all_leaves).rows] == [True, True]
    with pytest.raises(ValueError, match="the mask has the structure"):
        jsubspace.describe(shapes, mask={"kernel": True})


def test_endpoints_of_zeros_and_of_explicit_meshes():
    nothing = jsubspace.describe({"kernel": jnp.zeros((3, 4, 4))})
    assert (nothing.cosine_squared, nothing.rows[0].share) == (0, None)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        place = jax.NamedSharding(mesh, jax.P(None, None, "x"))
        kernel = jax.device_put(jax.random.normal(KEY, (4, 3, 8)), place)
        cosine = jsubspace.describe({"kernel": kernel}).cosine_squared
    assert cosine == pytest.approx(jsubspace.describe({"kernel": np.asarray(kernel)}).cosine_squared, rel=1e-5)
