"""The plane through three networks: its grid, back in the space it was taken from."""

import numpy as np
import pytest

from jsubspace.evaluation import planes


def test_the_grid_lies_on_the_plane_at_its_coordinates():
    networks = np.random.default_rng(0).normal(size=(3, 50))
    distances = np.linalg.norm(networks[:, None] - networks, axis=-1)
    plane = planes.plane(distances, num=5, margin=0.3)
    np.testing.assert_allclose(plane.weights.sum(-1), 1)
    points = plane.weights @ networks
    coordinates = np.array([(x, y) for y in plane.y for x in plane.x])  # row by row
    between = np.linalg.norm(points[:, None] - points, axis=-1)
    np.testing.assert_allclose(between, np.linalg.norm(coordinates[:, None] - coordinates, axis=-1), atol=1e-9)
    for network, corner in zip(networks, plane.corners, strict=True):
        to_corner = np.linalg.norm(coordinates - corner, axis=-1)
        np.testing.assert_allclose(np.linalg.norm(points - network, axis=-1), to_corner, atol=1e-9)
    assert plane.x[0] < plane.corners[:, 0].min() - 0.29 * np.ptp(plane.corners[:, 0])


def test_networks_on_a_line_or_in_one_place_have_no_plane():
    for at in ([0.0, 1.0, 2.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]):
        distances = np.abs(np.subtract.outer(at, at))
        with pytest.raises(ValueError, match="no plane is determined"):
            planes.plane(distances, 5)


def test_what_is_no_three_networks_is_refused():
    with pytest.raises(ValueError, match="through 3 networks"):
        planes.plane(np.zeros((2, 2)), 5)
    with pytest.raises(ValueError, match="at least 2 points"):
        planes.plane(1 - np.eye(3), 1)
