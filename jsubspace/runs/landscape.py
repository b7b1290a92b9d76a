"""The loss around the points of a run: its sharpness, and its picture on a plane through three endpoints."""

import itertools
from typing import Any

import jax
import numpy as np

from jsubspace import leaf_kinds, penalties, preemption, tree
from jsubspace.evaluation import curvature, estimates, planes, survey
from jsubspace.evaluation.devices import SAME, SPLIT
from jsubspace.evaluation.survey import Survey
from jsubspace.evaluation.tasks import Classification
from jsubspace.runs import adapters
from jsubspace.runs.build import Run
from jsubspace.training.parallel import AXIS
from jsubspace.training.train_step import cross_entropy
from jsubspace.types import Endpoints, Params


def sharpness(run: Run, rows: Endpoints, plan: Survey, stats: Any) -> dict[str, Any]:
    """The largest eigenvalue of the Hessian at the midpoint and the ends, by name of the point.

    The function is the mean cross-entropy over the first ``sharpness_batches`` training batches, with each
    point's BatchNorm statistics held fixed. The images are not augmented, except that ImageNet's are cropped at random,
    with the same crops every time. The residual and the number of iterations of `curvature.largest_eigenvalue` stand
    beside the eigenvalue.

    Args:
      run: a run.
      rows: of an `Evaluator`, leaves ``[M, *s]``.
      plan: the points.
      stats: the points' BatchNorm statistics, leaves ``[p, ...]``, or None.
    """

    def product_of_batch(point: Params, stats: Any, vector: Params, batch: Any) -> Params:
        images = run.pipeline.preprocess(batch["image"])

        def loss_fn(point: Params) -> jax.Array:
            outputs = run.model.apply({"params": point, "batch_stats": stats or {}}, images, train=False)
            return cross_entropy(outputs.logits, batch["label"])

        return jax.lax.pmean(curvature.hessian_vector_product(loss_fn, point, vector), AXIS)

    compiled = run.devices.compile(product_of_batch, (SAME, SAME, SAME, SPLIT))
    num_batches = run.evaluation.sharpness_batches
    batches = list(itertools.islice(run.pipeline.train_batches(run.total_steps), num_batches))

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
    """Test accuracy and loss on the plane through three endpoints (figure 2 of the paper).

    Returns:
      ``corners`` ``[3, 2]``, ``x`` and ``y`` ``[g]``: coordinates in units of L2 distance over all parameters; ``accuracy``
      and ``nll`` ``[g, g]``, row by row. Every grid point has its own BatchNorm statistics.
    """
    distances = jax.jit(lambda endpoints: penalties.distances(endpoints, leaf_kinds.all_leaves))(endpoints)
    g = run.evaluation.plane_points
    plane = planes.plane(np.asarray(distances), g)
    evaluator = adapters.evaluator(run, Classification(), survey.affine(plane.weights))
    stats = adapters.batch_stats(run, evaluator, endpoints)
    means = estimates.summarize(adapters.on_test_data(run, evaluator, endpoints, stats).points)
    return {
        "corners": plane.corners.tolist(),
        "x": plane.x.tolist(),
        "y": plane.y.tolist(),
        "accuracy": means["accuracy"].reshape(g, g).tolist(),
        "nll": means["nll"].reshape(g, g).tolist(),
    }
