"""metrics.jsonl and TensorBoard events, also of a run that was killed."""

import json

import pytest

from jsubspace.writer import METRICS, Writer, read_rows, write_text


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


def test_tensorboard_points_after_the_step_are_taken_back(tmp_path):
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    with Writer(tmp_path) as writer:
        writer.write("train", 10, {"loss": 0.5})
    with Writer(tmp_path, step=5) as writer:
        writer.write("train", 10, {"loss": 0.25})
    files = sorted(tmp_path.glob("events.out.tfevents.*"))
    events = [event for file in files for event in read_events(file, proto)]
    values = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert (10, "train/loss", 0.25) in values
    assert any(e.session_log.status == proto.SessionLog.START and e.step == 6 for e in events)


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
