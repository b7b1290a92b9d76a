"""A report as text for a terminal."""

from typing import Any


def table(report: dict[str, Any]) -> str:
    """One line per point, ensemble and pair of endpoints, and the connector's verdict.

    Args:
      report: of `Report.to_json`, or the content of results.json.
    """
    return "\n".join([*_points(report), *_ensembles(report), *_geometry(report), *_connector(report)])


def _points(report: dict[str, Any]) -> list[str]:
    lines = ["point          accuracy     NLL   Brier     ECE"]
    for row in report["points"]:
        mark = "  <- midpoint" if "center" in row["roles"] and len(report["points"]) > 1 else ""
        lines.append(f"{row['name']:<14} {_scores(row)}{mark}")
    return lines


def _ensembles(report: dict[str, Any]) -> list[str]:
    if not report["ensembles"]:
        return []
    lines = ["", "ensemble       accuracy     NLL   Brier     ECE   TV dist.  disagree  feature cos^2"]
    for row in report["ensembles"]:
        cosine = row["feature_cosine_squared"]
        last = f"{cosine:13.4f}" if cosine is not None else f"{'-':>13}"
        lines.append(
            f"{row['name']:<14} {_scores(row['mean_probability'])}   {row['tv_distance']:7.4f}  {row['disagreement']:8.4f}  {last}"
        )
    return lines


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
    return [
        "",
        f"connector: {connector['verdict']}. Mean accuracy along it minus that of its ends {connector['difference']:+.4f} "
        f"(95 % interval {low:+.4f} to {high:+.4f}, tolerance {connector['tolerance']}); barrier "
        f"{connector['barrier']:.4f} at {connector['barrier_at']}.",
    ]


def _scores(row: dict[str, float]) -> str:
    return f"{row['accuracy']:8.4f}  {row['nll']:6.4f}  {row['brier']:6.4f}  {row['ece']:6.4f}"
