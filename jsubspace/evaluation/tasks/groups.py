"""What all tasks do with many networks at once: groups of them on the devices, and one row for each on the host."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def rows_of(found: Mapping[str, np.ndarray], bounds: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """One dictionary per network from scores ``[p]`` by name and bounds ``[p, 2]``, which may be empty."""
    rows = []
    for i in range(len(next(iter(found.values())))):
        row: dict[str, Any] = {name: float(values[i]) for name, values in found.items()}
        if bounds:
            row["intervals"] = {name: values[i].tolist() for name, values in bounds.items()}
        rows.append(row)
    return rows


def over_groups(function: Callable[[jax.Array], Any], groups: tuple[tuple[int, ...], ...]) -> Any:
    """``function`` of the members of every group, stacked in the order of the groups.

    Groups of one size share one program: the pairs of a fine grid would take minutes to compile one by one.
    """
    order = sorted(range(len(groups)), key=lambda i: len(groups[i]))
    sizes = [list(same) for _, same in itertools.groupby(order, key=lambda i: len(groups[i]))]
    found = [jax.lax.map(function, jnp.array([groups[i] for i in same])) for same in sizes]
    back = np.argsort(order)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[back], *found)
