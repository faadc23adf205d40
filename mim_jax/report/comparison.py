"""The page that compares detectors and classifiers: the paper's Tables 3 and 4, Figure 6, clinical test."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mim_jax.classifiers.ood_scores import SCORE_CLAUSES, SCORE_NAMES, SCORES
from mim_jax.evaluate.comparison import SCORE, ordered, tested
from mim_jax.evaluate.metadata import PAPER_AUROC, PAPER_CLINICAL
from mim_jax.evaluate.saved_run import SavedRun
from mim_jax.evaluate.statistics.auroc import roc
from mim_jax.report.figures import charts
from mim_jax.report.format import SHORT_NOTICE, place, verdict
from mim_jax.report.report import write_page
from mim_jax.report.sections import ranked
from mim_jax.train import workdir

# Table 4 of the paper, on the paper's own images: AUROC of each fold, then mean and population standard
# deviation. MIM's values are from its Table 2.
_PAPER: dict[str, tuple[tuple[float, ...], tuple[float, float]]] = {
    "mim": ((0.8123, 0.8401, 0.8167, 0.8190, 0.8303), PAPER_AUROC["ssim_hbd"]),
    "mobilenet_v3_large": ((0.5745, 0.5309, 0.4955, 0.6645, 0.6123), (0.5755, 0.0594)),
    "resnet50": ((0.6342, 0.6113, 0.5135, 0.6239, 0.7278), (0.6221, 0.0682)),
    "swin_b": ((0.7073, 0.6036, 0.5422, 0.5821, 0.7178), (0.6306, 0.0698)),
}
_PAPER_CLINICAL_SWIN = 0.593  # section 3.4
# Settings that are reported if they differ, because they may explain a difference in AUROC.
_CONDITIONS = ("image size", "epochs", "batch", "weights at the start", "seed", "device")


def write_comparison(
    path: Path, comparison: Mapping[str, Any], runs: Sequence[SavedRun], *, name: str = "comparison.html"
) -> Path:
    """Write the page `name`, `comparison.json` and `figures/*.png` into a folder, and return the page's path.

    `comparison` is what `mim_jax.evaluate.comparison.compare` returned for these runs.
    """
    runs = ordered(runs)
    notice = next((run.results["notice"] for run in runs if run.results["notice"]), None)
    pngs = _draw(comparison, runs, notice=SHORT_NOTICE if notice else "")
    page = write_page(path / name, "comparison.html.j2", pngs, **_values(comparison, runs), notice=notice)
    workdir.write_json(path / "comparison.json", comparison)
    return page


def _values(comparison: Mapping[str, Any], runs: Sequence[SavedRun]) -> dict[str, Any]:
    """Values for the template: the comparison and what is derived from it."""
    methods, views = comparison["methods"], comparison["views"]
    titles = {name: method["title"] for name, method in methods.items()}
    ours, *others = comparison["shown"]
    said = [verdict(views["paper"]["differences"][method][SCORE])[0] for method in others]
    trained = [run.results["splits"] for run in runs if not run.is_mim]
    runs_found = list(comparison["runs"].values())
    columns = {item: [run["training"][item] for run in runs_found] for item in runs_found[0]["training"]}
    return {
        **comparison,
        "titles": titles,
        "title": f"AUROC for separating mpox from other skin diseases: "
        f"{', '.join(titles[method] for method in comparison['shown'])}",
        "data": {**runs[0].results["data"], "source": place(runs[0].results["data"]["source"])},
        "ours": ours,
        "others": others,
        "outcomes": {words: said.count(words) for words in said},
        "detectors": [name for name in comparison["shown"] if name in comparison["runs"]],
        "baselines": [name for name, method in methods.items() if method["run"] is None],
        "other_scores": sum(method["score"] in SCORES[1:] for method in methods.values()),
        "splits": trained[0] if trained else [],
        "same_splits": all(
            [split["train"] for split in each] == [split["train"] for split in trained[0]] for each in trained
        ),
        "paper_rows": {
            name: _PAPER[name]
            for name in dict.fromkeys(["mim", *(run["method"] for run in runs_found)])
            if name in _PAPER
        },
        "paper_clinical": {"mim": PAPER_CLINICAL, "swin_b": _PAPER_CLINICAL_SWIN},
        "score_names": SCORE_NAMES,
        "score_clauses": SCORE_CLAUSES,
        "classifiers": [run["title"] for run in runs_found if not run["one_class"]],
        "by_score": {view: _by_score(comparison, view) for view, found in views.items() if found},
        "clinical": runs[0].results["clinical"],
        "parts": {
            part: {"methods": found, "names": [titles[method] for method in found]}
            for part in ("group", "class")
            if (found := _shown_parts(comparison, part))
        },
        "run_titles": [run["title"] for run in runs_found],
        "training": columns,
        "unlike": {item: columns[item] for item in _CONDITIONS if len(set(columns[item])) > 1},
    }


def _shown_parts(comparison: Mapping[str, Any], part: str) -> dict[str, dict[str, Any]]:
    """AUROC per "group" or "class" in "paper" of the shown methods."""
    return ranked(comparison["views"]["paper"][f"per_{part}"], comparison["reference"], comparison["shown"])


def _by_score(comparison: Mapping[str, Any], view: str) -> dict[str, list[str]]:
    """Map each score to the methods that the view ranks by it: one per classifier, in run order."""
    held = comparison["views"][view]["auroc"]["augmented"]
    found: dict[str, list[str]] = {}
    for name, method in comparison["methods"].items():
        if name in held and method["score"] in SCORES:
            found.setdefault(method["score"], []).append(name)
    return found


def _draw(comparison: Mapping[str, Any], runs: Sequence[SavedRun], *, notice: str) -> dict[str, bytes]:
    methods, aurocs = tested(runs), comparison["views"]["paper"]["auroc"]["augmented"]
    titles = {method: own["title"] for method, own in comparison["methods"].items()}
    # Methods on the first screen: those shown, the best other score and the baselines.
    first = {*comparison["shown"], comparison["best_score"]}  # which may be None
    first |= {name for name, method in comparison["methods"].items() if method["run"] is None}
    pngs = {
        "aurocs": charts.forest_figure(
            {titles[name]: own[SCORE] for name, own in aurocs.items() if name in first},
            reference=titles[comparison["reference"]],
            base=0.5,
            xlabel="AUROC (line: chance)",
            notice=notice,
        )
    }
    for end, indices in comparison["extremes"].items():
        curves, areas = {}, {}
        for method, index in indices.items():
            fold = methods[method][index]
            fold = fold.select(fold.augmented)
            curves[titles[method]] = roc(fold.similarities[SCORE], fold.positive)
            areas[titles[method]] = aurocs[method][SCORE]["folds"][index]["value"]
        pngs[f"roc_{end}"] = charts.roc_figure(curves, areas, notice=notice)
    for part in ("group", "class"):
        if parts := _shown_parts(comparison, part):
            named = {titles[method]: values for method, values in parts.items()}
            label = f"AUROC against each {part}"
            pngs[f"per_{part}"] = charts.interval_figure(named, xlabel=label, notice=notice)
    return pngs
