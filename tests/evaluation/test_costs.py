"""What the evaluation of 21 points costs, in arithmetic of the traced program: hardly more than 21 forward passes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace import Classification, Line, Regression
from jsubspace.evaluation import networks
from jsubspace.evaluation.batches import padded
from jsubspace.evaluation.evaluator import Evaluator
from jsubspace.evaluation.survey import affine, survey

WIDTHS = (784, 256, 256, 10)
_FREE = {
    "reshape", "broadcast_in_dim", "squeeze", "slice", "transpose", "convert_element_type", "concatenate", "iota", "gather",
    "dynamic_slice", "copy", "expand_dims", "stop_gradient", "rev", "pad", "split",
}  # fmt: skip
"""Operations that move numbers and compute none."""


def flops(jaxpr):
    """The arithmetic of a program. A matrix product counts two operations per product, and everything else one per number."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [
            value for value in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr) if _is_jaxpr(value)
        ]
        if inner:
            parts = [flops(getattr(value, "jaxpr", value)) for value in inner]
            many = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            total += many * (max(parts) if equation.primitive.name == "cond" else sum(parts))
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            summed = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * summed * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name not in _FREE:
            sizes = (math.prod(value.aval.shape) for value in (*equation.invars, *equation.outvars))
            total += max(sizes, default=0)
    return total


def _is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def init_fn(key):
    keys = jax.random.split(key, len(WIDTHS) - 1)
    return [
        {"kernel": jax.random.normal(key, (i, o)) / i**0.5, "bias": jnp.zeros(o)}
        for key, i, o in zip(keys, WIDTHS, WIDTHS[1:], strict=False)
    ]


def predict_fn(point, x):
    for layer in point[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ point[-1]["kernel"] + point[-1]["bias"]


@pytest.mark.parametrize("task", [Classification(), Regression(scale=1.0)], ids=lambda task: type(task).__name__)
def test_points_cost_their_forward_passes(task):
    """All 21 points of a line, their ten ensembles and all scores: at most 1.1 times 21 forward passes (measured: 1.04)."""
    endpoints, plan = jsubspace.init_endpoints(jax.random.key(0), init_fn, Line()), survey(Line(), 21)
    x = np.zeros((128, WIDTHS[0]), np.float32)
    y = np.zeros(128, np.int32) if isinstance(task, Classification) else np.zeros((128, WIDTHS[-1]), np.float32)
    evaluator = Evaluator(networks.from_functions(predict_fn), task, plan)
    batch = next(padded([(x, y)], task))
    program = jax.make_jaxpr(evaluator._outcomes_of_batch)(endpoints, (jnp.asarray(plan.weights), None), batch)
    forward = flops(jax.make_jaxpr(predict_fn)(jsubspace.midpoint(endpoints), x).jaxpr)
    assert len(plan.weights) == 21
    assert forward == pytest.approx(2 * 128 * (784 * 256 + 256 * 256 + 2560), rel=0.01)
    assert 21 <= flops(program.jaxpr) / forward <= 21 * 1.10


def test_the_count_is_that_of_a_loop():
    one = jax.make_jaxpr(lambda x: x @ x)(jnp.ones((8, 8)))
    looped = jax.make_jaxpr(lambda x: jax.lax.map(lambda row: row @ row, x))(jnp.ones((5, 8, 8)))
    assert flops(one.jaxpr) == 2 * 8**3
    assert flops(looped.jaxpr) == 5 * 2 * 8**3


def test_other_points_of_a_compiled_evaluator_are_as_many():
    evaluator = Evaluator(networks.from_functions(predict_fn), Classification(), affine(np.eye(2)))
    assert evaluator.at(np.eye(2)[::-1]) is not evaluator
    for weights in (np.eye(2)[:1], np.eye(3), np.ones(2)):
        with pytest.raises(
            ValueError, match=r"Evaluator.at: the weights have the shape \[.*\], but the plan has \[2, 2\]"
        ):
            evaluator.at(weights)
