"""What a run keeps on the disk, and how nothing of it is lost."""

from typing import TYPE_CHECKING

from jsubspace import lazy

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.modules(__name__, __path__)
