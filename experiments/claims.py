"""A table of the paper's claims and of the recorded figures' answers: ``python -m experiments.claims``.

For every claim, each seed gives a number that is positive if the claim is true. In most cases it is the difference of two
methods with one seed. The claim *holds* if the 95 % t interval of the mean over seeds lies above zero. It *does not hold* if
the interval lies below zero, and it is *open* otherwise. With three seeds the t interval is 4.3 standard errors to each side.

The table has 43 numbers. If all of them were 0 on average, two of them would still be decided, by chance. A dagger (†) marks the verdicts that survive Holm's correction (1979): with all p-values in increasing order, the k-th
of h must be at most 0.05 / (h - k + 1), and so must every smaller one. The probability of a single false verdict with
a dagger in the whole table is then at most 0.05.

A second table measures claims at tuned rates, from the record of `experiments.budget`, with a correction of its own. The tables of
the guide have the gains in accuracy of the same record, and how far the ends are apart.
"""

import argparse
import pathlib

from experiments import budget
from experiments.lib import figure, study_tables, tuned_claims
from experiments.lib.budgets import SMALL
from experiments.lib.paper_claims import CLAIMS, FigureRecord
from experiments.lib.study_record import Record
from experiments.lib.verdicts import holm, together
from jsubspace import program
from jsubspace.errors import UsageError
from jsubspace.storage.files import write_text

START, END = "<!-- claims: python -m experiments.claims -->\n", "<!-- end of claims -->"
TUNED_START, TUNED_END = (
    "<!-- claims at tuned rates: python -m experiments.claims -->\n",
    "<!-- end of tuned claims -->",
)
GAINS_START, GAINS_END = "<!-- gains: python -m experiments.claims -->\n", "<!-- end of gains -->"
FOLDER = pathlib.Path(__file__).parent
RECORD, GUIDE = FOLDER / "README.md", FOLDER.parent / "docs" / "center.md"


def table(folder: pathlib.Path) -> str:
    """The claims in Markdown, from the figures' JSON files in ``folder``. A figure without a file is reported as missing."""
    measured_for = {
        claim: claim.measure(FigureRecord(folder / f"{claim.figure}.json"))
        for claim in CLAIMS
        if (folder / f"{claim.figure}.json").is_file()
    }
    threshold = holm([one.p_value for measured in measured_for.values() for one in measured])
    lines = ["| claim of the paper | section | measured, mean ± standard deviation over seeds | at this scale |"]
    lines.append("| --- | --- | --- | --- |")
    for claim in CLAIMS:
        if claim not in measured_for:
            lines.append(f"| {claim.text} | {claim.where} | not run yet | |")
            continue
        measured = measured_for[claim]
        words = "<br>".join(one.words(threshold) for one in measured)
        lines.append(f"| {claim.text} | {claim.where} | {words} | {together(measured)} |")
    return "\n".join(lines) + "\n"


def tuned_table(folder: pathlib.Path) -> str:
    """The claims in Markdown at rates and decays that validation images chose, from the record of `experiments.budget`."""
    return tuned_claims.table(SMALL, Record(folder / budget.RUNS_FILE))


def gains(folder: pathlib.Path) -> str:
    """What subspaces gain at these rates against standard training, and how far their ends are apart, for the guide."""
    methods, record = (*tuned_claims.LINES, *tuned_claims.SIXES), Record(folder / budget.RUNS_FILE)
    tables = (study_tables.summary, study_tables.extended, study_tables.apart)
    return "\n\n".join(made(SMALL, methods, record) for made in tables) + "\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.claims", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--figures", type=pathlib.Path, default=figure.OUTPUT / "small", help="the folder of the JSON files"
    )
    parser.add_argument(
        "--study", type=pathlib.Path, default=budget.RECORDED / "budget", help="the folder of the study's record"
    )
    parser.add_argument(
        "--write", action="store_true", help="put the tables into experiments/README.md and docs/center.md"
    )
    arguments = parser.parse_args()
    if not arguments.figures.is_dir():
        raise UsageError(f"there is no folder {arguments.figures}. Make the figures first: python -m experiments.")
    tables = (
        (RECORD, START, END, table(arguments.figures)),
        (RECORD, TUNED_START, TUNED_END, tuned_table(arguments.study)),
        (GUIDE, GAINS_START, GAINS_END, gains(arguments.study)),
    )
    print("\n".join(text for *_, text in tables))
    for path, start, end, text in tables if arguments.write else ():
        before, _, rest = path.read_text(encoding="utf-8").partition(start)
        write_text(path, f"{before}{start}{text}{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    program.run(main)
