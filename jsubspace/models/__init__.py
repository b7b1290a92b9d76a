"""Networks of the paper, in Flax linen, with the initialisation, padding and numerics of the authors' program."""

from typing import TYPE_CHECKING

from jsubspace import lazy

if TYPE_CHECKING:  # what the reference lists
    from jsubspace.models import adapters as adapters
    from jsubspace.models import cresnet as cresnet
    from jsubspace.models import mlp as mlp
    from jsubspace.models import resnet as resnet
else:
    __getattr__, __dir__ = lazy.modules(__name__, __path__)
