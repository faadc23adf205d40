"""One self-contained page about a run: `report.html`, with its figures inside and beside it.

The page fetches nothing and needs no script. Whatever comes from data (file names, class names, texts) is
escaped where it enters the HTML. The same input gives the same bytes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mim_jax import figures, page
from mim_jax.figures import REFERENCE, Panels

_KINDS = {"typical": "median scores", "best": "highest scores", "worst": "lowest scores"}
_SPLITS = {
    "train": "train",
    "held_out": "held out of training",
    "test": "test, plain",
    "augmented": "test, augmented",
    "negatives": "test, others",
    "train_groups": "groups in train",
    "test_groups": "groups in test",
}
_NOTES = """<h2>How to read this page</h2><ul>
<li>AUROC is the chance that an image of the training class scores above another image, ties counting half:
0.5 is chance, 1 is perfect. Scores are similarities: high means mpox-like.</li>
<li>± is the population standard deviation over the folds (divided by k), as in the paper.</li>
<li>Intervals are 95 % percentile intervals of a cluster bootstrap (resamples: see the configuration): whole
groups are drawn, so that an image and its augmented copies, or the images of one patient, count as one.
Differences between methods are paired by resample. The intervals hold for the models at hand and do not
contain the spread of training anew; they are not corrected for the number of metrics and classes shown.</li>
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
    """Writes `report.html` and `figures/*.png` and returns the path of the page.

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
    path = Path(workdir) / "report.html"
    path.write_bytes(_page(results, pngs, panels).encode("utf-8"))
    return path


def _page(results: Mapping[str, Any], pngs: Mapping[str, bytes], panels: Panels) -> str:
    sections = (
        _summary(results),
        _metrics(results),
        _roc(results, pngs),
        _classes(results, pngs),
        _inpaintings(results, pngs, panels),
        _decisions(results, pngs),
        _splits(results),
        _training(results, pngs),
        _data(results),
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
    chance = _compare(augmented["low"] - 0.5, augmented["high"] - 0.5, than="chance (0.5)")
    verdicts = "".join(
        f"<li>{_compare(value[metric]['low'], value[metric]['high'], than=_method(method))}: MIM minus "
        f"control is {_signed(value[metric]['mean'])} {_interval(value[metric])}</li>"
        for method, value in results["differences"].items()
    )
    controls = (
        f"<p>Against inpainting without training (same images, same metric) MIM is</p><ul>{verdicts}</ul>"
        if verdicts
        else "<p>No untrained control was scored: what the training contributes cannot be told here.</p>"
    )
    return (
        f"<p>Trained on {page.text(positive)} images alone, MIM tells them from {others} other "
        f"class{'' if others == 1 else 'es'} with a mean AUROC of <b>{_number(augmented['mean'])}</b> (95 % "
        f"interval {_interval(augmented)}, population standard deviation {_number(augmented['std'])} over "
        f"{len(augmented['folds'])} folds) on the augmented test sets: {chance}. On the plain test images it "
        f"is <b>{_number(plain['mean'])}</b> {_interval(plain)}. Both are by {_metric(metric)}, the metric "
        f"{origin}.</p>{controls}"
    )


def _compare(low: float, high: float, *, than: str) -> str:
    """What the interval of a difference says."""
    if low > 0 or high < 0:
        return f"<b>{'better' if low > 0 else 'worse'} than</b> {than}"
    return f"<b>not distinguishable from</b> {than}"


def _metrics(results: Mapping[str, Any]) -> str:
    augmented = _auroc_table(results, "augmented", "Table 2. AUROC on the augmented test sets")
    plain = _auroc_table(results, "plain", "Table 2, plain. AUROC without augmented copies")
    details = f"<details><summary>The same on the plain test images</summary>{plain}</details>"
    return f"<h2>AUROC by metric</h2>{augmented}{details}"


def _auroc_table(results: Mapping[str, Any], kind: str, title: str) -> str:
    methods = results["auroc"][kind]
    mim = methods[REFERENCE]
    rows = []
    for place, split in enumerate(results["splits"]):
        folds = [values["folds"][place] for values in mim.values()]
        rows.append(page.row(f"MIM fold {split['fold'] + 1}", [_cell(_number(f["value"]), f) for f in folds]))
    rows.append(page.row("MIM mean ± std", map(_spread, mim.values()), "strong"))
    rows.append(page.row("95 % interval of the mean", map(_interval, mim.values()), "strong"))
    for method, values in methods.items():
        if method != REFERENCE:
            cells = [_cell(_spread(values[metric]), values[metric]) for metric in mim]
            rows.append(page.row(f"{_method(method)}, mean ± std", cells))
    if kind == "augmented":
        for method, values in results["differences"].items():
            cells = [_cell(_signed(values[metric]["mean"]), values[metric]) for metric in mim]
            rows.append(page.row(f"MIM minus {_method(method)}", cells))
        paper = results["paper"]
        cells = [" ± ".join(map(_number, paper.get(metric, (None,)))) for metric in mim]
        rows.append(page.row("paper (other data)", cells, "aside"))
    return page.table(title, ["", *map(_metric, mim)], rows)


def _roc(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    captions = {}
    for end, place in figures.extremes(results).items():
        fold = results["splits"][place]["fold"] + 1
        captions[f"roc_{end}"] = f"Figure 6. ROC curves of the {end} fold (fold {fold}), augmented test set"
    words = (
        f"The best and the worst fold have the highest and the lowest AUROC of MIM by {_decider(results)} on "
        "the augmented test set. They are picked after the fact, to describe the spread: neither is an "
        "estimate of what a new run would reach."
    )
    return page.section("ROC curves", words, page.gallery(pngs, captions))


def _classes(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    captions, tables = {}, ""
    for part in ("group", "class"):
        if results[f"per_{part}"].get(REFERENCE):
            parts = figures.ranked(results[f"per_{part}"])
            title = f"AUROC of {_decider(results)} by {part}, augmented test sets, mean over the folds"
            captions[f"per_{part}"] = f"Figure. {title}, 95 % interval; number of images in brackets"
            rows = []
            for name, value in parts[REFERENCE].items():
                cells = [_cell(_spread(values[name]), values[name]) for values in parts.values()]
                rows.append(page.row(page.text(name), [str(value["n"]), *cells]))
            tables += page.table(f"Table. {title} ± std", [part, "images", *map(_method, parts)], rows)
    details = f"<details><summary>The same as tables</summary>{tables}</details>" if tables else ""
    words = "All test images of the training class against a part of the others, ordered by MIM's AUROC."
    return page.section("AUROC by class", words, page.gallery(pngs, captions), details)


def _inpaintings(results: Mapping[str, Any], pngs: Mapping[str, bytes], panels: Panels) -> str:
    captions = {}
    for name, rows in panels.figures().items():
        positive = page.text(results["data"]["positive"])
        side = f"{positive} (training class)" if panels.positive[rows[0]] else "other classes"
        captions[name] = f"Figure 5. Test images, {side}, {_KINDS[str(panels.kind[rows[0]])]}"
    words = (
        "The image, what the network saw, the image with the hole filled, and the absolute difference (mean "
        f"of the channels; black is none, the brightest colour {figures.DIFFERENCE_SCALE} of full scale or "
        f"more). The number is {_decider(results)} by the model of that fold."
    )
    return (
        page.section("Original, masked, inpainted", words, page.gallery(pngs, captions)) if captions else ""
    )


def _decisions(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    decision, positive = results["decision"], results["data"]["positive"]
    order = [positive, *figures.groups_of_classes(results)]
    rows = []
    for name in sorted(decision["table"], key=[*order, *sorted(decision["table"])].index):
        count, hits = decision["table"][name]["n"], decision["table"][name]["mpox_like"]
        share = f"{100 * hits / count:.1f} %" if count else "n/a"
        rows.append(page.row(page.text(name), [_group(results, name), str(count), str(hits), share]))
    thresholds = "".join(
        f"fold {split['fold'] + 1}: {_number(threshold)}; "
        for split, threshold in zip(results["splits"], decision["thresholds"], strict=True)
    )
    words = (
        f"Thresholds ({page.text(decision['rule'])}): {thresholds}pooled: {_number(decision['pooled'])}. The "
        "model of every fold judges every image of the other classes, so each of these counts once a fold."
    )
    caption = f"Figure. {_decider(results)} of the plain test images, all folds together, with the thresholds"
    title = f"Table. Decisions by {_decider(results)} on the plain test images, all folds together"
    table = page.table(title, ["class", "group", "decisions", "mpox-like", "share"], rows, "grouped")
    return page.section("Scores and decisions", words, page.gallery(pngs, {"histograms": caption}), table)


def _splits(results: Mapping[str, Any]) -> str:
    splits = results["splits"]
    columns = {key: words for key, words in _SPLITS.items() if any(split.get(key) for split in splits)}
    rows = [
        page.row(f"fold {split['fold'] + 1}", (page.text(split[key]) for key in columns)) for split in splits
    ]
    words = (
        "No group of images (a patient, say) is on both sides of a split."
        if results["data"]["grouped"]
        else "The splits were made without regard to groups (patients, say): images of one may be on both "
        "sides, which would make every figure here look better than it is."
    )
    table = page.table("Table 1. Images in each split", ["", *columns.values()], rows)
    return page.section("Who is in which split", words, table)


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
            f"a mean absolute error of {_number(held_out['mean']['mae'])} and an SSIM of "
            f"{_number(held_out['mean']['ssim'])}, which choices may be made by."
        )
    captions = {name: f"Figure. {axis.capitalize()}" for name, (axis, _) in figures.TRAINING_CURVES.items()}
    times = {f"train, fold {place + 1}": seconds for place, seconds in enumerate(wall["train"])}
    times |= {name: wall[name] for name in ("evaluate", "total")}
    rows = [page.row(name, [_duration(seconds)]) for name, seconds in times.items()]
    table = page.table("Table. Wall time", ["", "time"], rows)
    return page.section("Training", words, page.gallery(pngs, captions), table)


def _data(results: Mapping[str, Any]) -> str:
    data = results["data"]
    rows = [page.row(page.text(name), [_group(results, name), str(n)]) for name, n in data["classes"].items()]
    classes = page.table("Table. Images of each class", ["class", "group", "images"], rows, "grouped")
    bad = [page.row(page.text(name), [page.text(reason)]) for name, reason in data["unusable"]]
    unusable = page.table("Table. Files that could not be used", ["file", "reason"], bad, "words")
    words = f"Source: {page.text(data['source'])}. Digest: <code>{page.text(data['digest'])}</code>."
    words += "" if bad else " Every file could be used."
    details = f"<details><summary>Images of each class</summary>{classes}</details>"
    return page.section("Data", words, unusable, details)


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


def _method(name: str) -> str:
    return page.text(figures.METHOD_NAMES.get(name, name))


def _metric(name: str) -> str:
    return page.text(figures.metric_name(name))


def _decider(results: Mapping[str, Any]) -> str:
    return _metric(results["decision"]["metric"])


def _group(results: Mapping[str, Any], name: str) -> str:
    if name == results["data"]["positive"]:
        return "training class"
    return page.text(figures.groups_of_classes(results).get(name, "other classes"))


def _number(value: float | None) -> str:
    return f"{value:.4f}".replace("-", "&minus;") if value is not None and math.isfinite(value) else "none"


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{_number(value)}"


def _interval(estimate: Mapping[str, Any]) -> str:
    return f"[{_number(estimate['low'])}, {_number(estimate['high'])}]"


def _spread(estimate: Mapping[str, Any]) -> str:
    return f"{_number(estimate['mean'])} ± {_number(estimate['std'])}"


def _cell(value: str, estimate: Mapping[str, Any]) -> str:
    return f"{value}<small>{_interval(estimate)}</small>"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
