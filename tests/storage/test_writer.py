"""metrics.jsonl and TensorBoard events, also of a run that was killed."""

import json

import pytest

from jsubspace.errors import UsageError
from jsubspace.storage.files import write_text
from jsubspace.storage.writer import METRICS, Writer, read_rows


def test_rows_are_on_the_disk_at_once(tmp_path):
    with Writer(tmp_path) as writer:
        writer.write("train", 10, {"loss": 0.1})
        assert read_rows(tmp_path) == [{"kind": "train", "step": 10, "loss": 0.1}]
        writer.write("endpoints", 12, {"l2": 1.0})
    assert [row["step"] for row in read_rows(tmp_path, "endpoints")] == [12]


def test_resuming_drops_what_will_be_written_again(tmp_path):
    with Writer(tmp_path) as writer:
        for step in (10, 20, 30):
            writer.write("train", step, {"loss": step})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"kind": "train", "st')  # killed while writing
    with Writer(tmp_path, step=20) as writer:
        writer.write("train", 30, {"loss": -1})
    assert [(row["step"], row["loss"]) for row in read_rows(tmp_path)] == [(10, 10), (20, 20), (30, -1)]


def test_tensorboard_has_every_row_once(tmp_path, monkeypatch):
    """After kills, of which one left no buffer, with a clock that stands still, then jumps back."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    for now, start in ((1e9, 0), (1e9, 1), (5e8, 2)):
        with monkeypatch.context() as patched:
            patched.setattr("time.time", lambda now=now: now)
            with Writer(tmp_path, start) as writer:
                for step in (start + 1, start + 2):  # of which the next start takes the second back
                    writer.write("train", step, {"loss": step + start / 10})
        if start == 1:
            for file in tmp_path.glob("events.out.tfevents.*"):
                file.write_bytes(file.read_bytes()[:-20])  # killed before its buffer was written
    values = [
        (event.step, value.tag, round(value.simple_value, 3))
        for file in tmp_path.glob("events.out.tfevents.*")
        for event in read_events(file, proto)
        for value in event.summary.value
    ]
    assert values == [(row["step"], "train/loss", row["loss"]) for row in read_rows(tmp_path)]
    assert [row["loss"] for row in read_rows(tmp_path)] == [1.0, 2.1, 3.2, 4.2]


def test_a_damaged_line_costs_that_line(tmp_path, caplog):
    with Writer(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write("train", step, {"loss": 0.5})
    content = (tmp_path / METRICS).read_bytes()
    (tmp_path / METRICS).write_bytes(content.replace(b'"step": 2', b'"st\xffp": 2'))
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 3]
    assert "line 2 of" in caplog.text
    with Writer(tmp_path, step=3):
        pass
    assert len((tmp_path / METRICS).read_text().splitlines()) == 2


ODD_ROWS = [
    '{"kind": "train", "step": 1.5}',
    '{"kind": "train", "step": true}',
    '{"kind": "train", "step": -1}',
    '{"kind": "train", "step": -Infinity}',
    '{"kind": "train", "step": 1000000000000}',
    '{"kind": "tr\\ud800", "step": 2}',
    '{"kind": "\\u001b[2J", "step": 2}',
    '{"kind": 5, "step": 2}',
    '{"kind": "train", "step": 2, "loss": "low"}',
    '{"kind": "train", "step": 2, "loss": true}',
    '{"kind": "train", "step": 2, "loss": [1]}',
    '{"kind": "train", "step": 2, "loss": 1e400}',
    '{"kind": "train", "step": 2, "loss": 1' + "0" * 400 + "}",
    '{"kind": "train", "step": 2, "step": 3}',
    '{"kind": "train", "step": 2, "a": ' + "[" * 100_000,
    "[" * 1000,
    "5",
    "",
]


def test_an_odd_row_costs_itself_and_one_line_of_the_log(tmp_path, caplog):
    good = '{"kind": "train", "step": 2, "loss": 0.5, "self": 1, "workdir": 2}'
    for odd in ODD_ROWS:
        caplog.clear()
        (tmp_path / METRICS).write_text(f"{odd}\n{good}\n")
        assert read_rows(tmp_path) == [json.loads(good)]
        (record,) = caplog.records
        assert record.getMessage().startswith(f"line 1 of {tmp_path / METRICS} is damaged and left out: ")
        with Writer(tmp_path, 2):  # It writes all rows again, also to TensorBoard.
            pass
        assert (tmp_path / METRICS).read_text().splitlines() == [good]


def test_many_odd_rows_cost_some_lines_of_the_log(tmp_path, caplog):
    (tmp_path / METRICS).write_text("x\n" * 1000)
    assert read_rows(tmp_path) == []
    assert len(caplog.records) == 11
    assert "990 more lines of" in caplog.text


def test_a_full_disk_is_a_clear_error(tmp_path, monkeypatch):
    with Writer(tmp_path) as writer:
        writer.write("train", 1, {"loss": 0.5})
        monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(UsageError, match=r"cannot write .*metrics.jsonl: .*No space left.*Make room"):
            writer.sync()
        monkeypatch.undo()


def read_events(file, proto):
    """Events of a TFRecord file: length (8 bytes), checksum (4), event, checksum (4)."""
    content = file.read_bytes()
    while content:
        length = int.from_bytes(content[:8], "little")
        yield proto.Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_a_file_is_there_in_full_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text(path, json.dumps({"a": 1}))
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "half")
    assert json.loads(path.read_text()) == {"a": 1}
