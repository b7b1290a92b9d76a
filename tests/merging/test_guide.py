"""The guide about soups runs, and its numbers are what it prints."""

import re

import guides
import pytest


@pytest.fixture(scope="module")
def names():
    return guides.execute("soups.md")


def page():
    return (guides.DOCS / "soups.md").read_text(encoding="utf-8").replace("−", "-")


def test_the_gains_are_as_the_page_says(names):
    for how, cells in re.findall(r"^\| (uniform|greedy|fitted) \|(.*)\|$", page(), re.MULTILINE):
        report = names["soups"][how].report
        for cell, gain in zip(cells.split("|"), (report.over_center, report.over_best), strict=True):
            if gain is None:
                assert not cell.strip()
            else:
                assert cell.split(":")[0].strip() == gain.verdict
                numbers = [float(number) for number in re.findall(r"-?\d\.\d+", cell)]
                assert numbers == pytest.approx([gain.value, *gain.interval], abs=0.005)


def test_the_line_is_as_the_page_says(names):
    rows = re.findall(r"^\| (?:0|0\.\d+|1)(?:, [\w-]+)? \|(.*)\|$", page(), re.MULTILINE)
    assert len(rows) == 5
    for cells, (_, row) in zip(rows, names["robust"].rows(), strict=True):
        accuracies = [float(cells.split("|")[i]) for i in (0, 2)]
        assert accuracies == pytest.approx([score for score, *_ in row.values()], abs=0.02)
    kept = [change.interval[0] > 0 for change in names["robust"].changes["shifted"]]
    assert kept == [True, True, True, True, False]


def test_the_networks_of_the_page_are_whole(names):
    x, y = names["validation_batches"][0]
    for key in ("stock", "model", "more", "arc"):
        point = getattr(names[key], "network", names[key])
        assert (names["predict_fn"](point, x).argmax(-1) == y).mean() > 0.9
