"""The demo's ways of training side by side: scores with intervals, differences to standard training, and how far apart the ends are.

With several seeds, an interval is the t interval of the mean over seeds, and differences are paired by seed. With one seed,
an interval is about other test images.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.lib.figure import midpoint
from experiments.lib.noisy_digits import STANDARD, STOPPED
from jsubspace.evaluation import bounds, paired
from jsubspace.runs import per_example

SCORES = ("accuracy", "nll", "ece", "ece_debiased")
TITLES = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE"}
MIDPOINT, ENSEMBLE = "midpoint", "ensemble of the ends"
NETWORK = ""
"""The predictor of a way that trains one network."""


class Predictor(NamedTuple):
    """A network or ensemble of one way.

    Attributes:
      way: how it was trained.
      name: what predicts, or "" for the one network of a way.
      networks: how many networks predict.
      rows: for every seed, a row of results.json with scores and ``intervals``.
      examples: for every seed, the scores per test image, or an empty list if they were not kept.
      apart: for every seed, cos² and distance of the ends, or an empty list for one network.
    """

    way: str
    name: str
    networks: int
    rows: list[dict[str, Any]]
    examples: list[dict[str, np.ndarray]]
    apart: list[tuple[float, float]]

    @property
    def label(self) -> str:
        """The name of its row."""
        return f"{self.way}: {self.name}" if self.name else self.way


def predictors(
    way: str,
    results: Sequence[dict[str, Any]],
    folders: Sequence[pathlib.Path],
    stopped: Sequence[dict[str, Any]] = (),
) -> list[Predictor]:
    """What is compared of one way.

    Args:
      way: its name.
      results: for every seed, the content of results.json.
      folders: for every seed, the run's folder.
      stopped: of early stopping, for every seed the results of the chosen state (`noisy_digits.stopped`).
    """
    kept = [per_example.read(folder, result) for folder, result in zip(folders, results, strict=True)]
    of_middle = [midpoint(result) for result in results]
    scores = [of_run[row["name"]] for of_run, row in zip(kept, of_middle, strict=True)]
    if way == STOPPED:
        chosen = [midpoint(result) for result in stopped]
        return [
            Predictor(way, NETWORK, 1, chosen, [], []),
            Predictor(way, "the same runs at the end", 1, of_middle, scores, []),
        ]
    pairs = [next((row for row in result["ensembles"] if row["kind"] == "ends"), None) for result in results]
    if not all(pairs):
        return [Predictor(way, NETWORK, 1, of_middle, scores, [])]
    apart = [tuple(result["endpoints"]["kernels"][of][0][1] for of in ("cosine_squared", "l2")) for result in results]
    ends = [[row for row in result["points"] if "end" in row["roles"]] for result in results]
    of_pairs = [of_run[pair["name"]] for of_run, pair in zip(kept, pairs, strict=True)]
    return [
        Predictor(way, "one end", 1, [of_run[0] for of_run in ends], [], apart),
        Predictor(way, MIDPOINT, 1, of_middle, scores, apart),
        Predictor(way, "the other end", 1, [of_run[-1] for of_run in ends], [], apart),
        Predictor(way, ENSEMBLE, 2, [pair["mean_probability"] for pair in pairs], of_pairs, apart),
    ]


def rows(found: Sequence[Predictor]) -> list[dict[str, Any]]:
    """What is written of every predictor. The others are compared with the network of standard training."""
    (standard,) = (one for one in found if one.way == STANDARD)
    return [_row(one, standard) for one in found]


def _row(one: Predictor, standard: Predictor) -> dict[str, Any]:
    row: dict[str, Any] = {"way": one.way, "predictor": one.name, "label": one.label, "networks": one.networks}
    for score in SCORES:
        values = [of_seed[score] for of_seed in one.rows]
        row[score] = {
            "seeds": values,
            "mean": float(np.mean(values)),
            "interval": bounds.of_runs(values) or one.rows[0]["intervals"][score],
        }
        if one is not standard:
            row[score]["minus_standard"] = _difference(one, standard, score)
    return row | {name: [of_seed[i] for of_seed in one.apart] for i, name in enumerate(("cosine_squared", "distance"))}


def _difference(one: Predictor, standard: Predictor, score: str) -> dict[str, Any]:
    differences = [a[score] - b[score] for a, b in zip(one.rows, standard.rows, strict=True)]
    of_images = paired.difference(one.examples, standard.examples, score) if one.examples else None
    return {
        "seeds": differences,
        "mean": float(np.mean(differences)),
        "over_seeds": bounds.of_runs(differences),
        "over_images": of_images[1] if of_images else None,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Scores with their intervals, and how far the ends are apart."""
    cells = [["", *TITLES.values(), "cos² of the ends", "distance"]]
    for row in rows:
        apart = [f"{np.mean(row[name]):.3g}" if row[name] else "" for name in ("cosine_squared", "distance")]
        cells.append([row["label"], *(_cell(row[score]["mean"], row[score]["interval"]) for score in TITLES), *apart])
    return _markdown(cells)


def table_of_differences(rows: Sequence[dict[str, Any]]) -> str:
    """Differences to standard training. Over seeds they are paired by seed, and over images by test image."""
    one_seed = len(rows[0]["accuracy"]["seeds"]) == 1
    kind = "over_images" if one_seed else "over_seeds"
    further = [] if one_seed else ["accuracy, over test images"]
    cells = [["minus standard training", *TITLES.values(), *further]]
    for row in rows:
        if row["way"] != STANDARD:
            of = {score: row[score]["minus_standard"] for score in TITLES}
            line = [row["label"], *(_cell(of[score]["mean"], of[score][kind], "+") for score in TITLES)]
            cells.append(line + [_interval(of["accuracy"]["over_images"], "+") for _ in further])
    return _markdown(cells)


def midpoint_against(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, tuple[float, list[float] | None]]]:
    """The line's midpoint minus every way that trains one network: the mean and its t interval, paired by seed, per score."""
    (middle,) = (row for row in rows if (row["way"], row["predictor"]) == ("line", MIDPOINT))
    found = {}
    for row in (row for row in rows if row["predictor"] == NETWORK):
        differences = {score: np.subtract(middle[score]["seeds"], row[score]["seeds"]) for score in TITLES}
        found[row["label"]] = {
            score: (float(of.mean()), bounds.of_runs(of.tolist())) for score, of in differences.items()
        }
    return found


def table_against_the_midpoint(rows: Sequence[dict[str, Any]]) -> str:
    """`midpoint_against` as a table."""
    cells = [["the line's midpoint minus", *TITLES.values()]]
    cells += [[label, *(_cell(*of, "+") for of in found.values())] for label, found in midpoint_against(rows).items()]
    return _markdown(cells)


def short_table(rows: Sequence[dict[str, Any]]) -> str:
    """Without the ends and without the ECE's differences, for a reader who has a minute. Differences are paired by seed."""
    cells = [["", "networks", *TITLES.values(), "accuracy − standard's", "ends: cos², distance"]]
    for row in rows:
        if row["predictor"] in (NETWORK, MIDPOINT, ENSEMBLE):
            difference = row["accuracy"].get("minus_standard")
            apart = ", ".join(f"{np.mean(row[name]):.3g}" for name in ("cosine_squared", "distance") if row[name])
            scores = [_cell(row[score]["mean"], row[score]["interval"]) for score in TITLES]
            against = _cell(difference["mean"], difference["over_seeds"], "+") if difference else ""
            cells.append([row["label"], str(row["networks"]), *scores, against, apart])
    return _markdown(cells)


def _cell(mean: float, interval: Sequence[float] | None, sign: str = "") -> str:
    return f"{mean:{sign}.3f} {_interval(interval, sign)}".strip()


def _interval(interval: Sequence[float] | None, sign: str = "") -> str:
    return "" if interval is None else f"({interval[0]:{sign}.3f} to {interval[1]:{sign}.3f})"


def _markdown(cells: list[list[str]]) -> str:
    """A table with columns of equal width, so that it can be read in a terminal."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells]
    lines = [padded[0], ["-" * width for width in widths], *padded[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def says(rows: Sequence[dict[str, Any]]) -> str:
    """What standard training and the line show, in plain sentences."""
    of = {(row["way"], row["predictor"]): row for row in rows}
    standard, middle, both = of[STANDARD, NETWORK], of["line", MIDPOINT], of["line", ENSEMBLE]
    images = len(standard["accuracy"]["seeds"]) == 1
    difference = middle["accuracy"]["minus_standard"]
    low, high = difference["over_images" if images else "over_seeds"]
    cosine, distance = np.mean(middle["cosine_squared"]), np.mean(middle["distance"])
    ends = "two different networks" if cosine < 0.1 else "similar networks"
    worse = middle["ece"]["mean"] > standard["ece"]["mean"]
    return (
        f"Standard training reads {standard['accuracy']['mean']:.1%} of the test digits. The middle of the line is one network "
        f"too, took as many steps, and reads {middle['accuracy']['mean']:.1%}: {difference['mean']:+.1%} (95 % interval over "
        f"{'test images' if images else 'seeds'} {low:+.1%} to {high:+.1%}).\n"
        f"The ends of the line are {ends} (cos² {cosine:.3g}, distance {distance:.0f}), and together they read "
        f"{both['accuracy']['mean']:.1%}.\n"
        f"Random labels teach every network to be unsure, so these calibration errors are large. That of the middle is "
        f"{'higher' if worse else 'lower'} ({middle['ece']['mean']:.2f}, standard training {standard['ece']['mean']:.2f})."
    )
