"""The model card of a run: markdown to keep with its weights."""

from collections.abc import Mapping
from typing import Any

from mim_jax.report.render import render
from mim_jax.report.sections import reference_of, sections

_WORST = 5  # groups or classes to name


def model_card(results: Mapping[str, Any]) -> str:
    """Render a run's results as a model card: use, data, procedure, results with intervals, and limits.

    The card is markdown with YAML front matter; what comes from data is escaped.
    """
    worst = {}
    for part in ("group", "class"):
        values = results[f"per_{part}"].get(reference_of(results), {})
        names = sorted(values, key=lambda name: (values[name]["mean"], name))[:_WORST]
        worst[part] = {name: values[name] for name in names}
    return render(
        "model_card.md.j2",
        **sections(results),
        worst=worst,
        image_size=results["config"].get("data", {}).get("image_size"),
    )
