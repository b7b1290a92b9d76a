"""Networks of the paper, in Flax linen, with the reference's initialisation, padding and numerics."""

from typing import TYPE_CHECKING

from jsubspace import lazy

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.modules(__name__, __path__)
