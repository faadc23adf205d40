"""Summary of a finished run: counts, and how far its scores have drifted from the calibration cases."""

import heapq
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mim_jax.decide.decision import Calibration, Decision
from mim_jax.deploy.bulk.output import Output

SLOWEST = 10
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MEANING = (
    "Under the guarantee the p-values of new mpox cases like the calibration cases are uniform, and the "
    "distance stays below the bound in 95 of 100 batches of such cases if they are independent. A batch "
    "that also contains other diseases or healthy skin is far from uniform without any drift, and a small "
    "distance of such a batch shows nothing. So compare its distance with those of earlier batches of the "
    "same kind: a jump means that cameras, people or diseases have changed, but not which of them. Even if "
    "the distance does not change, decisions may be wrong."
)


@dataclass(frozen=True)
class Batch:
    """Counts of the finished rows, and `scores` and `p_values` of the usable images, in order."""

    counts: dict[str, Any]
    scores: np.ndarray  # float64 `[N]`
    p_values: np.ndarray  # float64 `[N]`, or `[0]` if not calibrated


def summarise(output: Output) -> Batch:
    """Count the rows of a finished run, one part at a time; ValueError if a part is damaged."""
    decisions, reasons = Counter[str](), Counter[str]()
    slowest: list[tuple[float, str]] = []
    scores, p_values = [np.empty(0)], [np.empty(0)]
    size = 0
    for table in output.read("path", "bytes", "score", "p_value", "decision", "reason", "seconds"):
        decided = table["decision"].to_pylist()
        decisions.update(decided)
        explained = zip(decided, table["reason"].to_pylist(), strict=True)
        reasons.update(_head(reason) for decision, reason in explained if decision == Decision.UNUSABLE)
        timed = zip(table["seconds"].to_pylist(), table["path"].to_pylist(), strict=True)
        slowest = heapq.nlargest(SLOWEST, [*slowest, *timed])
        size += sum(each or 0 for each in table["bytes"].to_pylist())
        for column, kept in (("score", scores), ("p_value", p_values)):
            kept.append(table[column].drop_null().to_numpy())
    rows = decisions.total()
    if rows != output.count:
        raise ValueError(
            f"{output.root} holds {rows} rows, expected {output.count}: run the same command again"
        )
    return Batch(
        {
            "rows": rows,
            "bytes": size,
            "decisions": {str(each): decisions[each] for each in Decision},
            "reasons": dict(reasons.most_common()),
            "slowest": [{"path": path, "seconds": round(seconds, 3)} for seconds, path in slowest],
        },
        np.concatenate(scores),
        np.concatenate(p_values),
    )


def _head(reason: str) -> str:
    """Return the kind of a reason: its first words, with numbers that differ between files replaced.

    >>> _head("blurred: its sharpness is 0.0012 (...)"), _head("31x20 pixels; at least ...")
    ('blurred', 'N pixels')
    """
    return re.sub(r"\d[\dx.,]*", "N", re.split("[:;(]", reason, maxsplit=1)[0]).strip()


def drift(batch: Batch, calibration: Calibration | None) -> dict[str, Any] | None:
    """Compare a batch with the calibration cases; None if nothing was calibrated or nothing was scored.

    Returns:
      `distance`, the largest difference between the share of p-values up to t and t, over the values t that
      they can take (Kolmogorov's distance); `bound`, which it stays below in 95 of 100 batches of independent
      cases like the calibration cases (Smirnov, Annals of Mathematical Statistics, 1948, for two samples: the
      calibration is one of them); quantiles of both sets of scores; an explanation.
    """
    known = np.concatenate([np.empty(0), *map(np.array, calibration.scores)]) if calibration else np.empty(0)
    count, new = len(known), len(batch.p_values)
    if not count or not new:
        return None
    return {
        "distance": distance(batch.p_values, count),
        "bound": float(min(1.0, 1.358 * np.sqrt(1 / count + 1 / new))),
        "calibrated_on": count,
        "quantiles": {
            "at": list(QUANTILES),
            "batch": np.quantile(batch.scores, QUANTILES).tolist(),
            "calibration": np.quantile(known, QUANTILES).tolist(),
        },
        "meaning": MEANING,
    }


def distance(p_values: Sequence[float] | np.ndarray, count: int) -> float:
    """Kolmogorov's distance of p-values from uniform ones for `count` calibration cases, 0 to 1.

    >>> distance([0.25, 0.5, 0.75, 1.0], 3), distance([0.25, 0.25], 3)
    (0.0, 0.75)
    """
    steps = np.arange(1, count + 2) / (count + 1)
    # P-values equal such steps; adding half a step makes the comparison safe from rounding.
    share = np.searchsorted(np.sort(p_values), steps + 0.5 / (count + 1)) / len(p_values)
    return float(np.max(np.abs(share - steps)))


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Format a summary as lines of text."""
    decisions = ", ".join(f"{name} {count:,}" for name, count in found["decisions"].items())
    lines = [f"rows: {found['rows']:,} ({decisions}), {found['bytes'] / 2**20:,.1f} MiB of images"]
    if found["reasons"]:
        listed = [f"{name} {count:,}" for name, count in found["reasons"].items()]
        more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
        lines.append(f"unusable, by first reason: {', '.join(listed[:8])}{more}")
    slow = [f"{each['path']} {each['seconds']:.2f} s" for each in found["slowest"][:3]]
    lines.append(f"slowest to read and decode: {', '.join(slow)}")
    if away := found.get("drift"):
        lines.append(
            f"distance of the p-values from uniform: {away['distance']:.3f} (for mpox alone: below "
            f"{away['bound']:.3f} in 95 of 100 batches); for a mixed batch, compare it with earlier ones only"
        )
    return lines
