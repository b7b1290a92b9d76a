"""Data sets: the facts (`sets`), and how they get onto the disk (`prepare`), into memory (`memory`) and into a step (`augment`).

Photographs do not fit into memory. `imagenet` reads them during training, and `jpeg` decodes and crops them in the
processes of `workers`.

A family of data sets that TensorFlow Datasets does not provide has its own module. Some official builders need TensorFlow,
and only to prepare.
"""

from typing import TYPE_CHECKING

from jsubspace import lazy

if TYPE_CHECKING:  # what the reference lists
    from jsubspace.data import arrays as arrays
    from jsubspace.data import from_grain as from_grain
    from jsubspace.data import protocol as protocol
else:
    __getattr__, __dir__ = lazy.modules(__name__, __path__)
