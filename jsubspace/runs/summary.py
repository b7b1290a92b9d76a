"""The results of a run as text for a terminal, and the best of several rows."""

import math
from typing import Any

from jsubspace.evaluation import score_names, tables

_NUMBERS = (
    *("tv_distance", "disagreement", "disagreement_where_one_is_right"),
    *("difference", "barrier", "eigenvalue", "residual"),
)
"""The names under which a result is always a number, beside its scores."""


def table(results: dict[str, Any]) -> str:
    """The results for a terminal: the report, and one line for every other thing that was measured.

    A score that is not finite is None in results.json, and shown as nan.
    """
    results = _with_nan(results)
    lines = [tables.table(results)]
    if validation := results.get("validation"):
        lines += ["", _chosen(results, validation)]
    if best := results["early_stopping"]:
        lines += ["", _stopped(results, best)]
    for name, found in (results["sharpness"] or {}).items():
        value, residual = found["eigenvalue"], found["residual"]
        lines += [
            "",
            f"largest eigenvalue of the Hessian at {name}: {value:.4g}, residual {residual:.2g}{_unsure(found)}",
        ]
    for name, shifted in results["shifted"].items():
        main = score_names.main(results)
        sign = 1 if score_names.higher_is_better(results)[main] else -1
        best = best_row(shifted["points"], main, sign) or shifted["points"][0]
        midpoint = next(row for row in shifted["points"] if "center" in row["roles"])
        lines += ["", f"{name}: midpoint {midpoint[main]:.4f}, best at {best['name']} {best[main]:.4f}"]
    return "\n".join(lines)


def best_row(rows: list[dict[str, Any]], score: str, sign: int = 1) -> dict[str, Any] | None:
    """The row with the highest score, or with sign -1 the lowest. Rows whose score is not finite never win."""
    finite = [row for row in rows if math.isfinite(_number(row.get(score)))]
    return max(finite, key=lambda row: sign * row[score], default=None)


def _chosen(results: dict[str, Any], validation: dict[str, Any]) -> str:
    """The point that validation data chooses, with its scores on the test set."""
    if validation["best"] is None:
        score = score_names.title(score_names.chosen_by(results))
        return f"chosen on the validation data: nothing, since no point has a finite {score} there"
    point = next(row for row in results["points"] if row["name"] == validation["best"])
    chosen_by = score_names.chosen_by(results)
    both = dict.fromkeys((score_names.main(results), chosen_by))
    scores = " and ".join(f"{score_names.title(score)} {point[score]:.4f}" for score in both)
    return f"chosen on the validation data, by {score_names.title(chosen_by)}: {point['name']}, with {scores} on the test set"


def _stopped(results: dict[str, Any], best: dict[str, Any]) -> str:
    """The best test during training. Results of an older version were all chosen on the test set."""
    main = score_names.main(results)
    score = f"{score_names.title(main)} {best[main]:.4f}"
    if best.get("tested_on", "test") == "test":
        return f"optimal early stopping of the midpoint, chosen on the test set: {score} after epoch {best['epoch']:g}"
    return (
        f"early stopping of the midpoint, chosen on the validation data: after epoch {best['epoch']:g}, with {score} "
        "on the validation data"
    )


def _number(value: Any) -> float:
    """A number of results.json, where None stands for a number that is not finite."""
    return math.nan if value is None else value


def _with_nan(results: dict[str, Any]) -> dict[str, Any]:
    """Results with NaN in the place of numbers that are None, so that they can be printed.

    None in a list, or under the name of a number, stands for a number. Other fields are None if they were not measured.
    """

    names = {*_NUMBERS, *score_names.higher_is_better(results)}

    def filled(content: Any, name: str = "") -> Any:
        if isinstance(content, dict):
            return {inner: filled(value, inner) for inner, value in content.items()}
        if isinstance(content, list):
            return [_number(filled(value)) for value in content]
        return _number(content) if name in names else content

    return filled(results)


def _unsure(found: dict[str, float]) -> str:
    """A warning if power iteration has not converged: the residual is more than one hundredth of the eigenvalue."""
    return " (not converged)" if found["residual"] > 0.01 * abs(found["eigenvalue"]) else ""
