"""A small multilayer perceptron, for demonstrations and tests."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jsubspace.models.layers import KAIMING_NORMAL, Classifier, Outputs


class MLP(nn.Module):
    """Dense layers with biases and ReLUs on flattened images, and a classifier.

    It is called like the paper's networks.

    Attributes:
      num_classes: k.
      widths: the number of units of each hidden layer.
      dropout_rate: the dropout rate after each ReLU. Dropout needs a ``dropout`` key in training.
      dtype: the dtype of the computation. None follows parameters and images.

    Example:
      >>> model = MLP(num_classes=3, widths=(8,))
      >>> images = jnp.zeros((2, 4, 4, 1))
      >>> params = model.init(jax.random.key(0), images, train=True)["params"]
      >>> model.apply({"params": params}, images, train=False).features.shape
      (2, 8)
    """

    num_classes: int
    widths: tuple[int, ...] = (64, 64)
    dropout_rate: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        """Logits and features of images ``[n, ...]``. The features are the last hidden layer before its ReLU."""
        x = features = jnp.reshape(images, (images.shape[0], -1))
        for i, width in enumerate(self.widths):
            features = nn.Dense(width, dtype=self.dtype, kernel_init=KAIMING_NORMAL, name=f"hidden{i}")(x)
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(nn.relu(features))
        return Outputs(Classifier(self.num_classes, dtype=self.dtype, name="classifier")(x), features)
