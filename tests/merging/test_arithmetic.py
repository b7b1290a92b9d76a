"""Task arithmetic and spherical interpolation against their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

import jsubspace
from jsubspace.errors import UsageError
from jsubspace.merging import slerp, task_arithmetic

RNG = np.random.default_rng(0)
ORIGIN, A, B = ({"u": RNG.normal(size=(4, 3)), "v": RNG.normal(size=5)} for _ in range(3))


def flat(network):
    return np.concatenate([np.ravel(network["u"]), np.ravel(network["v"])])


@pytest.mark.parametrize(
    ("scale", "scales"), [(0.3, (0.3, 0.3)), ([0.7, -0.2], (0.7, -0.2)), ({"b": 1, "a": 2}, (2, 1))]
)
def test_task_vectors_are_added_to_the_origin(x64, scale, scales):
    found = task_arithmetic(ORIGIN, {"a": A, "b": B}, scale)
    wanted = flat(ORIGIN) + scales[0] * (flat(A) - flat(ORIGIN)) + scales[1] * (flat(B) - flat(ORIGIN))
    np.testing.assert_allclose(flat(found), wanted, rtol=1e-12)


@pytest.mark.parametrize("scale", ["1", [1], {"a": 1}, np.inf, None, [1, None], True])
def test_wrong_scales_are_refused(x64, scale):
    with pytest.raises(UsageError, match=r"task_arithmetic: scale is .* one per network \(a, b\)"):
        task_arithmetic(ORIGIN, {"a": A, "b": B}, scale)


def arc(a, b, alpha):
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin((1 - alpha) * angle) * a + np.sin(alpha * angle) * b) / np.sin(angle)


def test_the_arc_is_its_formula_for_the_whole_and_by_leaf(x64):
    np.testing.assert_allclose(flat(slerp(A, B, 0.3)), arc(flat(A), flat(B), 0.3), rtol=1e-12)
    by_leaf = slerp(A, B, 0.3, by="leaf")
    for name in ("u", "v"):
        np.testing.assert_allclose(np.ravel(by_leaf[name]), arc(np.ravel(A[name]), np.ravel(B[name]), 0.3), rtol=1e-12)
    unit = [{name: leaf / np.linalg.norm(flat(network)) for name, leaf in network.items()} for network in (A, B)]
    for alpha in (0, 0.25, 1):
        assert np.linalg.norm(flat(slerp(*unit, alpha))) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, jnp.float32])
def test_numbers_of_few_bits_are_widened_before_they_are_subtracted(x64, dtype):
    alpha = dtype(0.1)
    np.testing.assert_allclose(flat(slerp(A, B, alpha)), arc(flat(A), flat(B), float(alpha)), rtol=1e-12)
    copied = {name: leaf.copy() for name, leaf in A.items()}
    np.testing.assert_allclose(flat(slerp(A, copied, alpha)), flat(A), rtol=1e-12)
    weights = jsubspace.checkpoint_weights("ema", 4, decay=alpha)
    np.testing.assert_allclose(weights, jsubspace.checkpoint_weights("ema", 4, decay=float(alpha)), rtol=1e-12)
    assert weights.sum() == pytest.approx(1, abs=1e-12)


def test_scanned_layers_have_arcs_of_their_own(x64):
    networks = [{"blocks": {"w": RNG.normal(size=(2, 3))}, "head": {"w": RNG.normal(size=3)}} for _ in range(2)]
    layers = jsubspace.layers(jsubspace.stack(networks), scanned="blocks")
    found = slerp(*networks, 0.4, by=layers)
    for i in range(2):
        rows = [network["blocks"]["w"][i] for network in networks]
        np.testing.assert_allclose(found["blocks"]["w"][i], arc(*rows, 0.4), rtol=1e-12)


def test_the_arc_without_an_angle_is_the_line(x64):
    doubled = {name: 2 * leaf for name, leaf in A.items()}
    np.testing.assert_allclose(flat(slerp(A, doubled, 0.5)), 1.5 * flat(A), rtol=1e-12)
    zeros = {name: 0 * leaf for name, leaf in A.items()}
    np.testing.assert_allclose(flat(slerp(A, zeros, 0.25)), 0.75 * flat(A), rtol=1e-12)
    with pytest.raises(UsageError, match="opposite directions in part 'whole'"):
        slerp(A, {name: -leaf for name, leaf in A.items()})
    for alpha in (1.5, "half", [0.5], True):
        with pytest.raises(UsageError, match="slerp: alpha is"):
            slerp(A, B, alpha)
