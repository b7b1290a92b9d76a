"""What a run is made of."""

import dataclasses

import jax

from jsubspace.runs import build


def test_the_initialisation_is_traced_once(tiny_mlp):
    """The shapes of the state and the state itself come from one trace of the network."""
    run, traced = build.build(tiny_mlp), []
    network = run.problem.network

    def counted(key):
        traced.append(key)
        return network.init(key)

    problem = dataclasses.replace(run.problem, network=dataclasses.replace(network, init=counted))
    run = dataclasses.replace(run, problem=problem)
    shapes = run.state_shape
    count = len(traced)
    state = run.devices.run_once(run.init_state, shardings=run.shardings)
    assert len(traced) == count > 0
    assert jax.tree.map(lambda leaf: leaf.shape, state) == jax.tree.map(lambda leaf: leaf.shape, shapes)
