"""Hostile values for property tests, and the three ways in which a command may end.

A command works, or it is refused with one message and nothing is written, or (with ``codes``) it ends with another
documented code. Everything else is a mistake of the library.
"""

import contextlib
import io
import os
import pathlib
import time

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from jsubspace import program
from jsubspace.errors import USAGE, UsageError

CASES = int(os.environ.get("FUZZ_CASES", "3000"))
"""How many cases a slow fuzz test draws. Another number is drawn with ``FUZZ_CASES=100 make slow``."""

SECONDS = 60
"""Processor seconds that a case may take. What is refused is refused in a fraction of it."""

_SHARED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

QUICK = settings(max_examples=200, derandomize=True, **_SHARED)
"""For `make test`: the same cases every time."""

SLOW = settings(max_examples=CASES, derandomize=True, **_SHARED)
"""For `make slow`: the same cases every time, and many more."""

ODD_TEXTS = (
    *("", " ", ",", " , ", "a,,b", "a,", "\0", "a\0b", "\n", "a\nb", "\ud800", "\udcff", "é" * 300, "x" * 4000, "\x1b[31m"),
    *("~", "~nosuchuser", "~nosuchuser/x", "%s", "{x}", "gs://x/y", "a/b", "nul\u202e", "--help", "=", "==", "'", '"', "\\"),
    *("٤", "³", "fog_²", "fog_٣", "fog_", "_3", "fog_0", "fog_9", "fog_33", "all,fog", "ALL", "None", "none"),
    *("True", "true", "1", "0", "yes", "nan", "inf", "-inf", "1e400", "-1e400", "1_000", "0x10", "1e5", "1.", ".5", "+1"),
    *("9" * 400, "9" * 5000, "-0", "- 1", "1 2", "1if 2", "()", "(,)", "(1)", "(1,)", "(1e400,)", "(nan,)", "((1,),)"),
    *("[1]", "{}", "{1:2}", "(" * 300, "-" * 3000 + "1", "b'x'", "'\\d'", "1j", "lambda: 1", "__import__('os')"),
)  # fmt: skip

HUGE = (2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**30, 10**400)
NUMBERS = (0, 1, -1, 2, 3, 7, 1.0, 0.5, -0.5, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"), *HUGE)
NUMBERS += tuple(-number for number in HUGE)


def texts() -> st.SearchStrategy:
    """Texts that a shell, a file or a tired person may give. None of them names a path outside of the current folder."""
    drawn = st.text(max_size=20).filter(lambda text: not text.startswith(("/", "~")) and ".." not in text)
    return st.one_of(st.sampled_from(ODD_TEXTS), drawn)


def ended(call, folder, codes=(USAGE,)):
    """ "works", or the message with which a program ended as documented, with nothing written into ``folder``."""
    before, errors, start, code = listing(folder), io.StringIO(), time.process_time(), None
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            program.call(call)
    except SystemExit as end:
        code = end.code
    found = "works" if code is None else errors.getvalue()
    assert code is None or (code in codes and found.count("error:") == 1), (code, found)
    assert "Traceback" not in found
    assert listing(folder) == before
    assert time.process_time() - start < SECONDS
    return found


def returned(call, folder):
    """As `ended`, for a function: it returns, or raises a `UsageError`."""
    before, start = listing(folder), time.process_time()
    try:
        call()
        found = "works"
    except UsageError as error:
        found = str(error)
        assert found
    assert listing(folder) == before
    assert time.process_time() - start < SECONDS
    return found


def listing(folder):
    """The files and folders in a folder."""
    return sorted(str(path) for path in pathlib.Path(folder).rglob("*"))
