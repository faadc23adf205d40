"""One self-contained page about a run: `report.html`, its figures inside and beside it, and a model card.

The page fetches nothing and needs no script. Whatever comes from data (file names, class names, texts) is
escaped where it enters the HTML. The same input gives the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mim_jax import figures, page
from mim_jax.data_sheet import data_section, split_section
from mim_jax.evidence import model_card
from mim_jax.pictures import DIFFERENCE_SCALE, Panels
from mim_jax.promise_page import decision_section
from mim_jax.seed_page import write_seeds
from mim_jax.stress_page import clinical_section, robustness_section
from mim_jax.tables import auroc_section, class_section
from mim_jax.wording import (
    INTERVALS,
    METHOD_CLAUSES,
    REFERENCE,
    controls,
    interval,
    method_name,
    metric_name,
    number,
    signed,
    variants,
    verdict,
)

__all__ = ["write_report", "write_seeds"]

_KINDS = {"typical": "median scores", "best": "highest scores", "worst": "lowest scores"}
_NOTES = f"""<h2>How to read this page</h2><ul>
<li>AUROC is the chance that an image of the training class scores above another image, ties counting half:
0.5 is chance, 1 is perfect. Scores are similarities: high means mpox-like.</li>
<li>± is the population standard deviation over the folds (divided by k), as in the paper.</li>
<li>{INTERVALS} Where two intervals stand below a number, the first is by images, the second by images and
folds. Training sets of the folds overlap, which no interval from one cross-validation can see.</li>
<li>Differences between methods are paired by resample. “Better” and “worse” are said where both intervals
of the difference lie on one side of zero; “these networks: better” where only the interval by images does,
so that networks trained anew might not be. Nothing is corrected for the number of methods, metrics and
classes shown: of twenty comparisons without a difference one may be expected outside its interval.</li>
<li>A control shows what else explains MIM's AUROC: a fill or a network that is not MIM, or a score that
inpaints nothing. The sign of each such score was fixed before any test image was scored. A variant is another
way to use MIM's own networks. None of them sees a test image before it scores it.</li>
<li>Folds are numbered from 1 here and from 0 in the files of the run.</li></ul>
<p>Cite the paper for the method (Y. Yue and Z. Li, “Adversarial masked image inpainting for robust detection
of mpox and non-mpox”, arXiv 2310.06318; journal version: Scientific Reports, 2025, doi
10.1038/s41598-025-85771-z), and give the data digest and the seed with every number of this page.</p>
<footer><p>This is research software and not a medical device.</p></footer>"""


def write_report(
    workdir: str | Path,
    *,
    results: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    panels: Panels,
) -> Path:
    """Writes `report.html`, `model_card.md` and `figures/*.png`, and returns the path of the page.

    Args:
      workdir: the run's directory, which exists.
      results: what results.json holds.
      scores: what the scores.csv of all folds hold, typed: one row an image, method and fold.
      history: the events of training; those that are no "epoch" are passed over.
      panels: the images to show, possibly none.
    """
    notice = page.SHORT_NOTICE if results["notice"] else ""
    pngs = figures.draw(results, scores, history, panels, notice=notice)
    folder = Path(workdir) / "figures"
    folder.mkdir(exist_ok=True)
    for name, png in pngs.items():
        (folder / f"{name}.png").write_bytes(png)
    (Path(workdir) / "model_card.md").write_bytes(model_card(results).encode("utf-8"))
    path = Path(workdir) / "report.html"
    path.write_bytes(_page(results, pngs, panels).encode("utf-8"))
    return path


def _page(results: Mapping[str, Any], pngs: Mapping[str, bytes], panels: Panels) -> str:
    sections = (
        _summary(results),
        auroc_section(results),
        _roc(results, pngs),
        class_section(results, pngs),
        _inpaintings(results, pngs, panels),
        decision_section(results, pngs),
        clinical_section(results, pngs),
        robustness_section(results, pngs),
        data_section(results),
        split_section(results),
        _training(results, pngs),
        _settings(results),
        _NOTES,
    )
    return page.frame(results["title"], results["notice"], sections)


def _summary(results: Mapping[str, Any]) -> str:
    """The outcome in words."""
    metric = results["decision"]["metric"]
    augmented, plain = (results["auroc"][kind][REFERENCE][metric] for kind in ("augmented", "plain"))
    origin = "that the paper proposes" if metric == "ssim_hbd" else "that the configuration names"
    positive, classes = results["data"]["positive"], results["data"]["classes"]
    others = len(classes) - (positive in classes)
    words, reservation = verdict(augmented, base=0.5)
    return (
        f"<p>Trained on {page.text(positive)} images alone, MIM tells them from {others} other "
        f"class{'' if others == 1 else 'es'} with a mean AUROC of <b>{number(augmented['mean'])}</b> "
        f"({_both(augmented)}; population standard deviation {number(augmented['std'])} over "
        f"{len(augmented['folds'])} folds) on the augmented test sets: <b>{words}</b> chance (0.5)"
        f"{_aside(reservation)}. On the plain test images it is <b>{number(plain['mean'])}</b> "
        f"({_both(plain)}). Both are by {_metric(metric)}, the metric {origin}.</p>"
        f"{_panel(results, metric)}"
    )


def _panel(results: Mapping[str, Any], metric: str) -> str:
    """Whether MIM beats each control, then each variant."""

    def items(methods: Sequence[str]) -> str:
        return page.bullets(_comparison(method, results["differences"][method][metric]) for method in methods)

    panel, others = controls(results), variants(results)
    if not panel:
        return "<p>No control was scored: what the training contributes cannot be told here.</p>"
    said = [verdict(results["differences"][method][metric])[0] for method in panel]
    words = (
        f"<p>Does MIM beat what else may explain this? Of {len(panel)} control{'s' * (len(panel) > 1)}, on "
        f"the same images, it is <b>better than {said.count('better than')}</b>, worse than "
        f"{said.count('worse than')} and not distinguishable from {said.count('not distinguishable from')}. "
        "Behind each: MIM minus control, its 95 % interval by images, and that by images and folds. MIM is"
        f"</p>{items(panel)}"
    )
    if others:
        words += (
            f"<p>Against other ways to use the same networks MIM, as it stands here, is</p>{items(others)}"
        )
    return words


def _comparison(method: str, difference: Mapping[str, Any]) -> str:
    words, reservation = verdict(difference)
    clause = METHOD_CLAUSES.get(method)
    return (
        f"<b>{words}</b> {page.text(method_name(method))}{_aside(reservation)}: {signed(difference['mean'])} "
        f"{interval(difference)}, {interval(difference, '_folds')}"
        f"{f'<small>{page.text(clause)}</small>' if clause else ''}"
    )


def _both(estimate: Mapping[str, Any]) -> str:
    """The interval by images, and the one by images and folds where there is one."""
    if estimate["low_folds"] is None:
        return f"95 % interval {interval(estimate)}"
    return f"95 % by images {interval(estimate)}, by images and folds {interval(estimate, '_folds')}"


def _aside(reservation: str) -> str:
    return f" ({reservation})" if reservation else ""


def _roc(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    captions = {}
    for end, place in figures.extremes(results).items():
        fold = results["splits"][place]["fold"] + 1
        captions[f"roc_{end}"] = f"Figure 6. ROC curves of the {end} fold (fold {fold}), augmented test set"
    words = (
        f"The best and the worst fold have the highest and the lowest AUROC of MIM by {_decider(results)} on "
        "the augmented test set. They are picked after the fact, to describe the spread: neither is an "
        "estimate of what a new run would reach. So is the best control, by its mean AUROC; the curves are "
        "MIM's, that one's, and those of a few telling others."
    )
    return page.section("ROC curves", words, page.gallery(pngs, captions))


def _inpaintings(results: Mapping[str, Any], pngs: Mapping[str, bytes], panels: Panels) -> str:
    captions = {}
    for name, rows in panels.figures().items():
        positive = page.text(results["data"]["positive"])
        side = f"{positive} (training class)" if panels.positive[rows[0]] else "other classes"
        captions[name] = f"Figure 5. Test images, {side}, {_KINDS[str(panels.kind[rows[0]])]}"
    words = (
        "The image, what the network saw, the image with the hole filled, and the absolute difference (mean "
        f"of the channels; black is none, the brightest colour {DIFFERENCE_SCALE} of full scale or more), "
        "and the map of the SSIM (each window at its centre, mean of the channels; the brightest colour is "
        f"1, identical, the darkest 0 or less). The number is {_decider(results)} by the model of that fold."
    )
    return (
        page.section("Original, masked, inpainted", words, page.gallery(pngs, captions)) if captions else ""
    )


def _training(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    training, wall = results["training"], results["wall_time"]
    counts = " and ".join(f"{count:,} ({page.text(name)})" for name, count in training["parameters"].items())
    words = (
        f"{training['epochs']:,} epochs a fold. Parameters: {counts}. The network that is scored is the last "
        "one, never one picked by a test score. The curves of all folds lie over each other."
    )
    if held_out := results.get("held_out"):
        fewest, most = min(held_out["images"]), max(held_out["images"])
        words += (
            f" Of each training split {fewest} to {most} images were held out; on them the painted hole has "
            f"a mean absolute error of {number(held_out['mean']['mae'])} and an SSIM of "
            f"{number(held_out['mean']['ssim'])}, which choices may be made by."
        )
    captions = {name: f"Figure. {axis.capitalize()}" for name, (axis, _) in figures.TRAINING_CURVES.items()}
    times = {f"train, fold {place + 1}": seconds for place, seconds in enumerate(wall["train"])}
    times |= {name: wall[name] for name in ("evaluate", "total")}
    rows = [page.row(name, [_duration(seconds)]) for name, seconds in times.items()]
    table = page.table("Table. Wall time", ["", "time"], rows)
    return page.section("Training", words, page.gallery(pngs, captions), table)


def _settings(results: Mapping[str, Any]) -> str:
    environment = dict(results["environment"])
    facts = {**environment.pop("versions"), **environment, "seed": results["seed"]}
    hashes = results["training"]["parameter_hash"]
    facts |= {f"parameters of fold {place + 1}": value for place, value in enumerate(hashes)}
    rows = [page.row(page.text(name), [page.text(value)]) for name, value in facts.items()]
    lines = json.dumps(results["config"], indent=2, ensure_ascii=False).split("\n")
    config = "\n".join(map(page.text, lines))
    details = f"<details><summary>Configuration</summary><pre>{config}</pre></details>"
    table = page.table("Table. Versions, device, seed, parameter hashes", ["item", "value"], rows, "words")
    return page.section(
        "Versions, device and configuration", "What it takes to run this again.", table, details
    )


def _metric(name: str) -> str:
    return page.text(metric_name(name))


def _decider(results: Mapping[str, Any]) -> str:
    return _metric(results["decision"]["metric"])


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
