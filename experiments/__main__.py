"""All figures: ``python -m experiments --scale=small``. What one figure has trained, the others use."""

from experiments import (
    appendix_averages,
    appendix_connectors,
    appendix_samples,
    appendix_shared_init,
    figure2,
    figure3,
    figure4,
    figure5,
    figure6,
    figure7,
    figure8,
    figure9,
    figure10,
    figure11,
    figure12,
    stats_sample,
)
from experiments.lib import figure
from jsubspace import program

MODULES = (
    *(figure4, figure5, figure6, figure3, figure9, figure10, figure8, figure7, figure11),
    *(appendix_shared_init, appendix_samples, appendix_connectors, appendix_averages, figure12, figure2, stats_sample),
)
"""In the order in which their runs are trained."""

if __name__ == "__main__":
    program.run(lambda: figure.main([module.FIGURE for module in MODULES]))
