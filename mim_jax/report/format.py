"""Format numbers, intervals and verdicts as text. The templates escape what comes from data."""

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

VERDICTS = ("better than", "not significantly different from", "worse than")
SHORT_NOTICE = "procedural images: says nothing about mpox"


def number(value: float | None) -> str:
    """Format with four decimals; "none" for None and for values that are not finite."""
    return f"{value:.4f}".replace("-", "\u2212") if value is not None and math.isfinite(value) else "none"


def signed(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{number(value)}"


def percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f} %"


def thousands(value: int) -> str:
    return f"{value:,}"


def span(values: list[int]) -> str:
    """Format the range of the values, or a single number if all are equal."""
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def interval(estimate: Mapping[str, Any], kind: str = "") -> str:
    """Format as [low, high], or "none" if there is no interval; "_folds" = the one by images and folds."""
    low, high = estimate[f"low{kind}"], estimate[f"high{kind}"]
    return "none" if low is None else f"[{number(low)}, {number(high)}]"


def intervals(estimate: Mapping[str, Any]) -> list[str]:
    """Format the interval by images and, if there is one, the interval by images and folds."""
    both = [interval(estimate)]
    return both if estimate.get("low_folds") is None else [*both, interval(estimate, "_folds")]


def widest(estimate: Mapping[str, Any]) -> str:
    """Format the interval by images and folds or, if there is none, the interval by images."""
    return intervals(estimate)[-1]


def place(source: str) -> str:
    """Name a source of images; for a local folder only its last part, because pages are shared."""
    path = PurePath(source)
    return f"folder {path.name}" if path.is_absolute() else source


def spread(estimate: Mapping[str, Any]) -> str:
    return f"{number(estimate['mean'])} ± {number(estimate['std'])}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def verdict(estimate: Mapping[str, Any], base: float = 0.0) -> tuple[str, str]:
    """Derive a verdict from the intervals of a difference, or of an AUROC against `base`.

    Returns:
      "better than", "worse than" or "not significantly different from"; the first two require every interval
      to lie on one side of `base`. Then a reservation: the verdict by images alone if it is stronger, or that
      there are too few groups; else "".
    """
    if estimate["low"] is None:
        return "not significantly different from", "too few groups for an interval"
    by_images = _side(estimate, "", base)
    by_folds = by_images if estimate["low_folds"] is None else _side(estimate, "_folds", base)
    words = dict(zip((1, 0, -1), VERDICTS, strict=True))
    if by_images and not by_folds:
        side = "better" if by_images > 0 else "worse"
        return words[0], f"{side} for these networks, perhaps not after retraining"
    return words[by_images if by_images == by_folds else 0], ""


def _side(estimate: Mapping[str, Any], kind: str, base: float) -> int:
    """1 if the interval lies above `base`, -1 if below, 0 if it includes `base`."""
    return (estimate[f"low{kind}"] > base) - (estimate[f"high{kind}"] < base)
