"""The page of several seeds: what training anew does to every mean, as a table, a figure and JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib

from mim_jax import canvas, page
from mim_jax.evaluate.statistics.seeds import summarize_seeds
from mim_jax.train import workdir
from mim_jax.wording import (
    METRIC_NAMES,
    REFERENCE,
    leading,
    method_name,
    metric_name,
    number,
    ordered,
    printable,
    signed,
)

_WORDS = (
    "Each number is the mean AUROC over the folds of one run; the runs differ in their seed alone: folds, "
    "initial weights, masks and the order of images. ± is the population standard deviation over the seeds. "
    "The spread is what drawing all of this anew does; how images vary is in the intervals of each run's own "
    "report. No run is picked: read the mean."
)
_FOOTER = "<footer><p>This is research software and not a medical device.</p></footer>"


def write_seeds(folder: Path, results: Mapping[str, Mapping[str, Any]]) -> Path:
    """Writes `report.html`, `seeds.png` and `seeds.json` into the folder; returns the path of the page.

    Args:
      folder: holds the runs, each in its own folder; exists.
      results: name of a run's folder in `folder` -> what its results.json holds, one or more, in order.

    Raises:
      ValueError: no results, or results that do not hold the same methods and metrics.
    """
    summary = summarize_seeds(list(results.values()))
    workdir.write_json(folder / "seeds.json", {"runs": list(results), **summary})
    first = next(iter(results.values()))
    notice = next((result["notice"] for result in results.values() if result["notice"]), None)
    metric = first["decision"]["metric"]
    png = seed_figure(summary, metric=metric, notice=page.SHORT_NOTICE if notice else "")
    (folder / "seeds.png").write_bytes(png)
    path = folder / "report.html"
    text = _page(summary, png, list(results), title=first["title"], notice=notice, metric=metric)
    path.write_bytes(text.encode("utf-8"))
    return path


def seed_figure(summary: Mapping[str, Any], *, metric: str, notice: str = "") -> bytes:
    """Every seed's mean AUROC as a dot, one line a method; the mean over the seeds is a stroke."""
    values = summary["auroc"]["augmented"]
    methods = ordered(values)
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(0.8 + 0.2 * len(methods), notice)
        axes = figure.add_subplot(
            xlabel=f"mean AUROC, {metric_name(metric)} or a score of its own", ylim=(len(methods) - 0.4, -0.6)
        )
        axes.axvline(0.5, color="#999999", linewidth=0.8)
        for place, method in enumerate(methods):
            own = leading(values[method], metric)
            color = canvas.COLORS[0] if method == REFERENCE else canvas.COLORS[6]
            axes.plot(own["seeds"], [place] * len(own["seeds"]), "o", color=color, markersize=4, alpha=0.6)
            axes.plot(own["mean"], place, "|", color=color, markersize=12, markeredgewidth=2)
        axes.set_yticks(range(len(methods)), [canvas.drawable(method_name(name), 24) for name in methods])
        axes.grid(axis="x")
        return canvas.png(figure)


def _page(
    summary: Mapping[str, Any],
    png: bytes,
    runs: Sequence[str],
    *,
    title: str,
    notice: str | None,
    metric: str,
) -> str:
    aurocs, name = summary["auroc"], page.text(metric_name(metric))
    links = page.bullets(
        f'<a href="{quote(printable(run))}/report.html">{page.text(run)}</a>' for run in runs
    )
    own = f"{name} or, with a *, a score of its own"
    others = [key for key in METRIC_NAMES if key != metric]
    rest = [
        _table(aurocs["augmented"], key, runs, f"AUROC by {page.text(metric_name(key))}, augmented test sets")
        for key in others
    ]
    caption = "Figure. Mean AUROC of every seed (dots) and their mean (stroke), augmented test sets"
    sections = (
        page.section("Several seeds", _WORDS, links),
        page.gallery({"seeds": png}, {"seeds": caption}),
        _table(aurocs["augmented"], metric, runs, f"AUROC by {own}, augmented test sets", alone=True),
        _table(
            summary["differences"],
            metric,
            runs,
            f"MIM minus each method by {name} or that method's own score",
            differences=True,
        ),
        page.details(
            "The plain test images, and the other metrics",
            _table(aurocs["plain"], metric, runs, f"AUROC by {own}, plain test images", alone=True),
            *rest,
        ),
        _FOOTER,
    )
    return page.frame(f"{title}: {len(runs)} seed{'' if len(runs) == 1 else 's'}", notice, sections)


def _table(
    methods: Mapping[str, Mapping[str, Any]],
    metric: str,
    runs: Sequence[str],
    title: str,
    *,
    alone: bool = False,
    differences: bool = False,
) -> str:
    """Methods down, mean, spread and seeds across; those without the metric only where `alone`, starred."""
    show = signed if differences else number
    rows = []
    for method in ordered(methods):
        if metric in methods[method] or alone:
            value = leading(methods[method], metric)
            star = "" if metric in methods[method] else " *"
            cells = [
                f"{show(value['mean'])} ± {number(value['std'])}",
                show(value["min"]),
                show(value["max"]),
            ]
            label, style = page.text(method_name(method)) + star, "strong" if method == REFERENCE else ""
            rows.append(page.row(label, [*cells, *map(show, value["seeds"])], style))
    header = ["", "mean ± std", "min", "max", *map(page.text, runs)]
    return page.table(f"Table. {title}", header, rows)
