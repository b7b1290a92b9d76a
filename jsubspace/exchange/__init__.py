"""Networks as files for other programs."""

from typing import TYPE_CHECKING

from jsubspace import lazy

if TYPE_CHECKING:  # what the reference lists
    from jsubspace.exchange import authors as authors
    from jsubspace.exchange import network_files as network_files
else:
    __getattr__, __dir__ = lazy.modules(__name__, __path__)
