"""What a loss function must return, and what it is given: one message each, raised by the first trace."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace import Line, gradients

KEY = jax.random.key(0)
ENDPOINTS = {"w": jnp.ones((2, 3, 1))}
X = jnp.ones((4, 3))


def gradient(loss_fn, *args, **options):
    return jsubspace.value_and_grad(loss_fn, Line(), **options)(KEY, ENDPOINTS, *args)


LOSSES = {
    "a vector": (lambda w, x: x @ w["w"][:, 0], {}, r"an array float32\[[24]\], but a loss is one number .* jnp\.mean\(loss\)"),
    "one row": (lambda w, x: jnp.sum(w["w"], axis=0), {}, r"an array float32\[1\], but a loss is one number"),
    "an integer": (lambda w, x: jnp.argmax(w["w"]), {}, r"an array int32\[\], but .*Return a real number"),
    "a complex number": (lambda w, x: 1j * jnp.sum(w["w"]), {}, r"an array complex64\[\], but .*no gradient here"),
    "a truth value": (lambda w, x: jnp.all(w["w"] > 0), {}, r"an array bool\[\], but"),
    "nothing": (lambda w, x: None, {}, "returned None, but a loss is one number"),
    "a text": (lambda w, x: "0.5", {}, "returned '0.5', but a loss is one number"),
    "a dict": (lambda w, x: {"loss": jnp.sum(w["w"])}, {}, r"a dict with leaf \['loss'\], an array float32\[\], but"),
    "aux without has_aux": (lambda w, x: (jnp.sum(w["w"]), x), {}, r"a tuple with .* \(loss, aux\), pass has_aux=True"),
    "no aux": (lambda w, x: jnp.sum(w["w"]), {"has_aux": True}, r"has_aux is True, .* returned an array float32\[\]\. Return a pair"),
    "three": (lambda w, x: (jnp.sum(w["w"]), 1, 2), {"has_aux": True}, r"\(loss, aux\), but it returned a tuple"),
    "aux first": (lambda w, x: (x, jnp.sum(w["w"])), {"has_aux": True}, r"an array float32\[[24], 3\] as its loss, but a loss"),
}  # fmt: skip


@pytest.mark.parametrize("num_samples", [1, 2])
@pytest.mark.parametrize("kind", LOSSES)
def test_what_is_no_loss(kind, num_samples):
    loss_fn, options, message = LOSSES[kind]
    with pytest.raises(ValueError, match=message):
        gradient(loss_fn, X, num_samples=num_samples, **options)
    with pytest.raises(ValueError, match=message):
        jax.jit(functools.partial(gradient, loss_fn, num_samples=num_samples, **options))(X)
    at = gradients.value_and_grad_at(loss_fn, Line(), **options)
    with pytest.raises(ValueError, match=message):
        at(0.5, (0, 1), ENDPOINTS, X)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_loss_that_is_not_finite_is_a_loss(value):
    (total, info), grads = gradient(lambda w, x: jnp.sum(w["w"]) * value, X, beta=0.0)
    np.testing.assert_array_equal([total, info.loss], [value, value])
    assert not np.any(np.isfinite(grads["w"]))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_a_loss_of_any_floating_dtype(dtype):
    (total, info), _ = gradient(lambda w, x: (jnp.sum(w["w"]).astype(dtype), [x]), X, has_aux=True, beta=0.0)
    assert (info.loss.dtype, total.dtype, info.aux[0].shape) == (dtype, dtype, (4, 3))
    assert gradient(lambda w, x: [jnp.sum(w["w"]), x], X, has_aux=True)[0][1].loss == 3
    assert gradient(lambda w, x: 1.0, X)[0][1].loss == 1


def test_arguments_that_the_loss_does_not_take():
    for call, message in (
        (lambda: gradient(lambda w, x: jnp.sum(w["w"])), r"the loss function takes \(w, x\), but .*the point and 0 more.*'x'"),
        (lambda: gradient(lambda w: jnp.sum(w["w"]), X), r"takes \(w\), but .*the point and 1 more .*too many"),
        (lambda: jsubspace.value_and_grad(lambda w, x: jnp.sum(w["w"]), Line())(KEY, ENDPOINTS, y=X), r"keywords y: .*'x'"),
        (lambda: gradient(lambda w, x: jnp.sum(w["w"]), X, pass_alpha=True), "the point and alpha, because of pass_alpha=True"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()


def test_a_mistake_inside_of_the_loss_is_shown_as_it_is():
    def loss_fn(point, x):
        return jnp.sum(point["w"]) + len(3)

    with pytest.raises(TypeError, match="object of type 'int' has no len") as caught:
        gradient(loss_fn, X)
    assert caught.traceback[-1].name == "loss_fn"


def test_trees_that_do_not_fit_are_refused_before_the_loss_fails_on_them():
    """The loss would say KeyError."""
    other = {"v": jnp.ones((2, 3, 1))}
    for options, message in (
        (
            {"mask": {"w": True}},
            r"the mask has the structure of another tree than the endpoints: it lacks leaf \['v'\]",
        ),
        ({"layerwise": {"w": "a"}}, r"layerwise is a dict .*but it lacks leaf \['v'\]"),
        (
            {"origin": {"w": X[0]}, "mask": jsubspace.all_leaves},
            r"the origin has the structure .*it lacks leaf \['v'\]",
        ),
        (
            {"axis_name": "data"},
            "axis_name is 'data', but no pmap or shard_map around the step has an axis of this name",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            jsubspace.value_and_grad(lambda w, x: jnp.sum(w["w"]), Line(), **options)(KEY, other, X)


def test_no_check_is_part_of_the_compiled_step():
    """The checks look at shapes while the step is traced. They compute nothing and ask no device."""

    def loss_fn(point, x):
        return jnp.mean(x @ point["w"])

    def written_out(key, endpoints, x):
        alpha = jax.random.uniform(jax.random.split(key)[0], ())
        weights = jnp.stack([1 - alpha, alpha])
        point = jax.tree.map(lambda leaf: weights[0] * leaf[0] + weights[1] * leaf[1], endpoints)
        loss, grad = jax.value_and_grad(loss_fn)(point, x)
        return loss, jax.tree.map(lambda g: weights[:, None, None] * g, grad)

    gradient = jsubspace.value_and_grad(loss_fn, Line(), beta=0.0)
    checked, plain = (str(jax.make_jaxpr(fn)(KEY, ENDPOINTS, X)) for fn in (gradient, written_out))
    assert checked.count("dot_general") == plain.count("dot_general") == 2
    assert not any(word in checked for word in ("callback", "check", "cond", "reduce_and", "is_finite["))
