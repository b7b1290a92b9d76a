"""Settings that would change nothing. A run that begins is told so before it trains.

Runs of older versions may have such settings. They still resume, and can be evaluated again.
"""

import ml_collections

from jsubspace.errors import UsageError
from jsubspace.runs.config import collects, is_of_a_problem, value
from jsubspace.runs.settings_table import START


def check(config: ml_collections.ConfigDict) -> None:
    """Checks the settings of a run that begins.

    Args:
      config: settings that `limits.validate` has passed.

    Raises:
      UsageError: if a setting would change nothing. The message names the field, its value and what it may be.
    """
    subspace, start, tests = config.subspace, config.start, config.evaluation
    is_point = subspace.name == "point"
    only_of_resnets = "unless config.model.name is resnet: other networks have no such choice"
    rules = [
        (
            subspace.layerwise and is_point and not collects(config),
            "subspace.layerwise",
            "False for a point, which has no alpha",
        ),
        (
            start.role != START and is_point,
            "start.role",
            f"{START} for a point: one network has no penalty and no cos²",
        ),
        (
            subspace.shared_init and bool(start.network),
            "subspace.shared_init",
            "False with config.start.network, where no endpoint is initialised",
        ),
        (
            tests.early_stopping == "test" and tests.every_epochs == 0,
            "evaluation.early_stopping",
            "auto unless config.evaluation.every_epochs asks for tests during training",
        ),
    ]
    if not is_of_a_problem(config):
        model = config.model
        rules += [
            (model.name != "resnet" and model.inner_width != 1, "model.inner_width", f"1 {only_of_resnets}"),
            (model.name != "resnet" and model.stem != "tiny", "model.stem", f"tiny {only_of_resnets}"),
            (
                model.name == "mlp" and model.unbiased_batch_stats,
                "model.unbiased_batch_stats",
                "False for an mlp, which has no BatchNorm",
            ),
        ]
    for is_without_effect, field, expected in rules:
        if is_without_effect:
            raise UsageError(f"config.{field} is {value(config, field)!r}. It must be {expected}.")
