"""A write that ends after Orbax has given up says nothing and leaves nothing, and every other lost exception is shown."""

import asyncio
import sys
import threading
import time
import types

import pytest

from jsubspace.storage import late_writes


def test_only_callbacks_after_the_end_of_a_loop_are_ignored(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    for _ in range(2):
        late_writes.ignore()
    assert sys.unraisablehook._other == shown.append  # not wrapped twice

    def lose(function):
        with pytest.raises(RuntimeError) as raised:
            function()
        traceback = raised.tb.tb_next.tb_next if function is late else raised.tb  # TensorStore has no Python code.
        sys.unraisablehook(types.SimpleNamespace(exc_value=raised.value, exc_traceback=traceback))

    loop = asyncio.new_event_loop()
    loop.close()

    def late():
        loop.call_soon_threadsafe(print)

    def mistake():
        raise RuntimeError("Event loop is closed")

    lose(late)
    assert shown == []
    lose(mistake)
    assert len(shown) == 1


def test_what_a_late_write_makes_again_is_removed(tmp_path):
    half_saved = tmp_path / "12.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp"
    (tmp_path / "6").mkdir()

    def write():
        half_saved.mkdir(parents=True)
        (half_saved / "half").write_text("of an array")

    write()
    late = threading.Timer(0.2, write)
    late.start()
    late_writes.clear(tmp_path)
    late.join()
    assert [path.name for path in tmp_path.iterdir()] == ["6"]


def test_a_folder_without_half_saved_checkpoints_costs_no_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    late_writes.clear(tmp_path)
