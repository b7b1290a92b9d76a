"""What is done with networks that exist already: soups, lines, and coefficients that are fitted to data."""

from typing import TYPE_CHECKING

from jsubspace import lazy

if TYPE_CHECKING:  # what the reference lists
    from jsubspace.merging.arithmetic import slerp as slerp
    from jsubspace.merging.arithmetic import task_arithmetic as task_arithmetic
    from jsubspace.merging.robust_lines import robust_line as robust_line
else:
    __getattr__, __dir__ = lazy.modules(
        __name__, __path__, robust_line="robust_lines", slerp="arithmetic", task_arithmetic="arithmetic"
    )
