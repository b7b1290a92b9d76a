"""A report as text for a terminal."""

import math
from typing import Any

from jsubspace.evaluation import score_names


def table(report: dict[str, Any]) -> str:
    """One line per point, ensemble and pair of endpoints, and the connector's verdict.

    Args:
      report: of `Report.to_json`, or the content of results.json.
    """
    return "\n".join(
        [
            *_points(report),
            *_ensembles(report),
            *_not_finite(report),
            *_calibration(report),
            *_geometry(report),
            *_connector(report),
        ]
    )


def _points(report: dict[str, Any]) -> list[str]:
    lines = [f"point          {_titles(report)}"]
    for row in report["points"]:
        mark = "  <- midpoint" if "center" in row["roles"] and len(report["points"]) > 1 else ""
        lines.append(f"{row['name']:<14} {_scores(report, row)}{mark}")
    return lines


def _ensembles(report: dict[str, Any]) -> list[str]:
    if not report["ensembles"]:
        return []
    if report.get("task"):
        rows = report["ensembles"]
        return [
            "",
            f"ensemble       {_titles(report)}",
            *(f"{row['name']:<14} {_scores(report, row['mean_probability'])}" for row in rows),
        ]
    lines = ["", f"ensemble       {_titles(report)}   TV dist.  disagree  feature cos^2"]
    for row in report["ensembles"]:
        cosine = row["feature_cosine_squared"]
        last = f"{cosine:13.4f}" if cosine is not None else f"{'-':>13}"
        lines.append(
            f"{row['name']:<14} {_scores(report, row['mean_probability'])}   {row['tv_distance']:7.4f}  {row['disagreement']:8.4f}  {last}"
        )
    return lines


def _not_finite(report: dict[str, Any]) -> list[str]:
    scores = score_names.higher_is_better(report)
    names = [row["name"] for row in report["points"] if not all(math.isfinite(row.get(score, 0)) for score in scores)]
    if not names:
        return []
    return [
        "",
        f"{len(names)} of {len(report['points'])} points have scores that are not finite, the first at {names[0]}: the network "
        "computes infinite or NaN outputs there, or calls a target impossible.",
    ]


def _calibration(report: dict[str, Any]) -> list[str]:
    """The interval of the midpoint's calibration error, and whether it says anything."""
    center = next(row for row in report["points"] if "center" in row["roles"])
    if "ece_debiased" not in center.get("intervals", {}):
        return []
    low, high = center["intervals"]["ece_debiased"]
    unclear = " With this number of examples it cannot be told from 0." if low == 0 else ""
    return [
        "",
        f"true ECE of the midpoint: 95 % interval {low:.4f} to {high:.4f}.{unclear} The plain ECE is too high on average.",
    ]


def _geometry(report: dict[str, Any]) -> list[str]:
    kernels = report["endpoints"].get("kernels") or {"l2": [], "cosine_squared": []}
    l2, cosine = kernels["l2"], kernels["cosine_squared"]
    pairs = [(i, j) for i in range(len(l2)) for j in range(i + 1, len(l2))]
    if not pairs:
        return []
    lines = ["", "kernels of     L2 distance    cos^2"]
    return [*lines, *(f"{f'{i + 1} & {j + 1}':<14} {l2[i][j]:11.3f}  {cosine[i][j]:.2e}" for i, j in pairs)]


def _connector(report: dict[str, Any]) -> list[str]:
    connector = report["connector"]
    if not connector:
        return []
    low, high = connector["interval"]
    score = score_names.title(score_names.main(report))
    draws = f", from {connector['draws']} random points" if connector.get("draws") else ""
    barrier = ""
    if bounds := connector.get("barrier_interval"):  # Older results lack it.
        barrier = f" (95 % interval {bounds[0]:.4f} to {bounds[1]:.4f})"
    return [
        "",
        f"connector: {connector['verdict']}. Mean {score} along it minus mean {score} of its ends "
        f"{connector['difference']:+.4f} (95 % interval {low:+.4f} to {high:+.4f}{draws}, tolerance {connector['tolerance']}). "
        f"Barrier {connector['barrier']:.4f}{barrier} at {connector['barrier_at']}.",
    ]


def _titles(report: dict[str, Any]) -> str:
    if not report.get("task"):
        return "accuracy     NLL   Brier     ECE  debiased"
    return "  ".join(f"{score_names.title(score):>{_width(score)}}" for score in score_names.higher_is_better(report))


def _width(score: str) -> int:
    return max(len(score_names.title(score)), 9)


def _scores(report: dict[str, Any], row: dict[str, float]) -> str:
    if report.get("task"):
        return "  ".join(f"{row[score]:{_width(score)}.4f}" for score in score_names.higher_is_better(report))
    debiased = f"{row['ece_debiased']:8.4f}" if "ece_debiased" in row else f"{'-':>8}"  # Older results lack it.
    return f"{row['accuracy']:8.4f}  {row['nll']:6.4f}  {row['brier']:6.4f}  {row['ece']:6.4f}  {debiased}"
