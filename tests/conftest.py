"""The tests run on the CPU, with eight devices, whatever the machine has; set before jax looks for any."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"

import jax
import pytest


@pytest.fixture
def x64():
    """Arrays are float64 by default in this test, and in this test alone."""
    with jax.enable_x64(True):
        yield
