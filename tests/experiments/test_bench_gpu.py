"""The benchmark for GPUs, on the CPU: its rows, what it says that it did not do, and how it continues."""

import json
import sys

import pytest

from experiments import bench_gpu
from experiments.lib import gpu_steps
from experiments.lib.chips import peak_flops
from jsubspace.errors import UsageError


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A function that runs the command, and returns the content of its file."""
    path = tmp_path_factory.mktemp("gpu") / "rows.json"

    def run(*options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench_gpu, "OUTPUT", path)
            patch.setattr(bench_gpu, "WAYS", ("bare", "standard", "line", "torch"))
            patch.setattr(sys, "argv", ["bench_gpu", "--steps=2", "--rounds=2", f"--output={path}", *options])
            patch.setattr(bench_gpu.importlib.util, "find_spec", lambda name: None)
            bench_gpu.main()
        return json.loads(path.read_text())

    return run


@pytest.fixture(scope="module")
def slices(command):
    """What the file holds after a slice without time, after a slice with one network, and after the last."""
    options = ("--networks", "dense", "gpt")
    return command(*options, "--minutes=0"), command("--networks", "dense"), command(*options)


def test_a_row_is_done_or_has_a_reason(slices):
    for content in slices:
        names = {f"{network}/{way}" for network in gpu_steps.FULL for way in ("bare", "standard", "line", "torch")}
        assert set(content["rows"]) | set(content["not_done"]) == names
        assert not set(content["rows"]) & set(content["not_done"])
    nothing, one, both = slices
    assert not nothing["rows"]
    assert "the time was over" in nothing["not_done"]["gpt/line"]
    assert nothing["not_done"]["resnet50/line"] == "not asked for yet"
    assert set(one["rows"]) == {"dense/bare", "dense/standard", "dense/line"}
    assert set(both["rows"]) - set(one["rows"]) == {"gpt/bare", "gpt/standard", "gpt/line"}
    assert both["not_done"]["gpt/torch"] == "PyTorch is not installed"


def test_a_finished_row_is_not_timed_again(slices):
    _, one, both = slices
    assert {name: both["rows"][name] for name in one["rows"]} == one["rows"]


def test_the_numbers_of_a_row(slices):
    rows = slices[-1]["rows"]
    for name, row in rows.items():
        assert row["unit"] == ("tokens" if name.startswith("gpt") else "images")
        assert row["rounds"] == 2
        middle, low, high = row["over_standard"]
        assert 0 < low <= middle <= high
        assert row["share_of_peak"] is None  # A CPU is not listed.
    assert rows["dense/standard"]["over_standard"] == rows["dense/bare"]["over_bare"] == [1, 1, 1]
    # A product is one multiplication and one addition per pair of numbers. No gradient reaches the images.
    multiplied = 8 * (3 * (256 * 256 + 256 * 10) + 2 * 784 * 256)
    row = rows["dense/line"]
    counted = row["flops_per_second"] * row["milliseconds"] / 1000
    assert counted == pytest.approx(2 * multiplied, rel=0.1)
    # Endpoints and momentum of two networks instead of one, in float32.
    n = 4 * (784 * 256 + 256 * 256 + 256 * 10)
    assert rows["dense/line"]["memory_bytes"] - rows["dense/standard"]["memory_bytes"] > 2 * n


def test_rows_of_another_kind_are_refused(slices, command):
    with pytest.raises(UsageError, match=r"made elsewhere or with other options.*Delete it, or name another file"):
        command("--networks", "dense", "--dtype=float32")


def test_the_peak_of_a_chip():
    assert peak_flops("NVIDIA H100 PCIe", "bfloat16") < peak_flops("NVIDIA H100 80GB HBM3", "bfloat16")
    assert peak_flops("NVIDIA A100-SXM4-80GB", "float32") == 156e12
    assert peak_flops("cpu", "bfloat16") is None
