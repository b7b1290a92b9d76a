"""The journal: windows, notes, resuming, and losses that are not finite."""

import json

import jax.numpy as jnp
import pytest

from jsubspace.errors import TrainingDiverged
from jsubspace.storage.journal import Journal, Report, Row
from jsubspace.training.progress import Clock

AHEAD = 3


def info(loss):
    return Report.of({"loss": jnp.float32(loss), "penalty": jnp.float32(0), "accuracy": jnp.float32(1)})


def feed(journal, steps):
    for step in steps:
        journal.add(step, info(step))
    journal.finish()
    return journal.take_rows()


def test_windows_are_means_and_end_at_multiples():
    rows = feed(Journal(4, AHEAD), range(1, 11))
    assert [(row.step, row.values["loss"]) for row in rows] == [(4, 2.5), (8, 6.5)]
    assert rows[0].values == {"loss": 2.5, "penalty": 0.0, "accuracy": 1.0}


@pytest.mark.parametrize("stop", [1, 4, 6, 9])
def test_interrupted_anywhere_the_windows_are_the_same(stop):
    first = Journal(4, AHEAD)
    rows = feed(first, range(1, stop + 1))
    state = json.loads(json.dumps(first.state()))
    assert rows + feed(Journal(4, AHEAD, state), range(stop + 1, 11)) == feed(Journal(4, AHEAD), range(1, 11))


def test_reports_are_read_only_when_enough_others_have_started():
    journal = Journal(1, AHEAD)
    for step in range(1, AHEAD + 1):
        journal.add(step, info(step))
    assert journal.take_rows() == []
    journal.add(AHEAD + 1, info(0))
    assert [row.step for row in journal.take_rows()] == [1]


def test_notes_are_rows_of_their_own_in_order():
    journal = Journal(2, AHEAD)
    journal.add(1, info(1))
    journal.add(2, info(3))
    journal.note("endpoints", 2, {"l2": jnp.float32(5)})
    journal.finish()
    assert journal.take_rows()[1] == Row("endpoints", 2, {"l2": 5.0})


def test_a_report_of_several_steps_is_as_many_reports():
    """A window ends in the middle of one, and the step that is not finite is named."""
    losses = jnp.float32([[1, 0, 1], [3, 0, 1], [8, 0, 1]])
    journal = Journal(2, 0)
    journal.add(1, Report(info(0).names, losses))
    journal.add(4, info(2))
    assert [(row.step, row.values["loss"]) for row in journal.take_rows()] == [(2, 2.0), (4, 5.0)]
    with pytest.raises(TrainingDiverged, match="the loss of step 6 is nan"):
        journal.add(5, Report(info(0).names, losses.at[1, 0].set(jnp.nan)))


@pytest.mark.parametrize("kind", ["test", "validation"])
def test_a_score_that_is_not_finite_ends_nothing_and_is_said_once(kind, caplog):
    journal = Journal(100, 0)
    for step, score in ((1, 2.0), (2, jnp.inf), (3, jnp.nan)):
        journal.note(kind, step, {"nll": score})
    assert [row.values["nll"] for row in journal.take_rows()[:2]] == [2.0, jnp.inf]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"the nll on the {kind} data after step 2 is inf. Training continues")
    with pytest.raises(TrainingDiverged, match="the l2 of step 4 is inf"):
        journal.note("endpoints", 4, {"l2": jnp.float32(jnp.inf)})


@pytest.mark.parametrize("loss", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_loss_that_is_not_finite_names_its_step(loss):
    journal = Journal(100, AHEAD)
    journal.add(41, info(1))
    journal.add(42, info(loss))
    with pytest.raises(TrainingDiverged, match=r"the loss of step 42 is (nan|inf|-inf).*learning_rate"):
        journal.finish()


def test_the_last_window_may_be_shorter():
    journal = Journal(4, AHEAD)
    assert [row.step for row in feed(journal, range(1, 7))] == [4]
    journal.end_window(6)
    assert journal.take_rows() == [Row("train", 6, {"loss": 5.5, "penalty": 0.0, "accuracy": 1.0})]
    assert journal.state() == {"sums": {}, "count": 0}
    journal.end_window(6)
    assert journal.take_rows() == []


def test_rows_that_come_at_once_have_one_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = Clock()
    rates = []
    for step, seconds in ((100, 5), (200, 6), (203, 6), (303, 7), (403, 8)):
        now[0] = seconds
        rates.append(clock.rate(step))
    assert rates == [0, 100, 100, 103, 100]
