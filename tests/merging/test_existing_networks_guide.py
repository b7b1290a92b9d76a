"""The guide for networks that exist leads from the verdict to a file, and every step does what the page says."""

import guides
import jax
import numpy as np
import pytest

import jsubspace
from jsubspace.merging.barriers import CONNECTED, NOT_CONNECTED


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guide")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return guides.execute("existing_networks.md") | {"folder": folder}


def test_the_verdicts_of_the_page(guide):
    found = guide["found"]
    assert found.pair("slow", "fast").verdict == CONNECTED
    assert found.pair("slow", "copy").verdict == found.pair("slow", "independent").verdict == NOT_CONNECTED
    assert found.groups == (("slow", "fast"), ("independent",), ("copy",))
    assert len(guide["figure"].axes) == 3


def test_the_copy_is_found_and_the_independent_network_keeps_a_barrier(guide):
    after = guide["remedies"].treatments["units permuted"]
    assert guide["remedies"].best == "units permuted"
    assert after.pair("slow", "copy").height < 1e-6
    assert after.pair("slow", "independent").verdict == NOT_CONNECTED
    assert after.pair("slow", "independent").height < 0.5 * guide["found"].pair("slow", "independent").height
    assert [*guide["aligned"]] == ["slow", "fast", "copy"]
    jax.tree.map(np.testing.assert_array_equal, guide["aligned"]["copy"], guide["networks"]["slow"])


def test_the_file_holds_the_soup(guide):
    network = jsubspace.load(guide["folder"] / "average.safetensors")
    jax.tree.map(np.testing.assert_array_equal, network, guide["network"])
    assert guide["test"].center.accuracy > 0.9
    assert sum(guide["weights"].values()) == pytest.approx(1)
