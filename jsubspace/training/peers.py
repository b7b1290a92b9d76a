"""What a host does when it loses the others: it ends with one message and `errors.PREEMPTED`, and never waits for ever.

jax would end it with SIGABRT and a stack of C++, or it would wait for minutes. A host is lost in three ways:

- Its process has ended. Its connections are closed, and collectives of the others raise errors (`is_loss`).
- It is stopped, its machine is gone, or an accelerator waits for it in silence. It then sends no heartbeat to jax's service.
- It was the first host, which runs this service.

jax reports the second and the third way to a callback. Its C++ cannot convert the callback's argument for Python, and the
exception ends the process. We therefore also set the handler that C++ calls then (`_on_bad_cast`).
"""

import contextlib
import ctypes
import functools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
from jax._src import distributed

from jsubspace import endings
from jsubspace.errors import PREEMPTED, Preempted, UsageError
from jsubspace.storage.schema import Mismatch

HEARTBEAT_SECONDS = 100
"""A host is lost when it has sent no heartbeat for so long. jax's threads send heartbeats, whatever Python does."""

LEAVING_SECONDS = 10
"""How long a host that ends early waits for the others, which may be about to end for the same reason."""

LAST_SECONDS = 3600
"""How long a host that has finished waits for the first one, which still writes results and figures."""

LOST = (
    "another host of this run has ended or cannot be reached. Its output says why. What was saved is kept. Run the same "
    "command again on every host, and the run resumes from its last checkpoint."
)

_OF_LOSS = (
    "gloo", "nccl", "connection closed by peer", "connection reset by peer", "socket closed", "broken pipe", "heartbeat",
    "coordinationservice", "coordination service", "coordination agent", "barrier", "deadline_exceeded", "unavailable:",
)  # fmt: skip
"""Words in errors of collectives, of jax's service for several hosts, and of Orbax when a host is lost."""

_ENDING = threading.Lock()
_kept: list[Any] = []  # C++ calls these functions. Python must not free them.
_code: int | None = None


def connect(heartbeat_seconds: int, **arguments: Any) -> None:
    """Calls `jax.distributed.initialize` so that the loss of another host ends this process by `end_as_lost`."""
    with _reporting_losses(), noticing():
        jax.distributed.initialize(
            heartbeat_timeout_seconds=heartbeat_seconds, shutdown_timeout_seconds=LEAVING_SECONDS, **arguments
        )


@contextlib.contextmanager
def together() -> Iterator[None]:
    """The hosts end together: at the end of this context each waits for the others, and then leaves them.

    An exception ends the process here. Its message is printed, and the others are given `LEAVING_SECONDS` to end for the same
    reason. If this host has raised it alone, the others lose this host then. An error that is the loss of another host ends
    this one by `end_as_lost`.
    """
    try:
        with noticing():
            yield
            try:
                _wait(LAST_SECONDS)
            except TimeoutError:
                end_as_lost()
    except (Exception, Preempted, KeyboardInterrupt) as error:
        _leave(error)
    _set_code(0)
    jax.distributed.shutdown()


@contextlib.contextmanager
def noticing() -> Iterator[None]:
    """Ends the process if an error in this context is the loss of another host. It does nothing without `connect`.

    The loop enters it where its cleaning up would wait for the other hosts.
    """
    try:
        yield
    except Exception as error:
        if jax.distributed.is_initialized() and is_loss(error):
            end_as_lost()
        raise


def is_loss(error: BaseException) -> bool:
    """Whether an error, or one of its causes, is what jax, gloo, NCCL or Orbax raise when another host is lost.

    Example:
      >>> is_loss(RuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer [10.0.0.2]:2142"))
      True
      >>> is_loss(RuntimeError("RESOURCE_EXHAUSTED: Out of memory")), is_loss(OSError(28, "No space left", "runs/barrier"))
      (False, False)
    """
    cause: BaseException | None = error
    while cause is not None:
        ours = isinstance(cause, UsageError | Mismatch | BrokenPipeError)
        names_file = isinstance(cause, OSError) and cause.filename is not None  # A path may have any word in it.
        if not ours and not names_file and any(word in str(cause).lower() for word in _OF_LOSS):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def end_as_lost() -> NoReturn:
    """Ends the process with one message and `errors.PREEMPTED`. Any thread may call it.

    If this host was ending already, it ends with its own exit code and no second message.
    """
    if _code is None:
        _exit(PREEMPTED, LOST)
    _exit(_code)


def announcement() -> Callable[[], None] | None:
    """Tells all hosts that this one will be preempted. `Checkpoints.reached_preemption` is then true for all at one step.

    jax listens for SIGTERM, and has no other function for it. What is returned calls the C function that jax has made the
    handler of SIGTERM.

    Returns:
      A function, or None if jax does not listen because the process is alone or its service for preemption is disabled.
    """
    if not jax.distributed.is_initialized():
        return None
    handler_of = ctypes.pythonapi.PyOS_getsig
    handler_of.restype, handler_of.argtypes = ctypes.c_void_p, [ctypes.c_int]
    address = handler_of(signal.SIGTERM)
    if address in (None, signal.SIG_DFL, signal.SIG_IGN):
        return None
    return functools.partial(ctypes.CFUNCTYPE(None, ctypes.c_int)(address), signal.SIGTERM)


def _leave(error: BaseException) -> NoReturn:
    """Reports an exception and ends the process. Python would first call jax's shutdown, which aborts without the others."""
    known = endings.stopped(error) or endings.as_known(error)
    if known is None:
        traceback.print_exception(error)
    _set_code(1 if known is None else endings.report(known))
    with contextlib.suppress(Exception):
        _wait(LEAVING_SECONDS)
        if jax.process_index() == 0:
            time.sleep(1)  # jax's service ends with this process. jax would log errors on hosts that are still here.
    assert _code is not None
    _exit(_code)


def _set_code(code: int) -> None:
    """Notes the exit code with which this host is ending. A loss does not change it."""
    global _code
    _code = code


def _wait(seconds: float) -> None:
    """Returns when all hosts have called it. Signals are heard meanwhile.

    Raises:
      TimeoutError: after ``seconds``.
    """
    state, until = distributed.global_state, time.monotonic() + seconds
    if state.client is None:
        return
    folder = "finished/" if _code is None else "ending/"
    state.client.key_value_set(f"{folder}{state.process_id}", "")
    while len(state.client.key_value_dir_get(folder)) < state.num_processes:
        if time.monotonic() > until:
            raise TimeoutError(f"not all hosts have ended within {seconds} seconds")
        time.sleep(0.1)


def _exit(code: int, message: str = "") -> NoReturn:
    _ENDING.acquire()  # It is never released: another thread that is ending, too, waits here until the process has ended.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if message and stream is sys.stderr:
                print(message, file=stream)
            stream.flush()
    os._exit(code)


@contextlib.contextmanager
def _reporting_losses() -> Iterator[None]:
    """Lets `jax.distributed.initialize` pass our callback to its client. It has no argument for it.

    With a jax that takes no such callback, the process ends as jax ends it.
    """
    module: Any = getattr(distributed, "_jax", None)
    make: Any = getattr(module, "get_distributed_runtime_client", None)
    if "missed_heartbeat_callback" not in str(make.__doc__) or not _on_bad_cast():
        yield
        return
    module.get_distributed_runtime_client = functools.partial(
        make, missed_heartbeat_callback=lambda *status: end_as_lost()
    )
    try:
        yield
    finally:
        module.get_distributed_runtime_client = make


def _on_bad_cast() -> bool:
    """Makes `end_as_lost` what C++ calls for an exception of type std::bad_cast that nobody catches.

    Returns:
      Whether this is possible here. Otherwise jax's own end, SIGABRT, is the better one.
    """
    if sys.platform != "linux":
        return False
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        set_handler, current_type = library["_ZSt13set_terminatePFvvE"], library["__cxa_current_exception_type"]
    except (OSError, AttributeError):
        return False
    set_handler.restype = current_type.restype = ctypes.c_void_p
    function = ctypes.CFUNCTYPE(None)

    def handle() -> None:
        address = current_type()  # A type_info has its table of functions first, and then its name.
        if address and ctypes.c_char_p.from_address(address + ctypes.sizeof(ctypes.c_void_p)).value == b"St8bad_cast":
            end_as_lost()
        function(before)()

    handler = function(handle)
    _kept.append(handler)
    before = set_handler(handler)
    return True
