"""A write that ends after Orbax has given up says nothing, and every other lost exception is shown."""

import asyncio
import sys
import types

import pytest

from jsubspace.storage import late_callbacks


def test_only_callbacks_after_the_end_of_a_loop_are_ignored(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    for _ in range(2):
        late_callbacks.ignore()
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
