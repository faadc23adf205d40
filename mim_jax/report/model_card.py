"""The model card of a run: markdown that goes wherever its weights go."""

from collections.abc import Mapping
from typing import Any

from mim_jax.evaluate.method_names import REFERENCE
from mim_jax.report.render import render
from mim_jax.report.sections import sections, sides

_WORST = 5  # classes named as the worst


def model_card(results: Mapping[str, Any]) -> str:
    """Intended use, data, procedure, results with intervals, and limits: markdown with YAML front matter.

    Args:
      results: what results.json holds. What comes from data in it is escaped.
    """
    worst = {}
    for part in ("group", "class"):
        values = results[f"per_{part}"].get(REFERENCE, {})
        names = sorted(values, key=lambda name: (values[name]["mean"], name))[:_WORST]
        worst[part] = {name: values[name] for name in names}
    decided = sides(results["decision"]["table"], results["data"]["positive"])
    return render(
        "model_card.md.j2",
        **sections(results),
        worst=worst,
        decided=decided,
        image_size=results["config"].get("data", {}).get("image_size"),
    )
