"""Runs of several seeds as a distribution: what training anew does to each figure of the tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def summarize_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Runs that differ in their seed alone, as a distribution: what training anew does to each mean.

    Args:
      results: one a seed, each with "auroc" and "differences" as `summarize` returns them.

    Returns:
      "auroc": {"augmented" | "plain": {method: {metric: {"mean", "min", "max", "std", "seeds"}}}} and
      "differences": {method: {metric: the same}}, where "seeds" holds each run's mean over its folds, in the
      order given, and "std" is their population standard deviation, as everywhere in the tables.

    Raises:
      ValueError: no results, or results that do not hold the same methods and metrics.
    """
    if not results:
        raise ValueError("no results were given: one for each seed is needed")

    return {
        "auroc": {
            kind: _distribution([result["auroc"][kind] for result in results], f"{kind} AUROCs")
            for kind in ("augmented", "plain")
        },
        "differences": _distribution([result["differences"] for result in results], "differences"),
    }


def _distribution(tables: Sequence[Mapping[str, Any]], what: str) -> dict[str, Any]:
    names = [{method: sorted(metrics) for method, metrics in table.items()} for table in tables]
    for index, found in enumerate(names):
        if found != names[0]:
            raise ValueError(
                f"result {index} holds other {what} than result 0 ({found} and {names[0]}): give runs "
                "that differ in their seed alone"
            )
    return {
        method: {metric: _spread([table[method][metric]["mean"] for table in tables]) for metric in metrics}
        for method, metrics in names[0].items()
    }


def _spread(means: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": float(np.mean(means)),
        "min": min(means),
        "max": max(means),
        "std": float(np.std(means)),
        "seeds": list(means),
    }
