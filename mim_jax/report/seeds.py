"""The page for several seeds: spread of every mean AUROC over trainings, as tables, figure and JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mim_jax.data.dataset import printable
from mim_jax.decide.decision import SCORE_NAMES
from mim_jax.evaluate.method_names import ordered
from mim_jax.evaluate.statistics.summary import summarize_seeds
from mim_jax.report.figures import charts
from mim_jax.report.format import SHORT_NOTICE
from mim_jax.report.render import embed, render
from mim_jax.report.sections import reference_of
from mim_jax.train import workdir


def write_seeds(folder: Path, results: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write `report.html`, `seeds.png` and `seeds.json` into `folder`, and return the page's path.

    `results` maps the name of each run's sub-folder to the content of its results.json, in order.

    Raises:
      ValueError: no results, or results with different methods or metrics.
    """
    summary = summarize_seeds(list(results.values()))
    workdir.write_json(folder / "seeds.json", {"runs": list(results), **summary})
    first = next(iter(results.values()))
    notice = next((result["notice"] for result in results.values() if result["notice"]), None)
    metric = first["decision"]["metric"]
    about: dict[str, Any] = {"metric": metric, "reference": reference_of(first)}
    png = charts.seed_figure(summary, **about, notice=SHORT_NOTICE if notice else "")
    (folder / "seeds.png").write_bytes(png)
    page = render(
        "seeds.html.j2",
        **summary,
        title=f"{first['title']}: {len(results)} seed{'' if len(results) == 1 else 's'}",
        notice=notice,
        **about,
        other_metrics=[other for other in SCORE_NAMES if other != metric],
        methods=ordered(summary["auroc"]["augmented"]),
        compared=ordered(summary["differences"]),
        runs=[printable(run) for run in results],
        figures=embed({"seeds": png}),
    )
    path = folder / "report.html"
    path.write_bytes(page.encode("utf-8"))
    return path
