"""Trains and evaluates a subspace: ``python -m jsubspace.main --config=configs/digits_cresnet8_line.py``.

Any field can be set on the command line, as in ``--config.optimizer.num_epochs=10``. The same command resumes a run that
was interrupted. A file that also defines ``get_problem(config)`` trains a problem of its own. A config file is Python and is executed: use only files that you would run as a program.
"""

import contextlib
import pathlib

from absl import app, flags

from jsubspace import program, runs
from jsubspace.runs import command_line, results
from jsubspace.storage import places
from jsubspace.training import device_choice, hosts

flags.adopt_module_key_flags(command_line)  # --help shows them
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Whether this is one of several hosts that run this command.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder. The default is runs/<name of the config file>.")


def main() -> None:
    """The program, after its flags have been parsed."""
    config, name = command_line.read_config()
    problem = command_line.problem_of_config(config)
    workdir = places.located(WORKDIR.value or pathlib.Path("runs") / name, "--workdir")
    program.use_compilation_cache()
    device_choice.use_cpu_cores()
    with hosts.joined() if DISTRIBUTED.value else contextlib.nullcontext():
        trained = runs.train(config, workdir) if problem is None else runs.train_problem(problem, config, workdir)
        if hosts.is_first():
            print(results.table(trained))
            print(f"\nresults, checkpoints and figures are in {workdir}")


if __name__ == "__main__":
    program.run(lambda: app.run(lambda _: main(), flags_parser=command_line.parse))
