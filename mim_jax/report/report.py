"""Write the report of a run, `report.html` with embedded figures, and a model card; or that of several seeds.

The page fetches nothing and needs no script. Everything that comes from data (file names, class names, texts)
is escaped where it enters the HTML. The same input gives the same bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mim_jax.data.dataset import printable
from mim_jax.decide.decision import SCORE_NAMES
from mim_jax.evaluate.method_names import ordered
from mim_jax.evaluate.mim import Evaluated
from mim_jax.evaluate.statistics.summary import summarize_seeds
from mim_jax.report import figures
from mim_jax.report.figures import charts, pictures
from mim_jax.report.format import SHORT_NOTICE
from mim_jax.report.render import embed, render
from mim_jax.report.sections import reference_of, sections
from mim_jax.train.workdir import write_json

_WORST = 5  # groups or classes that the model card names


def write_report(workdir: str | Path, found: Evaluated) -> Path:
    """Write `report.html`, `model_card.md` and `figures/*.png` into a workdir, and return the page's path."""
    results, panels = found.results, found.panels
    notice = SHORT_NOTICE if results["notice"] else ""
    (Path(workdir) / "model_card.md").write_bytes(model_card(results).encode("utf-8"))
    return write_page(
        Path(workdir) / "report.html",
        "report.html.j2",
        figures.draw(found, notice=notice),
        **sections(results),
        panels=[
            {"name": name, "positive": panels.positive[rows[0]], "kind": str(panels.kind[rows[0]])}
            for name, rows in pictures.arrange(panels).items()
        ],
        inpainted=panels.inpainted is not None,
        difference_scale=pictures.DIFFERENCE_SCALE,
        training_curves={name: axis for name, (axis, _) in figures.TRAINING_CURVES.items()},
    )


def write_page(path: Path, template: str, pngs: Mapping[str, bytes], **values: Any) -> Path:
    """Write a page with its figures embedded, and `figures/*.png` beside it; return the page's path."""
    (path.parent / "figures").mkdir(parents=True, exist_ok=True)
    for name, png in pngs.items():
        (path.parent / "figures" / f"{name}.png").write_bytes(png)
    path.write_bytes(render(template, **values, figures=embed(pngs)).encode("utf-8"))
    return path


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


def write_seeds(folder: Path, results: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write `report.html`, `seeds.png` and `seeds.json` into `folder`, and return the page's path.

    `results` maps the name of each run's sub-folder to the content of its results.json, in order. ValueError
    if it is empty, or if methods or metrics differ.
    """
    summary = summarize_seeds(list(results.values()))
    write_json(folder / "seeds.json", {"runs": list(results), **summary})
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
