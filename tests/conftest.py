"""The tests run on the CPU, with two devices, whatever the machine has; set before jax looks for any."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"

import pytest


@pytest.fixture(scope="session")
def fake_data(tmp_path_factory):
    """A folder in which a stand-in of every data set is prepared by its real builder (`fake_archives`)."""
    import fake_archives

    folder = tmp_path_factory.mktemp("fake_data")
    fake_archives.prepare_all(folder)
    return str(folder)
