"""The numbers of training and evaluation are those of an earlier revision, to the bit (`same_bits`)."""

import json
import os
import re
import subprocess
import sys

import bits
import numpy as np
import pytest
import safetensors.numpy
import same_bits
from places import REPOSITORY

ROW = {"kind": "train", "step": 3, "loss": 0.1, "images_per_second": 5.0}
NETWORK = {"params/dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7}


def point(name, nll, **more):
    return {"name": name, "alpha": 0.5, "nll": nll, "intervals": {"nll": [0.1, 0.2]}} | more


def outcome(folder, row=ROW, network=NETWORK, **measured):
    """A folder as `same_bits` compares it."""
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    found = {"points": [point("0.00", 0.3), point("1.00", 0.7)], "connector": {"barrier": 0.01}, "schema": 2}
    found |= {"ensembles": [], "endpoints": {"l2": [[0.0, 0.1 + 0.2]]}, "reliability": {"count": [3]}} | measured
    (folder / "run" / "results.json").write_text(json.dumps(found))
    facts = {name: json.dumps([0.5]) for name in bits.FACTS}
    safetensors.numpy.save_file(network, folder / "midpoint.safetensors", facts)
    return folder


def flipped(array):
    """The same array with the last bit of its last number flipped."""
    flat = array.copy().reshape(-1)
    flat.view(np.uint32)[-1] ^= 1
    return flat.reshape(array.shape)


def test_what_may_differ(tmp_path):
    """The speed, the order of rows that have names, and what a newer revision records besides."""
    base = outcome(tmp_path / "base")
    points = [point("1.00", 0.7, kind="grid"), point("0.00", 0.3, kind="grid", roles=["end"])]
    here = outcome(tmp_path / "here", ROW | {"images_per_second": 7.0}, points=points, schema=3, plane=None)
    assert bits.differences(base, here) == []


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"row": ROW | {"loss": float(np.nextafter(0.1, 1))}}, r"metrics.jsonl\[0\].loss is 0.1 and 0.1000"),
        ({"row": {"kind": "train", "step": 3}}, r"metrics.jsonl\[0\].loss is missing"),
        ({"network": {name: flipped(leaf) for name, leaf in NETWORK.items()}}, r"midpoint.*params/dense/kernel.bytes is"),
        ({"network": {name: leaf.T.copy() for name, leaf in NETWORK.items()}}, r"midpoint.*kernel.shape\[0\] is 2 and 3"),
        ({"points": [point("0.00", 0.3), point("1.00", float(np.nextafter(0.7, 0)))]}, "results.json.points.1.00.nll is 0.7"),
        ({"points": [point("0.00", 0.3), point("end", 0.7)]}, "points.1.00 is missing"),
        ({"endpoints": {"l2": [[0.0, 0.3]]}}, r"endpoints.l2\[0\]\[1\] is 0.3000000000000000"),
        ({"endpoints": {"l2": [[-0.0, 0.1 + 0.2]]}}, r"endpoints.l2\[0\]\[0\] is 0.0 and -0.0"),
        ({"reliability": {"count": [3, 0]}}, "reliability.count has 1 and 2 items"),
        ({"connector": None}, "connector is .* and None"),
    ],
)  # fmt: skip
def test_a_flipped_bit_is_noticed(tmp_path, changed, place):
    base, here = outcome(tmp_path / "base"), outcome(tmp_path / "here", **changed)
    found = bits.differences(base, here)
    assert found
    assert re.search(place, found[0]), found


def test_an_export_that_is_missing_is_noticed(tmp_path):
    base, here = outcome(tmp_path / "base"), outcome(tmp_path / "here")
    (here / "midpoint.safetensors").unlink()
    assert bits.differences(base, here) == ["the exports of the base are ['midpoint.safetensors'], here []"]


def test_methods_start_from_methods_before_them():
    names = list(same_bits.METHODS)
    for place, (name, method) in enumerate(same_bits.METHODS.items()):
        assert set(method.starts) <= set(names[:place])
        assert same_bits.chosen([name]) == [*method.starts, name]
    assert len({same_bits.folder_of(name) for name in names}) == len(names)


@pytest.mark.slow
def test_every_method_trains_to_the_same_bits():
    """Against ``SAME_BITS_BASE``, else the newest tag, else where this branch left main, else the parent."""
    described = ["git", "describe", "--tags", "--abbrev=0"], ["git", "merge-base", "HEAD", "main"]
    found = [subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout for command in described]
    head = same_bits.git("rev-parse", "HEAD").strip()
    known = [text.strip() for text in found if text.strip() not in ("", head)]
    base = os.environ.get("SAME_BITS_BASE") or next(iter(known), same_bits.parent())
    command = [sys.executable, str(REPOSITORY / "tests" / "same_bits.py"), f"--base={base}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
