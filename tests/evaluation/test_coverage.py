"""How often the printed intervals hold the truth, by simulation (`experiments.coverage`)."""

import numpy as np
import pytest

from experiments import coverage


def short(found):
    """What is promised but covers less than 0.88, with room for the noise of a few test sets."""
    return [one for one in found if one.promised and one.covered < 0.88]


def test_a_few_sets_of_every_interval():
    """40 sets: an interval that covers 0.95 of them has at least 0.75 here, but for one case of a million."""
    rows = [
        *coverage.scores(40, sizes=(1000,)),
        *coverage.paths(40, sizes=(360,)),
        *coverage.differences(40, sizes=(1000,)),
        *coverage.runs(40),
    ]
    assert not [one for one in rows if one.promised and one.covered < 0.75]
    assert len(rows) > 40
    assert np.mean([one.covered for one in rows]) > 0.92
    assert "| barrier |" in coverage.table(rows, 40)


def test_the_page_has_the_table_of_a_thousand_sets():
    text = coverage.PAGE.read_text(encoding="utf-8").partition(coverage.START)[2].partition(coverage.END)[0]
    assert "of 1,000 simulated test sets" in text
    assert text.count("\n| ") > 40


@pytest.mark.slow
def test_a_thousand_sets_of_every_interval():
    assert short(coverage.every(1000)) == []
