"""Python's garbage collector while a program starts.

To import jax and this library makes hundreds of thousands of objects, which live as long as the program. The collector would
look at all of them again and again, which takes a sixth of the time of the imports. So a program pauses it until its modules
are imported. After that it leaves these objects alone, and collects what is made later. In a notebook, or in somebody else's
program, nothing is changed.
"""

import gc

from jsubspace import preemption

_paused = preemption.is_our_program()
"""Whether the collector waits for the imports of this program."""


def resume() -> None:
    """Ends the pause of a program that has imported its modules. Without a pause it does nothing."""
    global _paused
    if _paused:
        gc.freeze()
        gc.enable()
    _paused = False


if _paused:
    gc.disable()
