"""Networks, data and a loop that the guides, the notebooks and the tests share. Nothing else of the library uses them."""

from typing import TYPE_CHECKING

from jsubspace import lazy

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.modules(__name__, __path__)
