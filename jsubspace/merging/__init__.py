"""What is done with networks that exist already: verdicts, alignment, soups, lines, and coefficients that are fitted to data."""

from typing import TYPE_CHECKING

from jsubspace import lazy

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.modules(
        __name__,
        __path__,
        align="alignment",
        permuted="units",
        robust_line="robust_lines",
        slerp="arithmetic",
        symmetries="units",
        task_arithmetic="arithmetic",
    )
