"""The loss around the points of a run: its sharpness, and its picture on a plane through three endpoints."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import leaf_kinds, penalties, preemption, tree
from jsubspace.evaluation import curvature, planes, survey
from jsubspace.evaluation.devices import SAME, SPLIT
from jsubspace.evaluation.survey import Survey
from jsubspace.runs import adapters
from jsubspace.runs.build import Run
from jsubspace.types import Endpoints, Params


def sharpness(run: Run, rows: Endpoints, plan: Survey, stats: Any) -> dict[str, Any]:
    """The largest eigenvalue of the Hessian at the midpoint and the ends, by name of the point.

    The function is the mean loss of the task, without label smoothing, over the first ``sharpness_batches`` training batches,
    with each point's BatchNorm statistics held fixed. The images are not augmented, except that ImageNet's are cropped at random,
    with the same crops every time. The residual and the number of iterations of `curvature.largest_eigenvalue` stand
    beside the eigenvalue.

    Args:
      run: a run.
      rows: of an `Evaluator`, leaves ``[M, *s]``.
      plan: the points.
      stats: the points' BatchNorm statistics, leaves ``[p, ...]``, or None.
    """
    problem, task = run.problem, run.problem.task.unregularized

    def product_of_batch(point: Params, stats: Any, vector: Params, batch: Any) -> Params:
        inputs, targets = problem.separated(problem.data.prepare(*batch))

        def loss_fn(point: Params) -> jax.Array:
            return jnp.mean(task.losses(problem.network.apply(point, *inputs, stats=stats), *targets))

        return run.shares.mean(curvature.hessian_vector_product(loss_fn, point, vector))

    compiled = run.devices.compile(product_of_batch, (SAME, SAME, SAME, SPLIT))
    num_batches = run.evaluation.sharpness_batches
    batches = [batch[:-1] for batch in itertools.islice(adapters.train_batches(run), num_batches)]

    def at(place: int) -> dict[str, Any]:
        point = run.devices.put(jax.jit(tree.contract)(rows, plan.weights[place]))
        of_point = run.devices.put(jax.tree.map(lambda leaf: leaf[place], stats))

        def product(vector: Params) -> Params:
            preemption.check()
            vector = run.devices.put(vector)
            total = run.devices.sum_over(lambda batch: compiled(point, of_point, vector, batch), batches)
            return jax.tree.map(lambda leaf: leaf / len(batches), total)

        found = curvature.largest_eigenvalue(product, point, jax.random.key(0))
        return {"eigenvalue": found.value, "residual": found.residual, "iterations": found.iterations}

    return {plan.positions[place].name: at(place) for place in dict.fromkeys((plan.center, *plan.ends))}


def loss_plane(run: Run, endpoints: Endpoints) -> dict[str, Any]:
    """Test scores on the plane through three endpoints (figure 2 of the paper).

    Returns:
      ``corners`` ``[3, 2]``, ``x`` and ``y`` ``[g]``: coordinates in units of L2 distance over all parameters; the task's main
      score and ``nll`` ``[g, g]``, row by row. Every grid point has its own BatchNorm statistics.
    """
    distances = jax.jit(lambda endpoints: penalties.distances(endpoints, leaf_kinds.all_leaves))(endpoints)
    g, task = run.evaluation.plane_points, run.problem.task
    plane = planes.plane(np.asarray(distances), g)
    evaluator = adapters.evaluator(run, task, survey.affine(plane.weights))
    stats = adapters.batch_stats(run, evaluator, endpoints)
    scores = task.scores(adapters.on_test_data(run, evaluator, endpoints, stats).points)
    drawn = [name for name in dict.fromkeys((task.main, "nll")) if name in task.higher_is_better]
    return {
        "corners": plane.corners.tolist(),
        "x": plane.x.tolist(),
        "y": plane.y.tolist(),
        **{name: np.reshape([row[name] for row in scores], (g, g)).tolist() for name in drawn},
    }
