"""Algorithm 1 as a gradient function, for any training loop.

The gradient is taken at the point theta = P(alpha), where it costs as much as for one network. It is averaged over
devices there, and only then pulled back to the m endpoints:

    d L / d omega_i = c_i(alpha) d loss / d theta + beta d cos^2(omega_j, omega_k) / d omega_i.

So devices exchange one network's gradient, whatever m is. The second term depends on the endpoints alone. Every device
holds them, so the second term is never communicated.
"""

from collections.abc import Sequence

import jax

from jsubspace import penalties
from jsubspace.algorithm import GradFn, gradient_at, random_gradient
from jsubspace.factors import Pairs
from jsubspace.objectives import Objective
from jsubspace.point_gradients import LossFn, PointFn
from jsubspace.samples import Batch
from jsubspace.shares import Shares
from jsubspace.subspaces import Subspace
from jsubspace.types import LayerNames, Params


def value_and_grad(
    loss_fn: LossFn,
    subspace: Subspace,
    *,
    beta: float | jax.Array = 1.0,
    layerwise: bool | LayerNames = False,
    num_samples: int = 1,
    batch_argnums: int | Sequence[int] | None = None,
    batch_argnames: str | Sequence[str] | None = None,
    all_pairs: bool = False,
    mask: penalties.Mask = None,
    origin: Params | None = None,
    products: Pairs | None = None,
    at_point: PointFn | None = None,
    sam_rho: float | jax.Array = 0.0,
    pull_back: str = "plain",
    spread: float | jax.Array = 1.0,
    has_aux: bool = False,
    pass_alpha: bool = False,
    axis_name: str | None = None,
) -> GradFn:
    """Makes the gradient function of Algorithm 1: sample alpha and a pair, differentiate, pull back.

    Args:
      loss_fn: ``(point, *args, **kwargs) -> loss``, a scalar, or ``(loss, aux)`` with has_aux. It is an ordinary loss of
        an ordinary network.
      subspace: the subspace that is trained.
      beta: strength of the penalty, at least 0. With 0, or one endpoint, no penalty is computed. It may also be a traced
        scalar, for a schedule or a vmap: call value_and_grad inside the step, as in ``beta=schedule(step)``. Nothing is
        compiled again when the scalar changes. Its value cannot be checked, and a traced 0 still computes the penalty.
      layerwise: whether to draw a separate alpha for every layer. True stands for the layers that `jsubspace.layers`
        finds, and a tree of layer names stands for itself. For layers that are stacked for a scan, pass
        ``jsubspace.layers(endpoints, scanned="blocks")``: each of them then has an alpha of its own.
      num_samples: S, the number of positions per step (appendix B). The arrays of the batch are cut into S equal parts along
        their leading axis: example i goes to part i modulo S. The loss is the mean over the parts. Typed PRNG keys are
        split, so that each part has a key of its own.
      batch_argnums, batch_argnames: the arguments that are the batch, by number (0 is the first after the endpoints) and by
        name. All other arguments are given whole to every position. Without them, every argument is the batch. With
        ``batch_argnums=()`` nothing is cut, so that each position sees the whole batch, at the cost of S steps.
      all_pairs: whether to take the penalty's exact mean over pairs instead of one random pair per step.
      mask: the leaves that the penalty sees: a tree of bools, a function ``endpoints -> tree``, or None for
        the kernels (`jsubspace.kernels`).
      origin: one network, leaves ``[*s]``, from which the endpoints were fine-tuned. The penalty then compares the task vectors
        omega_i - origin. Its gradient turns a task vector and does not lengthen it. For a large network, call value_and_grad inside
        the step and give the origin as an argument of the step, so that it is no constant of the compiled program.
      products: names of low-rank factors in the order of their product, as in ``("lora_a", "lora_b")``, or several such pairs.
        Positions and the penalty then act on the products: the point has sum_i c_i A_i B_i, in factors of rank m r
        (`jsubspace.as_products`, which midpoint, interpolate and measure need, too). By default they act on the factors.
      at_point: a function ``grad -> grad`` of the task's gradient at each point, before the gradient is pulled back. It gets the
        mean over all devices, whole, with the network's leaves ``[*s]``, and returns the same form. Clipping here treats
        it as one network's gradient. The function keeps no state, and the penalty's gradient does not pass it.
      sam_rho: rho of sharpness-aware minimisation (Foret et al., 2021) at the point. The gradient is taken a second time, at
        ``theta + rho g / |g|`` for the mean gradient g over all devices, and the second gradient is pulled back. A step takes
        two gradients, whatever m is. Loss and aux are reported at theta. It may be a traced scalar, as beta may.
      pull_back: "plain" for the paper's weights c(alpha), or "center" for weights with which the center moves like one network.
        With "plain", the center of m endpoints moves at 1/m of the learning rate of SGD (`jsubspace.rates`). It is meant for
        SGD: Adam, Lion and Muon move the center at nearly the whole rate anyway, and "center" would slow the differences down.
      spread: r, between 0 and 1. The position is (1 - r) center + r u for a uniform draw u. Let it grow from 0 to 1 in the first
        half of training, and the network learns before it learns under noise. It may be a traced scalar, as beta may.
      has_aux: whether loss_fn returns ``(loss, aux)``.
      pass_alpha: whether loss_fn is ``(point, alpha, *args, **kwargs)``. It then gets the position of its point, in the form
        that `jsubspace.sample_alpha` returns for one sample. A position may thus say which objective its network serves.
      axis_name: the device axis of a pmap or shard_map to average over. Give every device the same key.

    Returns:
      ``grad_fn(key, endpoints, *args, **kwargs) -> ((value, info), grads)``. ``value`` is loss + beta * penalty,
      ``info`` is an `Info`, and ``grads`` has the endpoints' leaves ``[m, *s]``. Any optax optimizer takes them if it is put
      through `jsubspace.per_endpoint`. Elementwise optimizers take them as they are.

    Raises:
      ValueError: here, if an option is out of range. ``grad_fn`` raises it if the endpoints do not fit the subspace, or the
        batch cannot be cut into num_samples equal parts.

    Example:
      >>> import jax, jsubspace, optax
      >>> import jax.numpy as jnp
      >>> def loss_fn(point, x, y):
      ...   return jnp.mean((x @ point["kernel"] - y) ** 2)
      >>> line = jsubspace.Line()
      >>> init_fn = lambda key: {"kernel": jax.random.normal(key, (3, 2))}
      >>> endpoints = jsubspace.init_endpoints(jax.random.key(0), init_fn, line)
      >>> grad_fn = value_and_grad(loss_fn, line, beta=1.0)
      >>> (value, info), grads = grad_fn(jax.random.key(1), endpoints, jnp.ones((8, 3)), jnp.ones((8, 2)))
      >>> endpoints = optax.apply_updates(endpoints, jax.tree.map(lambda g: -0.1 * g, grads))
      >>> grads["kernel"].shape
      (2, 3, 2)

    References:
      Wortsman et al., Learning Neural Network Subspaces, 2021, Algorithm 1 and equations 2 to 5.
    """
    objective = Objective(
        beta,
        layerwise,
        num_samples,
        all_pairs,
        mask,
        batch=Batch(batch_argnums, batch_argnames),
        at_point=at_point,
        sam_rho=sam_rho,
        origin=origin,
        pull_back=pull_back,
        spread=spread,
        products=products,
    )
    return random_gradient(loss_fn, subspace, objective, Shares(axis_name), has_aux=has_aux, pass_alpha=pass_alpha)


def value_and_grad_at(
    loss_fn: LossFn,
    subspace: Subspace,
    *,
    beta: float | jax.Array = 1.0,
    num_samples: int = 1,
    batch_argnums: int | Sequence[int] | None = None,
    batch_argnames: str | Sequence[str] | None = None,
    mask: penalties.Mask = None,
    origin: Params | None = None,
    products: Pairs | None = None,
    at_point: PointFn | None = None,
    sam_rho: float | jax.Array = 0.0,
    pull_back: str = "plain",
    has_aux: bool = False,
    pass_alpha: bool = False,
    axis_name: str | None = None,
) -> GradFn:
    """`value_and_grad` at positions of your choice instead of random ones.

    Returns:
      ``grad_fn(alpha, chosen, endpoints, *args, **kwargs) -> ((value, info), grads)``. ``alpha`` has the form that
      `jsubspace.sample_alpha` returns. The penalty is averaged over the pairs among the endpoints ``chosen``:
      ``(j, k)``, or all of them.
    """
    objective = Objective(
        beta,
        num_samples=num_samples,
        mask=mask,
        batch=Batch(batch_argnums, batch_argnames),
        at_point=at_point,
        sam_rho=sam_rho,
        origin=origin,
        pull_back=pull_back,
        products=products,
    )
    return gradient_at(loss_fn, subspace, objective, Shares(axis_name), has_aux=has_aux, pass_alpha=pass_alpha)
