"""Sinks get what metrics.jsonl gets, a failing sink ends no run, and the documented lines fit the sinks' interface."""

import re
import textwrap
import types

import pytest
from own_problems import classifier, short_settings
from places import REPOSITORY
from whole_runs import StopAt

from jsubspace import training
from jsubspace.errors import Preempted, UsageError
from jsubspace.storage.sinks import Sinks
from jsubspace.storage.writer import read_rows


class Remembering:
    def __init__(self, fails_at=None, close_fails=False):
        self.seen, self.closed, self.fails_at, self.close_fails = [], 0, fails_at, close_fails

    def log_scalar(self, name, value, step):
        if step == self.fails_at:
            raise ConnectionError("no answer\nfrom the server")
        self.seen.append((name, value, step))

    def close(self):
        self.closed += 1
        if self.close_fails:
            raise OSError("disk full")


def test_sinks_of_a_run_and_of_its_problem_get_every_row_and_a_failure_is_one_message(tmp_path, caplog):
    plain, settings = classifier(), short_settings()
    settings.log_every_steps = 1
    of_problem, of_call, failing = Remembering(), Remembering(), Remembering(fails_at=2, close_fails=True)
    problem = training.Problem(plain.network, plain.task, plain.data, sinks=(of_problem,))
    with pytest.raises(Preempted), caplog.at_level("WARNING", "jsubspace"):
        training.train(problem, settings, tmp_path, StopAt(2), sinks=[of_call, failing])
    assert [sink.closed for sink in (of_problem, of_call, failing)] == [1, 1, 1]
    assert training.train(problem, settings, tmp_path, StopAt(0), sinks=[of_call])["finished"]
    assert of_call.closed == 2
    rows = read_rows(tmp_path)
    values = [
        (f"{row['kind']}/{name}", value, row["step"])
        for row in rows
        for name, value in row.items()
        if name not in ("kind", "step")
    ]
    assert of_call.seen == of_problem.seen == values
    assert {step for _, _, step in failing.seen} == {1}
    messages = [record.getMessage() for record in caplog.records if record.getMessage().startswith("the sink ")]
    assert len(messages) == 1
    assert "the sink Remembering failed at step 2" in messages[0]
    assert "ConnectionError: no answer" in messages[0]


def test_a_sink_that_cannot_be_closed_is_one_message(caplog):
    good, bad = Remembering(), Remembering(close_fails=True)
    with caplog.at_level("WARNING"), Sinks((bad, good)) as sinks:
        sinks.write("train", 1, {"loss": 0.5})
    assert good.closed == bad.closed == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the sink Remembering failed when it was closed and gets no more numbers: OSError: disk full. metrics.jsonl has them."
    ]


@pytest.mark.parametrize("sinks", [3, Remembering, [print], (types.SimpleNamespace(close=print),)], ids=str)
def test_what_is_no_sink_is_refused(sinks, tmp_path):
    with pytest.raises(
        UsageError, match=r"A sink is an object with the methods log_scalar\(name, value, step\) and close\(\)"
    ):
        training.train(classifier(), short_settings(), tmp_path / "run", sinks=sinks)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [0, 1, 2], ids=["W&B", "MLflow", "trackio"])
def test_the_documented_lines_make_sinks(number):
    """With stand-ins for the libraries, which take the arguments that the libraries take."""
    guide = (REPOSITORY / "docs" / "sinks.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    .*\n)+", guide, re.MULTILINE)
    assert [len(block.splitlines()) for block in blocks] == [3, 3, 3]
    logged, ended = [], []

    def log(values, step):
        logged.append((*values.items(), step))

    def finish():
        ended.append(True)

    def train(problem, settings, workdir, sinks):
        with Sinks(sinks) as opened:
            opened.write("train", 4, {"loss": 0.5})

    run = types.SimpleNamespace(log=log, finish=finish)
    names = {
        "wandb": types.SimpleNamespace(init=lambda project, id, resume: run),
        "mlflow": types.SimpleNamespace(
            start_run=lambda run_name: None, log_metric=lambda key, value, step: log({key: value}, step), end_run=finish
        ),
        "trackio": types.SimpleNamespace(init=lambda project, name, resume: run, log=log, finish=finish),
        "SimpleNamespace": types.SimpleNamespace,
        "training": types.SimpleNamespace(train=train),
        "problem": None,
        "settings": None,
    }
    exec(textwrap.dedent(blocks[number]), names)
    assert logged == [(("train/loss", 0.5), 4)]
    assert ended == [True]
