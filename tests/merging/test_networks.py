"""Networks that a user gives: every mistake has one message, and the results keep their places and dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jsubspace import tree
from jsubspace.errors import UsageError
from jsubspace.merging import networks

NETWORK = {"embed": np.ones((6, 4), np.float32), "head": {"kernel": np.ones((4, 3), np.float32)}}


def changed(**leaves):
    return {**NETWORK, **leaves}


def alone(kernel):
    return changed(head={"kernel": kernel})


BAD = {
    "one": ([NETWORK], r"1 network was given, but at least 2.*unstack"),
    "none": ((), r"0 networks were given"),
    "a network in the place of the list": (NETWORK, r"dictionary in which 'embed' is an array float32\[6, 4\].*single network"),
    "a text": ("runs/*", r"networks is 'runs/\*', but it must be a list"),
    "a leaf less": ([NETWORK, {"embed": NETWORK["embed"]}], r"network 1 .* lacks leaf \['head'\]\['kernel'\].* tie "),
    "another layer": ([NETWORK, changed(conv=np.ones(3))], r"it has leaf \['conv'\].*one architecture"),
    "a longer vocabulary": (
        [NETWORK, changed(embed=np.ones((7, 4), np.float32))],
        r"leaf \['embed'\] of soup: network 1 has the shape \[7, 4\], but in network 0 it is \[6, 4\]. Only the first axis",
    ),
    "other classes": ([NETWORK, alone(np.ones((4, 5), np.float32))], r"\['head'\]\['kernel'\].*Only the last axis"),
    "another width": ([NETWORK, alone(np.ones((5, 5), np.float32))], r"one architecture and width"),
    "another dtype": ([NETWORK, alone(np.ones((4, 3), np.float16))], r"\['kernel'\] .*is float16, but in network 0 .*float32"),
    "float64": ([alone(np.ones((4, 3)))] * 2, r"network 0 is float64, but jax computes in float32.*JAX_ENABLE_X64=1"),
    "counters": ([changed(step=np.int32(3))] * 2, r"leaf \['step'\] of soup: network 0 has dtype int32"),
    "no array": ([NETWORK, changed(embed="text")], r"leaf \['embed'\] of soup: network 1 is 'text'"),
    "nothing": ([NETWORK, None], r"soup: network 1 is None"),
    "NaN": ({"a": NETWORK, "b": alone(np.full((4, 3), np.nan, np.float32))}, r"\['kernel'\] of soup: b holds NaN"),
    "infinity": ([alone(np.full((4, 3), np.inf, np.float32)), NETWORK], r"network 0 holds NaN or an infinity"),
    "statistics in one": (
        [{"params": NETWORK, "batch_stats": {"mean": np.ones(3)}}, {"params": NETWORK}],
        r"network 0 has the running statistics \['batch_stats'\]\['mean'\], and network 1 has no running.*reestimate_batch_stats",
    ),
    "statistics in a flat file": ([{"bn.running_mean": np.ones(3)}] * 2, r"running statistics \['bn.running_mean'\]. Running"),
    "equal names": ({1: NETWORK, "1": NETWORK}, r"soup: two keys of networks are '1' as text"),
    "a cache": ([{"params": NETWORK, "cache": NETWORK}] * 2, r"soup: network 0: .*linen's collection 'cache'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_networks_that_do_not_fit_are_refused(case):
    given, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        networks.checked(given, "soup")


def test_an_origin_must_fit_the_networks():
    found = networks.checked([NETWORK, alone(np.zeros((4, 3), np.float32))], "soup")
    assert networks.checked_one(NETWORK, found, "the origin", "soup") is NETWORK
    with pytest.raises(UsageError, match=r"leaf \['embed'\] of soup: the origin has the shape \[2, 6, 4\]"):
        networks.checked_one(found.stacked(), found, "the origin", "soup")


def test_lists_tuples_and_dictionaries_are_taken():
    other = alone(np.zeros((4, 3), np.float32))
    for given in ([NETWORK, other], (NETWORK, other), {"network 0": NETWORK, "network 1": other}):
        found = networks.checked(given, "soup")
        assert found.names == ("network 0", "network 1")
        assert found.stacked()["head"]["kernel"][:, 0, 0].tolist() == [1, 0]


def test_a_network_that_stands_there_twice_is_allowed_and_warned_of():
    with pytest.warns(UserWarning, match="soup: network 0 and network 2 are the same arrays"):
        networks.checked([NETWORK, alone(np.zeros((4, 3), np.float32)), dict(NETWORK)], "soup")


def test_sharded_networks_are_stacked_where_they_are():
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("a", "b"))
    place = NamedSharding(mesh, PartitionSpec("a", "b"))
    one, two = (jax.device_put(jnp.full((4, 6), value), place) for value in (1.0, 2.0))
    stacked = networks.checked([{"w": one}, {"w": two}], "soup").stacked()
    mean = jax.jit(tree.contract)(stacked, jnp.array([0.5, 0.5]))["w"]
    assert mean.sharding.is_equivalent_to(place, 2)
    assert stacked["w"].sharding.shard_shape(stacked["w"].shape) == (2, 2, 3)
    assert mean.tolist() == np.full((4, 6), 1.5).tolist()


def test_half_precision_is_summed_in_float32(x64):
    """2048 + 1 is no float16, so a sum in float16 would lose every 1. float64 stays float64."""
    for dtype, tolerance in ((jnp.float16, 0), (jnp.float64, 1e-15)):
        values = [2048.0, 1.0, 1.0, 2.0]
        found = networks.checked([{"w": jnp.full(3, value, dtype)} for value in values], "soup")
        mean = tree.contract(found.stacked(), jnp.full(4, 0.25))["w"]
        assert mean.dtype == dtype
        np.testing.assert_allclose(mean, np.full(3, 513.0), rtol=tolerance)
