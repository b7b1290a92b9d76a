"""Data sets: what they are (`sets`), how they get onto the disk (`prepare`), into memory (`memory`) and into the step (`augment`).

Photographs do not fit into memory: `imagenet` reads them as training goes on, `jpeg` decodes and crops them, in the
processes of `workers`.

A module a data set family that is not TensorFlow Datasets' own. TensorFlow is needed by some official
builders, and only to prepare.
"""

from typing import TYPE_CHECKING

from jsubspace import lazy

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.modules(__name__, __path__)
