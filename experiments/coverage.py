"""How often the library's 95 % intervals hold the truth: ``python -m experiments.coverage --write`` (ten minutes).

Test sets are drawn from populations with a known truth, and the library's own functions make the intervals. With ``--write``
the table is put into docs/statistics.md.
"""

import argparse
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jsubspace import program
from jsubspace.evaluation import bounds, calibration, connectors, estimates, paired
from jsubspace.evaluation.metrics import Scores
from jsubspace.merging import alphas, domains, folds, gains
from jsubspace.storage.files import write_text

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "statistics.md"
START, END = "<!-- coverage: python -m experiments.coverage --write -->\n", "<!-- end of coverage -->"
_BLOCK = 100  # test sets that are scored at once


class Coverage(NamedTuple):
    """How often an interval holds the truth.

    Attributes:
      interval: what the interval is of.
      population: where the test sets come from.
      n: the number of test examples, or of runs.
      truth: the true value.
      covered: the fraction of test sets with the truth inside the interval.
      promised: whether the interval must reach 0.88 here.
    """

    interval: str
    population: str
    n: int
    truth: float
    covered: float
    promised: bool


def scores(sets: int, sizes: tuple[int, ...] = (100, 360, 1000, 10_000)) -> Iterator[Coverage]:
    """The intervals of a network's scores. Its confidences are 0.2 to 0.999, most of them high, and it has two classes."""
    for error in (0.0, 0.02, 0.05):
        for kind in ("overconfident",) if error == 0 else ("overconfident", "over and under", "in one bin", "certain"):
            truth = _truth(error, kind)
            for n in sizes:
                rng, hits = np.random.default_rng(n), dict.fromkeys(truth, 0.0)
                for first in range(0, sets, _BLOCK):
                    found = estimates.intervals(_scored(rng, (min(_BLOCK, sets - first), n), error, kind)[0])
                    for name, value in truth.items():
                        hits[name] += _inside(found[name], value).sum()
                for name, value in truth.items():
                    of_calibration = "ece" in name
                    if of_calibration or kind == "overconfident":
                        promised = n >= 1000 and (not of_calibration or error > 0)
                        population = f"gap {error}, {kind}" if error else "calibrated"
                        yield Coverage(name, population, n, value, hits[name] / sets, promised)


def differences(sets: int, sizes: tuple[int, ...] = (1000, 10_000)) -> Iterator[Coverage]:
    """The paired differences of two networks that share a part of their confidences and of what they find hard."""
    ours, theirs = _truth(0.05, "overconfident"), _truth(0.02, "overconfident")
    for n in sizes:
        rng, hits = np.random.default_rng(n), dict.fromkeys(ours, 0)
        for _ in range(sets):
            pair = _scored(rng, (1, n), 0.05, "overconfident", 0.02)
            a, b = (Scores(*(leaf[0] for leaf in one)) for one in pair)
            for name in ours:
                both = paired.difference([a._asdict()], [b._asdict()], name)
                assert both is not None
                hits[name] += bool(_inside(np.array(both[1]), ours[name] - theirs[name]))
        for name, count in hits.items():
            yield Coverage(
                f"{name}, paired difference", "gap 0.05 − gap 0.02", n, ours[name] - theirs[name], count / sets, True
            )


def paths(sets: int, sizes: tuple[int, ...] = (100, 360, 1000, 10_000)) -> Iterator[Coverage]:
    """The connector's difference and the barrier. The subspaces are lines and simplexes with accuracy 0.9 at the ends."""
    for m, kind, depth in (
        (2, "line without a barrier", 0.0),
        (2, "line, diffuse losses", 0.03),
        (2, "line, rare losses", 0.0101),
        (3, "simplex, m = 3, mesh", 0.03),
        (6, "simplex, m = 6, 6 draws", 0.03),
    ):
        for n in sizes:
            rng, inside, lowest = np.random.default_rng(n + m), 0, 0
            for _ in range(sets):
                alphas, along, draws = _positions(rng, m)
                lost = np.full(len(alphas), depth) if "rare" in kind else depth * (1 - (alphas**2).sum(-1)) * 2
                lost[:m] = 0
                deficit, truth = lost.max(), -float(along @ lost) if not draws else -2 * depth * (1 - 2 / (m + 1))
                found = connectors.verdict(
                    _correct(rng, lost, n, "rare" in kind), along, tuple(range(m)), alphas, draws=draws
                )
                inside += bool(_inside(np.array(found["interval"]), truth))
                lowest += bool(_inside(np.array(found["barrier_interval"]), deficit))
            yield Coverage("connector's difference", kind, n, truth, inside / sets, True)
            yield Coverage("barrier", kind, n, float(deficit), lowest / sets, True)


def runs(sets: int) -> Iterator[Coverage]:
    """The t interval of a mean over runs, for two kinds of noise between seeds."""
    rng = np.random.default_rng(0)
    for name, draw in (("normal", rng.normal), ("uniform", lambda size: rng.uniform(-1, 1, size))):
        for n in (2, 3, 5):
            found = np.array([bounds.of_runs(row) for row in draw(size=(sets, n))])
            yield Coverage("mean over runs", f"{name} noise", n, 0.0, float(_inside(found, 0).mean()), True)


def gains_of_fits(sets: int, sizes: tuple[int, ...] = (100, 1000)) -> Iterator[Coverage]:
    """The gain of fitted weights over the center, with the fit and its cross-fitting. The networks are linear regressions.

    The truth is the gain of the fitted weights in the population. It differs between validation sets, and its mean is shown.
    """
    for m, best, per_group in (
        (2, (0.5, 0.5), 1),
        (2, (0.2, 0.8), 1),
        (3, (1 / 3, 1 / 3, 1 / 3), 1),
        (6, (0.5, 0.3, 0.2, 0.0, 0.0, 0.0), 1),
        (2, (0.2, 0.8), 5),
    ):
        for n in sizes:
            rng = np.random.default_rng(n + m)
            networks = rng.normal(size=(m, 8)) / 2
            inside, truths = 0, []
            for _ in range(sets):
                found, truth = _fitted_gain(rng, networks, np.array(best), n, per_group)
                inside += bool(_inside(np.array(found.interval), truth))
                truths.append(truth)
            at = "at the center" if len(set(best)) == 1 else "elsewhere"
            groups = f", groups of {per_group}" if per_group > 1 else ""
            population = f"m = {m}, best {at}{groups}"
            yield Coverage("gain of a fit", population, n, float(np.mean(truths)), inside / sets, True)


def every(sets: int) -> list[Coverage]:
    """All simulations, with this number of test sets each."""
    return [*scores(sets), *paths(sets), *differences(sets), *gains_of_fits(sets), *runs(sets)]


def table(found: list[Coverage], sets: int) -> str:
    """The coverage in Markdown: one line per interval and population, and one column per number of examples."""
    sizes = (100, 360, 1000, 10_000)
    lines = [f"Each number is the fraction of {sets:,} simulated test sets.\n"]
    lines.append(f"| interval | population | truth | {' | '.join(f'n = {n:,}' for n in sizes)} |")
    lines.append(f"| --- | --- | --- |{' --- |' * len(sizes)}")
    rows: dict[tuple[str, str], dict[int, Coverage]] = {}
    for one in found:
        if one.interval != "mean over runs":
            rows.setdefault((one.interval, one.population), {})[one.n] = one
    for (interval, population), by_size in rows.items():
        truth = f"{next(reversed(by_size.values())).truth:.4f}"
        cells = [f"{by_size[n].covered:.3f}" if n in by_size else "" for n in sizes]
        lines.append(f"| {interval} | {population} | {truth} | {' | '.join(cells)} |")
    of_runs = [one for one in found if one.interval == "mean over runs"]
    lines += ["", "| interval | population | 2 runs | 3 runs | 5 runs |", "| --- | --- | --- | --- | --- |"]
    for population in dict.fromkeys(one.population for one in of_runs):
        cells = [f"{one.covered:.3f}" for one in of_runs if one.population == population]
        lines.append(f"| mean over runs | {population} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _fitted_gain(
    rng: np.random.Generator, networks: np.ndarray, best: np.ndarray, n: int, per_group: int
) -> tuple[gains.Gain, float]:
    """The gain of weights that are fitted to n examples, and its true value."""
    m, size = networks.shape
    group = np.arange(n) // per_group
    x, shared = rng.normal(size=(n, size)), rng.normal(size=n)[group]
    noise = 0.5**0.5 * (shared + rng.normal(size=n)) if per_group > 1 else shared
    y, predicted = x @ (best @ networks) + noise, x @ networks.T
    split = folds.folds(n, group)

    def slopes(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wrong = points[:, 0] @ predicted.T - y
        return (0.5 * wrong**2 * weights).sum(-1), ((wrong * weights) @ predicted)[:, None]

    def per_example(points: np.ndarray) -> np.ndarray:
        found: np.ndarray = 0.5 * (points[:, 0] @ predicted.T - y) ** 2
        return found

    center = np.full((1, 1, m), 1 / m)
    starts = np.concatenate([center, np.eye(m)[:, None]])
    of_starts = per_example(starts)
    fits = alphas.cross_fitted(slopes, starts, of_starts, domains.onto_simplex, split, 60)
    unseen = split.unseen(per_example(fits.positions))
    excess = [0.5 * float(np.sum(((c - best) @ networks) ** 2)) for c in (center[0, 0], fits.positions[0, 0])]
    return gains.gain(unseen, of_starts[0], split, alphas.CENTER, 0.01), excess[0] - excess[1]


def _confidences(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    if kind == "certain":
        return np.ones(shape)
    return (
        rng.uniform(0.05, 1, shape) if kind == "in one bin" else np.minimum(0.2 + 0.8 * rng.beta(6, 0.6, shape), 0.999)
    )


def _accuracy(confidence: np.ndarray, error: float, kind: str) -> np.ndarray:
    """The probability of a right answer with this confidence."""
    if kind == "in one bin":  # It holds 1 of 19 examples.
        return np.clip(confidence - np.where(np.ceil(confidence * 20) == 11, 19 * error, 0), 0, 1)
    sign = np.where(np.ceil(confidence * 5) % 2 == 0, 1, -1) if kind == "over and under" else 1
    return np.clip(confidence - sign * error, 0, 1)


def _of_answers(confidence: np.ndarray, correct: np.ndarray) -> Scores:
    """The scores of two classes."""
    of_label = np.where(correct, confidence, 1 - confidence)
    return Scores(correct.astype(np.float64), confidence, -np.log(np.maximum(of_label, 1e-12)), 2 * (1 - of_label) ** 2)


def _scored(rng: np.random.Generator, shape: tuple[int, int], *populations: float | str) -> list[Scores]:
    """Scores ``[sets, n]`` of one network, or of two on the same examples: errors, with the kind after the first."""
    errors = [given for given in populations if isinstance(given, float)]
    (kind,) = (given for given in populations if isinstance(given, str))
    hard, shared = rng.uniform(size=shape), rng.uniform(size=shape) < 0.7
    found = []
    for error in errors:
        confidence = _confidences(rng, shape, kind)
        answer = np.where(shared, hard, rng.uniform(size=shape))
        found.append(_of_answers(confidence, answer < _accuracy(confidence, error, kind)))
    return found


def _truth(error: float, kind: str) -> dict[str, float]:
    """Every score of the population, from half a million confidences and the probability of a right answer for each."""
    confidence = _confidences(np.random.default_rng(1), (500_000,), kind)
    accuracy = _accuracy(confidence, error, kind)
    right, wrong = (_of_answers(confidence, np.full(confidence.shape, answer)) for answer in (True, False))

    def mean(name: str) -> float:
        return float((accuracy * getattr(right, name) + (1 - accuracy) * getattr(wrong, name)).mean())

    def of_bins(bins: np.ndarray) -> float:
        return float(calibration.error(calibration.binned(bins, 20, confidence, accuracy)))

    by_width, by_mass = (of_bins(f(confidence, 20)) for f in (calibration.equal_width, calibration.equal_mass))
    means = {"accuracy": mean("correct"), "nll": mean("nll"), "brier": mean("brier")}
    return means | {"ece": by_width, "ece_debiased": by_width, "adaptive_ece": by_mass}


def _positions(rng: np.random.Generator, m: int) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Alphas ``[p, m]`` with the ends first, their weights in the mean, and the places of random draws."""
    if m > 3:
        alphas = np.concatenate([np.eye(m), rng.dirichlet(np.ones(m), 6)])
        return alphas, np.repeat([0, 1 / 6], [m, 6]), tuple(range(m, m + 6))
    alphas, along = connectors.mesh(m, 21)
    order = np.argsort(-alphas.max(-1), kind="stable")  # the ends first, in the order of their one
    order[:m] = order[:m][np.argsort(alphas[order[:m]].argmax(-1))]
    return alphas[order], along[order], ()


def _correct(rng: np.random.Generator, lost: np.ndarray, n: int, rare: bool) -> np.ndarray:
    """Right answers ``[p, n]``. Rare losses are the same examples at all points, diffuse losses differ from point to point."""
    hard = rng.uniform(size=n)
    if rare:
        return hard < 0.9 - lost[:, None]
    own = rng.uniform(size=(len(lost), n))
    return np.where(rng.uniform(size=n) < 0.7, hard, own) < 0.9 - lost[:, None]


def _inside(interval: np.ndarray, truth: float) -> np.ndarray:
    return (interval[..., 0] <= truth + 1e-12) & (truth - 1e-12 <= interval[..., 1])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=1000, help="how many test sets are simulated for every interval")
    parser.add_argument("--write", action="store_true", help="put the table into docs/statistics.md")
    arguments = parser.parse_args()
    text = table(every(arguments.sets), arguments.sets)
    print(text)
    if arguments.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        write_text(PAGE, f"{before}{START}{text}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    program.run(main)
