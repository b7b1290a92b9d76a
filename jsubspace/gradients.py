"""Algorithm 1 as a gradient function, for any training loop.

The gradient is taken at the point theta = P(alpha), where it costs as much as for one network. It is averaged over
devices there, and only then pulled back to the m endpoints:

    d L / d omega_i = c_i(alpha) d loss / d theta + beta d cos^2(omega_j, omega_k) / d omega_i.

So devices exchange one network's gradient, whatever m is. The second term depends on the endpoints alone. Every device
holds them, so the second term is never communicated.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jsubspace import arguments, penalties, points, subspaces, tree
from jsubspace.shares import Shares
from jsubspace.subspaces import Subspace
from jsubspace.types import Alpha, Endpoints, LayerNames, Params

LossFn = Callable[..., Any]
"""``(point, *args) -> loss`` or ``(loss, aux)``."""


class Info(NamedTuple):
    """The numbers of one gradient step.

    Attributes:
      loss: the task loss alone, the mean over the samples of alpha and over devices.
      penalty: cos^2 of the sampled pair, or its mean over all pairs, without the factor beta. It is zero if nothing is
        penalised (one endpoint, or beta = 0).
      alpha: the position(s) in the subspace, as drawn by `jsubspace.sample_alpha`.
      aux: the second result of the loss function, with a leading axis ``[num_samples]`` if there are several samples.
        It is this device's own and is not averaged over devices.
    """

    loss: jax.Array
    penalty: jax.Array
    alpha: Alpha
    aux: Any


GradFn = Callable[..., tuple[tuple[jax.Array, Info], Endpoints]]
"""``(key, endpoints, *args) -> ((value, info), grads)``, or ``(alpha, chosen, endpoints, *args)`` at given positions."""


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """The options of Algorithm 1.

    Attributes:
      beta: strength of the penalty, at least 0. With 0, or one endpoint, no penalty is computed.
      layerwise: whether every layer has an alpha of its own. True stands for the layers that `jsubspace.layers` finds,
        and a tree of layer names stands for itself.
      num_samples: S, the number of positions per step (appendix B of the paper).
      all_pairs: whether the penalty is the exact mean over pairs instead of one random pair per step.
      mask: the leaves that the penalty sees: a tree of bools, a function ``endpoints -> tree``, or None for the kernels
        (`jsubspace.kernels`).

    Raises:
      ValueError: if an option is out of range.
    """

    beta: float = 1.0
    layerwise: bool | LayerNames = False
    num_samples: int = 1
    all_pairs: bool = False
    mask: penalties.Mask = None

    def __post_init__(self) -> None:
        if isinstance(self.layerwise, np.bool_):
            object.__setattr__(self, "layerwise", bool(self.layerwise))
        object.__setattr__(self, "all_pairs", arguments.truth("all_pairs", self.all_pairs))
        object.__setattr__(self, "num_samples", arguments.integer("num_samples", self.num_samples))
        if not 0 <= self.beta < float("inf"):
            raise ValueError(
                f"beta is {self.beta}, but the penalty's strength is finite and at least 0. The value 0 switches it off."
            )
        if self.num_samples < 1:
            raise ValueError(f"num_samples is {self.num_samples}, but a step takes at least one sample of alpha.")

    def penalises(self, subspace: Subspace) -> bool:
        """Whether a penalty is computed for this subspace."""
        return self.beta > 0 and subspace.num_endpoints > 1


def value_and_grad(
    loss_fn: LossFn,
    subspace: Subspace,
    *,
    beta: float = 1.0,
    layerwise: bool | LayerNames = False,
    num_samples: int = 1,
    all_pairs: bool = False,
    mask: penalties.Mask = None,
    has_aux: bool = False,
    axis_name: str | None = None,
) -> GradFn:
    """Makes the gradient function of Algorithm 1: sample alpha and a pair, differentiate, pull back.

    Args:
      loss_fn: ``(point, *args) -> loss``, a scalar, or ``(loss, aux)`` with has_aux. It is an ordinary loss of an
        ordinary network.
      subspace: the subspace that is trained.
      beta: strength of the penalty, at least 0. With 0, or one endpoint, no penalty is computed.
      layerwise: whether to draw a separate alpha for every layer. True stands for the layers that `jsubspace.layers`
        finds, and a tree of layer names stands for itself.
      num_samples: S, the number of positions per step (appendix B). Every array in args is then part of the batch and
        is cut into S equal parts along its leading axis: example i goes to part i modulo S. The loss is the mean over
        the parts. Typed PRNG keys in args are split, so that each part has a key of its own. Anything that is neither
        part of the batch nor a key is given to loss_fn by a closure.
      all_pairs: whether to take the penalty's exact mean over pairs instead of one random pair per step.
      mask: the leaves that the penalty sees: a tree of bools, a function ``endpoints -> tree``, or None for
        the kernels (`jsubspace.kernels`).
      has_aux: whether loss_fn returns ``(loss, aux)``.
      axis_name: the device axis of a pmap or shard_map to average over. Give every device the same key.

    Returns:
      ``grad_fn(key, endpoints, *args) -> ((value, info), grads)``. ``value`` is loss + beta * penalty,
      ``info`` is an `Info`, and ``grads`` has the endpoints' leaves ``[m, *s]``. Any optax optimizer takes them if it is put
      through `jsubspace.per_endpoint`. Elementwise optimizers take them as they are.

    Raises:
      ValueError: here, if an option is out of range. ``grad_fn`` raises it if the endpoints do not fit the subspace, or the
        batch cannot be cut into num_samples equal parts.

    Example:
      >>> import optax
      >>> def loss_fn(point, x, y):
      ...   return jnp.mean((x @ point["kernel"] - y) ** 2)
      >>> line = points.Line()
      >>> endpoints = points.init_endpoints(jax.random.key(0), lambda k: {"kernel": jax.random.normal(k, (3, 2))}, line)
      >>> grad_fn = value_and_grad(loss_fn, line, beta=1.0)
      >>> (value, info), grads = grad_fn(jax.random.key(1), endpoints, jnp.ones((8, 3)), jnp.ones((8, 2)))
      >>> endpoints = optax.apply_updates(endpoints, jax.tree.map(lambda g: -0.1 * g, grads))
      >>> grads["kernel"].shape
      (2, 3, 2)

    References:
      Wortsman et al., Learning Neural Network Subspaces, 2021, Algorithm 1 and equations 2 to 5.
    """
    objective = Objective(beta, layerwise, num_samples, all_pairs, mask)
    return random_gradient(loss_fn, subspace, objective, Shares(axis_name), has_aux=has_aux)


def value_and_grad_at(
    loss_fn: LossFn,
    subspace: Subspace,
    *,
    beta: float = 1.0,
    num_samples: int = 1,
    mask: penalties.Mask = None,
    has_aux: bool = False,
    axis_name: str | None = None,
) -> GradFn:
    """`value_and_grad` at positions of your choice instead of random ones.

    Returns:
      ``grad_fn(alpha, chosen, endpoints, *args) -> ((value, info), grads)``. ``alpha`` has the form that
      `jsubspace.sample_alpha` returns. The penalty is averaged over the pairs among the endpoints ``chosen``:
      ``(j, k)``, or all of them.
    """
    objective = Objective(beta, num_samples=num_samples, mask=mask)
    return gradient_at(loss_fn, subspace, objective, Shares(axis_name), has_aux=has_aux)


def random_gradient(
    loss_fn: LossFn, subspace: Subspace, objective: Objective, shares: Shares, *, has_aux: bool = False
) -> GradFn:
    """`value_and_grad` for endpoints that lie on the devices as ``shares`` says.

    If the endpoints are divided among devices, ``endpoints`` and ``grads`` are this device's shares.
    """
    grad_at = gradient_at(loss_fn, subspaces.checked(subspace), objective, shares, has_aux=has_aux)
    num_samples, layerwise = objective.num_samples, objective.layerwise
    samples_pair = objective.penalises(subspace) and not objective.all_pairs

    def grad_fn(key: jax.Array, endpoints: Endpoints, *args: Any) -> tuple[tuple[jax.Array, Info], Endpoints]:
        alpha_key, pair_key = jax.random.split(key)
        layers = _layers(layerwise, endpoints)
        alpha = points.sample_alpha(alpha_key, subspace, layers, None if num_samples == 1 else num_samples)
        chosen: tuple[int | jax.Array, ...] = tuple(range(subspace.num_endpoints))
        if samples_pair:
            chosen = penalties.sample_pair(pair_key, subspace.num_endpoints)
        return grad_at(alpha, chosen, endpoints, *args)

    return grad_fn


def gradient_at(
    loss_fn: LossFn, subspace: Subspace, objective: Objective, shares: Shares, *, has_aux: bool = False
) -> GradFn:
    """`value_and_grad_at` for endpoints that lie on the devices as ``shares`` says. See `random_gradient`."""
    subspaces.checked(subspace)
    num_samples, has_aux = objective.num_samples, arguments.truth("has_aux", has_aux)
    task = jax.value_and_grad(loss_fn if has_aux else lambda *args: (loss_fn(*args), None), has_aux=True)

    def at_point(
        endpoints: Endpoints, alpha: Alpha, *args: Any, divided: bool = True
    ) -> tuple[jax.Array, Any, Params, Any]:
        """Loss, aux and gradient of the network at alpha on this device, and the endpoints' weights in the mean over
        devices. The weights contain the mean's division: a separate division would be one more pass over the gradient."""
        weights = points.coefficients(endpoints, alpha, subspace)
        point = tree.contract(endpoints, weights)
        (loss, aux), grad = task(shares.gather(point) if divided else point, *args)
        grad = jax.tree.map(lambda g, leaf: g.astype(leaf.dtype), grad, tree.conformed(endpoints, grad))
        return loss, aux, grad, jax.tree.map(lambda c: c / shares.count(), weights)

    def one_position(endpoints: Endpoints, alpha: Alpha, *args: Any) -> tuple[jax.Array, Any, Endpoints]:
        loss, aux, grad, weights = at_point(endpoints, alpha, *args)
        return shares.mean(loss), aux, tree.pull_back(shares.scatter(grad), weights)

    def several_positions(endpoints: Endpoints, alphas: Alpha, *args: Any) -> tuple[jax.Array, Any, Endpoints]:
        """The mean over S positions, each with its part of the batch. Memory holds one position's network at a time."""
        # There are S networks at points and m endpoints. The devices exchange whichever are fewer.
        fewer_points = num_samples <= subspace.num_endpoints
        gathered = endpoints if fewer_points else shares.gather(endpoints, leading=1)
        losses, aux, grads, weights = jax.lax.map(
            lambda alpha_part: at_point(gathered, alpha_part[0], *alpha_part[1], divided=fewer_points),
            (alphas, _cut(args, num_samples)),
        )

        def pull_back(grads: Params) -> Endpoints:
            return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(tree.pull_back)(grads, weights))

        if fewer_points:
            grads = pull_back(shares.scatter(grads, leading=1))
        else:
            of_endpoints = jax.tree.map(lambda g, leaf: g.astype(leaf.dtype), pull_back(grads), endpoints)
            grads = shares.scatter(of_endpoints, leading=1)
        return shares.mean(jnp.mean(losses)), aux, grads

    def grad_fn(
        alpha: Alpha, chosen: tuple[int | jax.Array, ...], endpoints: Endpoints, *args: Any
    ) -> tuple[tuple[jax.Array, Info], Endpoints]:
        gradient = one_position if num_samples == 1 else several_positions
        loss, aux, grads = gradient(endpoints, alpha, *args)
        if not objective.penalises(subspace):
            return (loss, Info(loss, jnp.zeros_like(loss), alpha, aux)), grads
        penalty = penalties.penalty(endpoints, chosen, tree.resolve_mask(objective.mask, endpoints), shares.gram)
        grads = penalty.add_gradient(grads, endpoints, objective.beta)
        return (loss + objective.beta * penalty.value, Info(loss, penalty.value, alpha, aux)), grads

    return grad_fn


def _layers(layerwise: bool | LayerNames, endpoints: Endpoints) -> LayerNames | None:
    """The layers that ``layerwise`` stands for, or None for one alpha."""
    if isinstance(layerwise, bool):
        return tree.layers(endpoints) if layerwise else None
    names = jax.tree.leaves(layerwise)
    are_names = not any(isinstance(name, bool) or not isinstance(name, Hashable) for name in names)
    if isinstance(layerwise, int) or not are_names or not tree.same_structure(layerwise, endpoints):
        raise ValueError(
            f"layerwise is {layerwise!r}. It must be True, False, or a tree like the endpoints with the name of a layer per leaf "
            "(see jsubspace.layers)."
        )
    return layerwise


def _cut(args: tuple[Any, ...], num_samples: int) -> tuple[Any, ...]:
    """Arrays ``[n, ...] -> [S, n / S, ...]``, example i in part i modulo S, and keys ``[] -> [S]``.

    Examples are dealt out, not sliced. A batch that is split over devices is then cut into the same parts as a whole
    batch, provided that the number of examples per device is a multiple of S.
    """

    def cut(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            return jax.random.split(leaf, num_samples)
        n = jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0
        if n == 0 or n % num_samples:
            raise ValueError(
                f"argument {jax.tree_util.keystr(path)} of shape {list(jnp.shape(leaf))} cannot be cut into "
                f"num_samples={num_samples} equal parts. Make its leading axis a multiple of it, or, if it is not "
                "part of the batch, let the loss function close over it."
            )
        return jnp.moveaxis(jnp.reshape(leaf, (n // num_samples, num_samples, *jnp.shape(leaf)[1:])), 1, 0)

    return jax.tree_util.tree_map_with_path(cut, args)
