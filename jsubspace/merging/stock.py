"""Model Stock: how far to go from the pretrained network to the average, by the angle between fine-tuned networks."""

import numpy as np


def weights(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights of an origin and k networks that were fine-tuned from it, from the cosines of their differences.

    With the mean cosine c over pairs, the point lies the fraction

        t = k c / (1 + (k - 1) c)

    of the way from the origin to the average. It is the point nearest to the center of the sphere on which fine-tuned
    networks lie (Jang, Yun and Han, 2024, equation 7). A negative cosine counts as 0, so that the point lies between them. A
    part without a difference is in all networks the same, and t is 1.

    Args:
      cosines: ``[parts, k, k]`` of the differences, with zeros for a difference that is 0.

    Returns:
      Weights ``[parts, 1 + k]``, the origin's first, and the mean cosines ``[parts]``.

    Example:
      >>> found, cosine = weights(np.array([[[1.0, 0.5], [0.5, 1.0]]]))
      >>> found.round(4).tolist(), cosine.tolist()
      ([[0.3333, 0.3333, 0.3333]], [0.5])
    """
    k = cosines.shape[-1]
    above = np.triu_indices(k, 1)
    mean = cosines[:, above[0], above[1]].mean(-1)
    positive = np.maximum(mean, 0)
    ratio = k * positive / (1 + (k - 1) * positive)
    is_untrained = ~np.diagonal(cosines, axis1=1, axis2=2).any(-1)
    ratio = np.where(is_untrained, 1.0, ratio)
    of_networks = np.repeat(ratio[:, None] / k, k, axis=-1)
    return np.concatenate([1 - ratio[:, None], of_networks], axis=-1), mean
