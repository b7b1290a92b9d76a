"""What is done with networks that exist already: verdicts, alignment, soups, lines, and coefficients that are fitted to data."""

from typing import TYPE_CHECKING

from jsubspace import lazy

if TYPE_CHECKING:  # what the reference lists
    from jsubspace.merging.alignment import align as align
    from jsubspace.merging.arithmetic import slerp as slerp
    from jsubspace.merging.arithmetic import task_arithmetic as task_arithmetic
    from jsubspace.merging.robust_lines import robust_line as robust_line
    from jsubspace.merging.units import permuted as permuted
    from jsubspace.merging.units import symmetries as symmetries
else:
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
