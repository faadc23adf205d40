"""The page that sets MIM beside classifiers: the paper's Tables 3 and 4, Figure 6 and clinical line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mim_jax import figures, page
from mim_jax.classifiers.ood_scores import SCORES
from mim_jax.evaluate.comparison import SCORE, shown_parts, tested
from mim_jax.evaluate.metadata import PAPER_AUROC, PAPER_CLINICAL
from mim_jax.evaluate.saved_run import Run
from mim_jax.evaluate.statistics.summary import roc
from mim_jax.train import workdir
from mim_jax.wording import (
    INTERVALS,
    METHOD_CLAUSES,
    SCORE_CLAUSES,
    SCORE_NAMES,
    interval,
    method_name,
    number,
    signed,
    spread,
    verdict,
)

# Table 4 of the paper, on its own images: fold by fold, mean and population standard deviation; MIM's are
# those of its Table 2.
_PAPER: dict[str, tuple[tuple[float, ...], tuple[float, float]]] = {
    "mim": ((0.8123, 0.8401, 0.8167, 0.8190, 0.8303), PAPER_AUROC["ssim_hbd"]),
    "mobilenet_v3_large": ((0.5745, 0.5309, 0.4955, 0.6645, 0.6123), (0.5755, 0.0594)),
    "resnet50": ((0.6342, 0.6113, 0.5135, 0.6239, 0.7278), (0.6221, 0.0682)),
    "swin_b": ((0.7073, 0.6036, 0.5422, 0.5821, 0.7178), (0.6306, 0.0698)),
}
_PAPER_CLINICAL_SWIN = 0.593  # section 3.4
_PAPER_COUNTS = ("176", "152", "44 → 220", "38", "1,500", "")  # Table 3, each fold
# What may explain a difference between two networks where it is not the same for both.
_CONDITIONS = ("image size", "epochs", "batch", "weights at the start", "seed", "device")


def write_comparison(
    path: Path, comparison: Mapping[str, Any], runs: Sequence[Run], *, name: str = "comparison.html"
) -> Path:
    """Writes the page, `comparison.json` and `figures/*.png` into a folder; returns the path of the page.

    Args:
      path: the folder; made where it is missing.
      comparison: what `comparison.compare` says of the runs.
      runs: those runs.
      name: of the page.
    """
    runs = sorted(runs, key=lambda run: not run.is_mim)
    notice = next((run.results["notice"] for run in runs if run.results["notice"]), None)
    pngs = _draw(comparison, runs, notice=page.SHORT_NOTICE if notice else "")
    (path / "figures").mkdir(parents=True, exist_ok=True)
    for figure, png in pngs.items():
        (path / "figures" / f"{figure}.png").write_bytes(png)
    workdir.write_json(path / "comparison.json", comparison)
    sections = (
        _summary(comparison, runs),
        _images(comparison, runs),
        _aurocs(comparison),
        _ways(comparison),
        _open(comparison),
        _all(comparison),
        _clinical(comparison, runs),
        _rocs(comparison, pngs),
        _classes(comparison, pngs),
        _training(comparison),
        _notes(comparison),
    )
    names = ", ".join(comparison["methods"][method]["title"] for method in comparison["shown"])
    title = f"Mpox and other skin diseases, told apart by {names}"
    target = path / name
    target.write_bytes(page.frame(title, notice, sections).encode("utf-8"))
    return target


def _summary(comparison: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """Who wins, in words."""
    ours, *others = comparison["shown"]
    paper, name = comparison["views"]["paper"], _title(comparison, ours)
    own = paper["auroc"]["augmented"][ours][SCORE]
    words = (
        f"<p>Data: {page.text(runs[0].results['data']['source'])}. In each fold {name} tells "
        f"{_count(comparison, 'augmented')} augmented mpox test images from "
        f"{_count(comparison, 'known', 'unknown')} others, none of which a classifier here was trained on, "
        f"with a mean AUROC of <b>{number(own['mean'])}</b> ({_intervals(own)}).</p>"
    )
    if others:
        said = [verdict(paper["differences"][method][SCORE])[0] for method in others]
        words += (
            f"<p>Who wins? Of {len(others)} classifier{'s' * (len(others) > 1)} beside it, by the "
            f"probability of mpox, on the same images, {name} is <b>better than {said.count('better than')}"
            f"</b>, worse than {said.count('worse than')} and not distinguishable from "
            f"{said.count('not distinguishable from')}. Behind each stands the difference. {name} is</p>"
            f"{page.bullets(_outcome(comparison, method) for method in others)}"
        )
    tried = [m for m, own in comparison["methods"].items() if own["score"] in SCORES[1:]]
    return words + (
        f"<p>Classifiers have other ways to say “I don't know” than a low probability. Of the {len(tried)} "
        "such scores here the one of the highest mean AUROC is picked after the fact, on the very images "
        f"that it is judged by, which favours it. Against it {name} is</p>"
        f"{page.bullets([_outcome(comparison, comparison['best_score'])])}"
    )


def _outcome(comparison: Mapping[str, Any], method: str) -> str:
    paper = comparison["views"]["paper"]
    difference = paper["differences"][method][SCORE]
    words, reservation = verdict(difference)
    return (
        f"<b>{words}</b> {_title(comparison, method)}{f' ({reservation})' if reservation else ''}: "
        f"{signed(difference['mean'])} ({_intervals(difference)})"
        f"<small>its mean AUROC: {number(paper['auroc']['augmented'][method][SCORE]['mean'])}</small>"
    )


def _images(comparison: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """Table 3 of the paper."""
    name = runs[0].results["data"]["positive"]
    positive, known = page.text(name), _listed(comparison["known"])
    header = ["", f"train, {positive}", "train, others", f"test, {positive} → augmented"]
    header += ["test, known classes", "test, unknown classes", "trained on, so not in this test"]
    (first, *rest) = [run.results["splits"] for run in runs if not run.is_mim]
    rows = []
    for split, counts in zip(first, comparison["images"], strict=True):
        others = {label: count for label, count in split["train"].items() if label != name}
        parts = ", ".join(f"{page.text(label)} {count:,}" for label, count in others.items())
        cells = [
            f"{split['train'].get(name, 0):,}",
            f"{sum(others.values()):,}<small>{parts}</small>",
            f"{counts['plain']:,} → {counts['augmented']:,}",
            *(f"{counts[key]:,}" for key in ("known", "unknown", "seen")),
        ]
        rows.append(page.row(f"fold {split['fold'] + 1}", cells))
    rows.append(page.row("paper, each fold", _PAPER_COUNTS, "aside"))
    words = (
        f"The classifiers train on {positive} and on {known}, the known classes. They are tested with the "
        "images of these that the fold has not trained on, and with all images of the other classes, the "
        "unknown ones. An image of a group (a patient, say) that some classifier here trained on is not in "
        "this test."
    )
    if any([split["train"] for split in other] != [split["train"] for split in first] for other in rest):
        words += " <b>The classifiers did not all train on as many images: the table is the first one's.</b>"
    table = page.table("Table 3. Images of the classifiers in each fold", header, rows)
    return page.section("Who has seen what", words, table)


def _aurocs(comparison: Mapping[str, Any]) -> str:
    """Table 4 of the paper, MIM and the controls beside it."""
    words = (
        "Augmented mpox images against the others of Table 3. A classifier scores by its probability of "
        "mpox, as in the paper. The paper's rows are on its own images: other data make another task, and "
        "the numbers are no comparison of methods."
    )
    table = _fold_table(comparison, "augmented", "Table 4. AUROC, augmented test sets")
    plain = _fold_table(comparison, "plain", "Table 4, plain. AUROC, plain test images")
    return page.section("AUROC fold by fold", words, table, page.details("On the plain test images", plain))


def _fold_table(comparison: Mapping[str, Any], kind: str, title: str) -> str:
    paper, controls = comparison["views"]["paper"], _controls(comparison)
    compared = kind == "augmented" and len(comparison["shown"] + controls) > 1
    folds = [f"fold {counts['fold'] + 1}" for counts in comparison["images"]]
    minus = [f"{_title(comparison, comparison['reference'])} minus it"] * compared
    header = ["", *folds, "mean ± std", *minus]

    def row(method: str) -> str:
        value = paper["auroc"][kind][method][SCORE]
        cells = [*(number(fold["value"]) for fold in value["folds"]), page.cell(spread(value), value)]
        cells += [_difference(paper, method)] * compared
        style = "strong" if method == comparison["reference"] else ""
        return page.row(_title(comparison, method), cells, style)

    rows = [row(method) for method in comparison["shown"]]
    if controls:
        rows += [page.subheading("Controls of MIM", len(header)), *map(row, controls)]
    if kind == "augmented":
        for method in dict.fromkeys(["mim", *(run["method"] for run in comparison["runs"].values())]):
            own, mean = _PAPER[method]
            shown = list(map(number, own)) if len(own) == len(folds) else [""] * len(folds)
            cells = [*shown, " ± ".join(map(number, mean)), *[""] * compared]
            rows.append(page.row(f"paper: {method_name(method)}", cells, "aside"))
    return page.table(title, header, rows)


def _ways(comparison: Mapping[str, Any]) -> str:
    """Every score of every classifier on the images of Table 4."""
    words = (
        "The images of Table 4, by every score of the classifiers. The paper tries the first; a careful "
        f"practitioner would try the others. What they need is fitted on training images alone."
        f"{_reached(comparison, 'paper')}"
    )
    clauses = page.bullets(f"<b>{SCORE_NAMES[score]}</b>: {SCORE_CLAUSES[score]}" for score in SCORES)
    tables = _score_tables(comparison, "paper", "by every score, augmented test sets")
    return page.section("Ways to say “I don't know”", words, clauses, tables)


def _open(comparison: Mapping[str, Any]) -> str:
    if not comparison["views"]["open"]:
        return page.section("Known or unknown?", "All images of a fold are of classes that it trained on.")
    words = (
        "Can a classifier tell that it has never seen a class? Test images of mpox and unseen ones of "
        f"{_listed(comparison['known'])}, all positive here, against those of the unknown classes, by the "
        "scores that ask for any class. 0.5 is chance. MIM takes no part: to it all classes but one are new."
    )
    tables = _score_tables(comparison, "open", "of known against unknown, augmented", compared=False)
    return page.section("Known or unknown?", words, tables)


def _all(comparison: Mapping[str, Any]) -> str:
    words = (
        f"All {_count(comparison, 'known', 'unknown', 'seen')} others that MIM's own report tests against. "
        f"In each fold {_count(comparison, 'seen')} of them are of groups that the classifiers trained on: "
        f"this flatters the classifiers.{_reached(comparison, 'all')}"
    )
    tables = _score_tables(comparison, "all", "against all others, seen ones included, augmented")
    return page.section("On the images of MIM's own report", words, tables)


def _clinical(comparison: Mapping[str, Any], runs: Sequence[Run]) -> str:
    if not comparison["views"]["clinical"]:
        return page.section(
            "Clinical test",
            "There is none that all of these runs hold: evaluate each of them with "
            "<code>--mode=evaluate --config.evaluation.clinical=FOLDER</code>, with the same folder.",
        )
    test = runs[0].results["clinical"]
    images = test["images"]
    words = (
        f"{images['positives']:,} mpox test images of each fold with Gaussian noise (standard deviation "
        f"{test['sigma']:g} of full scale) against {images['negatives']:,} clinical images of "
        f"{_listed(sorted(test['classes']))}, by the networks of all folds (section 3.4 of the paper, which "
        f"reports {PAPER_CLINICAL:g} for MIM and {_PAPER_CLINICAL_SWIN:g} for the Swin Transformer on its "
        f"own images).{_reached(comparison, 'clinical')}"
    )
    return page.section("Clinical test", words, _score_tables(comparison, "clinical", "of the clinical test"))


def _reached(comparison: Mapping[str, Any], view: str) -> str:
    """What MIM, which has no such scores, has in their place."""
    value = comparison["views"][view]["auroc"]["augmented"].get("mim", {}).get(SCORE)
    if not value:
        return ""
    return f" MIM's own AUROC here is <b>{spread(value)}</b> ({_intervals(value)})."


def _score_tables(comparison: Mapping[str, Any], view: str, what: str, *, compared: bool = True) -> str:
    """Scores down, classifiers across: the AUROC, and what the reference has more."""
    summary, methods = comparison["views"][view], comparison["methods"]
    runs = {name: run["title"] for name, run in comparison["runs"].items() if run["method"] != "mim"}
    held = {
        (methods[method]["score"], methods[method]["run"]): (
            page.cell(spread(value[SCORE]), value[SCORE]),
            _difference(summary, method),
        )
        for method, value in summary["auroc"]["augmented"].items()
    }
    header = ["", *map(page.text, runs.values())]
    scores = [score for score in SCORES if any((score, name) in held for name in runs)]

    def table(title: str, place: int) -> str:
        rows = [page.row(SCORE_NAMES[score], [held[score, name][place] for name in runs]) for score in scores]
        return page.table(title, header, rows)

    reference = _title(comparison, comparison["reference"])
    minus = table(f"Table. {reference} minus each, {what}", 1) * compared
    return table(f"Table. AUROC ± std {what}", 0) + minus


def _rocs(comparison: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    captions = {}
    for end, places in comparison["extremes"].items():
        folds = ", ".join(
            f"{_title(comparison, method)} fold {comparison['images'][place]['fold'] + 1}"
            for method, place in places.items()
        )
        captions[f"roc_{end}"] = f"Figure 6. ROC curves, each network in its own {end} fold ({folds})"
    words = (
        "The images are those of Table 4. The best and the worst fold of each network are picked after the "
        "fact, to show the spread: neither is an estimate of what a new run would reach."
    )
    return page.section("ROC curves", words, page.gallery(pngs, captions))


def _classes(comparison: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    captions, tables = {}, []
    for part in ("group", "class"):
        if parts := shown_parts(comparison, part):
            title = f"AUROC by {part}, augmented test sets, mean over the folds"
            captions[f"per_{part}"] = f"Figure. {title}, interval by images; number of images in brackets"
            rows = []
            for name, value in parts[comparison["reference"]].items():
                cells = [page.cell(spread(own[name]), own[name]) for own in parts.values()]
                rows.append(page.row(page.text(name), [f"{value['n']:,}", *cells]))
            header = [part, "images", *(_title(comparison, method) for method in parts)]
            tables.append(page.table(f"Table. {title}", header, rows))
    words = (
        "All augmented mpox images against a part of the others of Table 3, the classifiers by their "
        "probability of mpox. Of a known class each fold has the images that it has not trained on alone; a "
        "class that some fold has no image of is left out."
    )
    details = page.details("The same as tables", *tables)
    return page.section("AUROC by class", words, page.gallery(pngs, captions), details)


def _training(comparison: Mapping[str, Any]) -> str:
    """How each network was trained, one column a run, and where they differ."""
    runs = list(comparison["runs"].values())
    names = [page.text(run["title"]) for run in runs]
    values = {item: [page.text(run["training"][item]) for run in runs] for item in runs[0]["training"]}
    rows = [page.row(item, cells) for item, cells in values.items()]
    table = page.table("Table. Networks and their training", ["", *names], rows, "words")
    words = "The network that is scored is the last one of its training, never one picked by a test score."
    unlike = [
        f"They differ in {item}: {'; '.join(map(' '.join, zip(names, values[item], strict=True)))}. What "
        "sets them apart in AUROC may come from this."
        for item in _CONDITIONS
        if len(set(values[item])) > 1
    ]
    if "mim" in comparison["runs"]:
        unlike.insert(0, "MIM trains on mpox alone; the classifiers also train on images of known others.")
    return page.section("How each network was trained", words, page.bullets(unlike), table)


def _notes(comparison: Mapping[str, Any]) -> str:
    controls = [
        f"{_title(comparison, method)}, a control of MIM: {page.text(METHOD_CLAUSES[method])}."
        for method in _controls(comparison)
    ]
    notes = [
        "AUROC is the chance that an mpox image scores above another image, ties counting half: 0.5 is "
        "chance, 1 is perfect. Every score is high for images like mpox, or known; no sign was ever turned.",
        "± is the population standard deviation over the folds (divided by k), as in the paper.",
        f"{INTERVALS} Where two intervals stand below a number, the first is by images, the second by images "
        "and folds.",
        "Differences are paired by resample. “Better” and “worse” are said where both intervals lie on one "
        "side of zero; “these networks: better” where only the interval by images does. Nothing is corrected "
        "for the number of methods, scores and classes shown: of twenty comparisons without a difference one "
        "may be expected outside its interval.",
        *controls,
        "Folds are numbered from 1 here and from 0 in the files of the runs.",
    ]
    footer = "<footer><p>This is research software and not a medical device.</p></footer>"
    return f"<h2>How to read this page</h2>{page.bullets(notes)}{footer}"


def _draw(comparison: Mapping[str, Any], runs: Sequence[Run], *, notice: str) -> dict[str, bytes]:
    methods, aurocs = tested(runs), comparison["views"]["paper"]["auroc"]["augmented"]
    titles = {method: own["title"] for method, own in comparison["methods"].items()}
    pngs = {}
    for end, places in comparison["extremes"].items():
        curves, areas = {}, {}
        for method, place in places.items():
            fold = methods[method][place]
            fold = fold.select(fold.augmented)
            curves[titles[method]] = roc(fold.similarities[SCORE], fold.positive)
            areas[titles[method]] = aurocs[method][SCORE]["folds"][place]["value"]
        pngs[f"roc_{end}"] = figures.roc_figure(curves, areas, notice=notice)
    for part in ("group", "class"):
        if parts := shown_parts(comparison, part):
            named = {titles[method]: values for method, values in parts.items()}
            label = f"AUROC against one {part}"
            pngs[f"per_{part}"] = figures.interval_figure(named, xlabel=label, notice=notice)
    return pngs


def _intervals(estimate: Mapping[str, Any]) -> str:
    """Both, where there are two."""
    folds = "" if estimate["low_folds"] is None else f", by images and folds {interval(estimate, '_folds')}"
    return f"95 % by images {interval(estimate)}{folds}"


def _difference(summary: Mapping[str, Any], method: str) -> str:
    difference = summary["differences"].get(method, {}).get(SCORE)
    return page.cell(signed(difference["mean"]), difference) if difference else ""


def _controls(comparison: Mapping[str, Any]) -> list[str]:
    return [name for name, method in comparison["methods"].items() if method["run"] is None]


def _title(comparison: Mapping[str, Any], method: str) -> str:
    return page.text(comparison["methods"][method]["title"])


def _count(comparison: Mapping[str, Any], *keys: str) -> str:
    """How many images of these kinds a fold has, or from how many to how many."""
    counts = [sum(fold[key] for key in keys) for fold in comparison["images"]]
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _listed(names: Sequence[str]) -> str:
    *first, last = map(page.text, names)
    return f"{', '.join(first)} and {last}" if first else last
