"""A line of cResNet-8 on handwritten digits: the demo, about a minute on two CPU cores.

    python -m jsubspace.main --config=configs/digits_cresnet8_line.py

After Wortsman et al., Learning Neural Network Subspaces, 2021, section 3, at the smallest scale at which the question
makes sense. Expected: midpoint accuracy above 0.98, squared cosine of the endpoints below 0.01.
"""

import ml_collections

from jsubspace import config


def get_config() -> ml_collections.ConfigDict:
    settings = config.default()
    settings.data.name = "digits"
    settings.model.depth = 8
    settings.optimizer.num_epochs = 60
    settings.log_every_steps = 12
    settings.checkpoint_every_epochs = 10
    return settings
