"""Trains and evaluates a subspace: ``python -m jsubspace.main --config=configs/digits_cresnet8_line.py``.

Any field can be set on the command line, as in ``--config.optimizer.num_epochs=10``. The same command again goes on
where the run was interrupted.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from jsubspace import loop, parallel, program, report
from jsubspace.errors import UsageError

CONFIG = config_flags.DEFINE_config_file("config", None, "The config file, one of configs/*.py.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; runs/<name of the config file> if not given.")


def main() -> None:
    """The program."""
    if CONFIG.value is None:
        raise UsageError("which run? Say --config=FILE, for example --config=configs/digits_cresnet8_line.py.")
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = pathlib.Path(WORKDIR.value or pathlib.Path("runs") / name)
    parallel.use_cpu_cores()
    print(report.table(loop.train(CONFIG.value, workdir)))
    print(f"\nresults, checkpoints and figures are in {workdir}")


if __name__ == "__main__":
    program.run(main)
