"""One self-contained page about a run: `report.html`, with its figures inside and beside it.

The page fetches nothing and needs no script. Whatever comes from data (file names, class names, texts) is
escaped where it enters the HTML. The same input gives the same bytes.
"""

import base64
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mim_jax import figures
from mim_jax.figures import Panels, metric_name, method_name

PRIMARY = "ssim_hbd"  # the metric that the paper proposes and decides by
REFERENCE = "mim"
SHORT_NOTICE = "procedural images: says nothing about mpox"

_KEYS = (
    "title notice data splits auroc per_class per_group differences decision paper training environment seed "
    "wall_time config"
).split()
_KINDS = {
    "typical": "not chosen by score",
    "best": "highest scores",
    "worst": "lowest scores",
}
_CURVES = {  # figure -> (axis title, {column of the history: name in words})
    "loss_pixel": ("pixel loss (mean absolute error)", {"loss_pixel": "pixel loss"}),
    "loss_adversarial": ("adversarial loss of the generator", {"loss_adversarial": "adversarial loss"}),
    "loss_discriminator": ("discriminator loss", {"loss_discriminator": "discriminator loss"}),
    "discriminator": (
        "mean output of the discriminator",
        {"d_real": "D(real), target 1", "d_fake": "D(fake), target 0"},
    ),
    "learning_rate": ("learning rate", {"learning_rate": "learning rate"}),
}
_CSS = """
:root{color-scheme:light dark;--ink:#1c1f23;--soft:#59626d;--page:#fff;--line:#d9dde2;--band:#f4f6f8;--warn:#a00000;
--warnpage:#fff1f0}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#a3acb6;--page:#15181b;--line:#3a4047;--band:#1f2327;
--warn:#ff9d94;--warnpage:#3a1d1b}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:68rem;margin:0 auto;padding:1rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.25;margin:.8rem 0}
h2{font-size:1.25rem;margin:2.6rem 0 .6rem;padding-top:.7rem;border-top:1px solid var(--line)}
p,ul{max-width:46rem}
.banner{border:2px solid var(--warn);background:var(--warnpage);padding:.7rem 1rem;border-radius:6px;font-weight:600}
.notice{color:var(--warn);font-weight:600}
.soft,caption small,td small{color:var(--soft)}
.box{overflow-x:auto;margin:1rem 0;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;padding:.2rem 0 .5rem;max-width:46rem}
th,td{padding:.32rem .7rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top;white-space:nowrap}
th[scope=row],th:first-child{text-align:left}
table.words td{text-align:left;white-space:normal;min-width:12rem}
td small{display:block;font-size:.78rem}
tr.strong>*{background:var(--band);font-weight:600}
tr.aside>*{color:var(--soft);font-style:italic;font-weight:400}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1.2rem;align-items:start}
figure{margin:.8rem 0;max-width:33rem;min-width:0}
figure img{display:block;width:100%;height:auto;background:#fff;padding:8px;border:1px solid var(--line);border-radius:6px}
figcaption{font-size:.88rem;margin-top:.45rem}
details{margin:1rem 0}
summary{cursor:pointer;font-weight:600}
pre{background:var(--band);padding:.8rem;overflow-x:auto;font-size:.8rem;line-height:1.4;overflow-wrap:normal}
footer{margin-top:3rem;border-top:1px solid var(--line);padding-top:.8rem}
@media(max-width:30rem){th,td{padding:.3rem .45rem}table{font-size:.82rem}}
@media print{body{font-size:10pt}main{max-width:none;padding:0}figure,tr{break-inside:avoid}
h2,caption{break-after:avoid}.box{overflow:visible}details::details-content{content-visibility:visible}}
"""


def write_report(
    workdir: str | Path,
    *,
    results: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    panels: Panels,
) -> Path:
    """Writes `report.html` and `figures/*.png` into the run's directory.

    Args:
      workdir: an existing directory.
      results: what results.json holds.
      scores: one row an image, method and fold.
      history: the events of training; those that are no "epoch" are passed over.
      panels: images to show.

    Returns:
      The path of the page.

    Raises:
      ValueError: a part of the results is missing.
    """
    missing = [key for key in _KEYS if key not in results]
    if missing:
        raise ValueError(
            f"the results lack {', '.join(missing)}: write the report from a complete results.json"
        )
    if PRIMARY not in results["auroc"]["augmented"][REFERENCE]:
        raise ValueError(
            f"the results have no {PRIMARY} for {REFERENCE}: the report is built around that metric"
        )
    pngs = _draw(results, scores, history, panels)
    folder = Path(workdir) / "figures"
    folder.mkdir(exist_ok=True)
    for name, png in pngs.items():
        (folder / f"{name}.png").write_bytes(png)
    path = Path(workdir) / "report.html"
    path.write_bytes(_page(results, pngs, panels).encode("utf-8"))
    return path


def _draw(
    results: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    panels: Panels,
) -> dict[str, bytes]:
    """Every figure that the run has data for: name -> PNG."""
    notice = _notice(results)
    pngs = {}
    for end, place in _ends(results).items():
        curves = figures.roc_curves(scores, fold=results["splits"][place]["fold"], metric=PRIMARY)
        aurocs = {
            method_name(method): metrics[PRIMARY]["folds"][place]["value"]
            for method, metrics in results["auroc"]["augmented"].items()
        }
        named = {
            method_name(method): curves[method]
            for method in results["auroc"]["augmented"]
            if method in curves
        }
        if named:
            pngs[f"roc_{end}"] = figures.roc_figure(named, aurocs, notice=notice)
    for part, xlabel in (("per_group", "AUROC against one group"), ("per_class", "AUROC against one class")):
        if results[part].get(REFERENCE):
            label = f"{xlabel}, {metric_name(PRIMARY)}"
            pngs[part] = figures.interval_figure(_ranked(results[part]), xlabel=label, notice=notice)
    series = _by_group(results, scores)
    if series:
        decision = results["decision"]
        pngs["histograms"] = figures.histogram_figure(
            series,
            xlabel=f"{metric_name(PRIMARY)} similarity (high = mpox-like)",
            thresholds=[value for value in decision["thresholds"] if value is not None],
            pooled=decision["pooled"],
            notice=notice,
        )
    cell = figures.panel_cell(len(panels.images), panels.images.shape[1])
    for name, rows in _panel_rows(panels).items():
        pngs[name] = figures.panel_figure(panels, rows, cell=cell, notice=notice)
    epochs = {(row["fold"], row["epoch"]): row for row in history if row.get("event") == "epoch"}
    if epochs:
        for name, (ylabel, columns) in _CURVES.items():
            pngs[name] = figures.curve_figure(_curves(epochs, columns), ylabel=ylabel, notice=notice)
    return pngs


def _page(results: Mapping[str, Any], pngs: Mapping[str, bytes], panels: Panels) -> str:
    title = _text(results["title"])
    banner = f'<p class="banner" role="note">{_text(results["notice"])}</p>' if results["notice"] else ""
    short = f" ({_text(_notice(results))})" if results["notice"] else ""
    sections = (
        _summary(results),
        _comparison(results),
        _curves_section(results, pngs),
        _breakdown(results, pngs),
        _panel_section(results, pngs, panels),
        _decisions(results, pngs),
        _splits(results),
        _training(results, pngs),
        _data(results),
        _settings(results),
        _notes(results),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';img-src data:;'
        "style-src 'unsafe-inline'\">"
        f"<title>{title}{short}</title><style>{_CSS}</style></head>\n<body><main>{banner}<h1>{title}</h1>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main></body></html>\n"
    )


def _summary(results: Mapping[str, Any]) -> str:
    """The outcome in words."""
    augmented, plain = (results["auroc"][kind][REFERENCE][PRIMARY] for kind in ("augmented", "plain"))
    others = len([name for name in results["data"]["classes"] if name != results["data"]["positive"]])
    metric = metric_name(PRIMARY)
    verdicts = "".join(
        f"<li>{_verdict(method, metrics[PRIMARY])}</li>" for method, metrics in results["differences"].items()
    )
    controls = (
        f"<p>Against inpainting that needs no training (same images, same metric), MIM is</p><ul>{verdicts}</ul>"
        if verdicts
        else "<p>No untrained control was scored, so this page cannot tell what the training contributes.</p>"
    )
    return (
        f"<p>Trained on {_text(results['data']['positive'])} images alone, MIM tells them from "
        f"{others} other class{'' if others == 1 else 'es'} with a mean AUROC of "
        f"<b>{_number(augmented['mean'])}</b> (95 % interval {_interval(augmented)}; population standard deviation "
        f"{_number(augmented['std'])} over {len(augmented['folds'])} folds) on the augmented test sets, which is "
        f"{_against_chance(augmented)}. On the plain test images it is <b>{_number(plain['mean'])}</b> "
        f"{_interval(plain)}. Both are by {metric}, the metric that the paper proposes; it was not chosen by "
        f"looking at these results.</p>{controls}"
    )


def _verdict(method: str, difference: Mapping[str, Any]) -> str:
    name, size, interval = _text(method_name(method)), abs(difference["mean"]), _interval(difference)
    if difference["low"] > 0:
        return f"<b>better</b> than {name} by {_number(size)} {interval};"
    if difference["high"] < 0:
        return f"<b>worse</b> than {name} by {_number(size)} (MIM minus control {interval});"
    return f"<b>not distinguishable</b> from {name}: MIM minus control is {_signed(difference['mean'])} {interval};"


def _against_chance(estimate: Mapping[str, Any]) -> str:
    if estimate["low"] > 0.5:
        return "better than chance (0.5)"
    return "worse than chance (0.5)" if estimate["high"] < 0.5 else "not distinguishable from chance (0.5)"


def _comparison(results: Mapping[str, Any]) -> str:
    """Table 2, on the augmented and on the plain test sets."""
    augmented = _auroc_table(results, "augmented", "Table 2.", "AUROC on the augmented test sets")
    plain = _auroc_table(results, "plain", "Table 2, plain images.", "AUROC without augmented copies")
    return (
        f"<h2>AUROC by metric</h2>{augmented}"
        f"<details><summary>The same on the plain test images</summary>{plain}</details>"
    )


def _auroc_table(results: Mapping[str, Any], kind: str, label: str, title: str) -> str:
    methods = results["auroc"][kind]
    network = methods[REFERENCE]
    metrics = list(network)
    rows = [
        _row(
            f"MIM fold {split['fold'] + 1}",
            [
                f"{_number(fold['value'])}<small>{_interval(fold)}</small>"
                for fold in (network[metric]["folds"][place] for metric in metrics)
            ],
        )
        for place, split in enumerate(results["splits"])
    ]
    rows.append(_row("MIM mean ± std", [_spread(network[metric]) for metric in metrics], "strong"))
    rows.append(
        _row("95 % interval of the mean", [_interval(network[metric]) for metric in metrics], "strong")
    )
    for method, values in methods.items():
        if method != REFERENCE:
            cells = [f"{_spread(values[name])}<small>{_interval(values[name])}</small>" for name in metrics]
            rows.append(_row(f"{method_name(method)}, mean ± std", cells))
    if kind == "augmented":
        for method, values in results["differences"].items():
            cells = [
                f"{_signed(values[name]['mean'])}<small>{_interval(values[name])}</small>" for name in metrics
            ]
            rows.append(_row(f"MIM minus {method_name(method)}", cells))
        paper = results["paper"] or {}
        cells = [" ± ".join(map(_number, paper[name])) if name in paper else "–" for name in metrics]
        rows.append(_row("paper (other data)", cells, "aside"))
    return _table(results, label, title, ["", *map(metric_name, metrics)], rows)


def _curves_section(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    """Figure 6."""
    captions = {
        f"roc_{end}": f"ROC curves of the {end} fold (fold {results['splits'][place]['fold'] + 1}), augmented test set"
        for end, place in _ends(results).items()
    }
    return _gallery(
        results,
        pngs,
        "ROC curves",
        "Figure 6.",
        captions,
        f"Best and worst fold are those with the highest and the lowest AUROC of MIM by {metric_name(PRIMARY)} on "
        "the augmented test set. They are picked after the fact, to describe the spread: neither is an estimate "
        "of what a new run would reach.",
    )


def _breakdown(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    """AUROC by group and by class of the others."""
    captions = {
        "per_group": "All training-class test images against one group of classes; mean over folds, 95 % interval",
        "per_class": "All training-class test images against one class, ordered by MIM's AUROC; n in brackets",
    }
    tables = []
    for part, label in (("per_group", "group"), ("per_class", "class")):
        if results[part].get(REFERENCE):
            parts = _ranked(results[part])
            rows = [
                _row(
                    name,
                    [
                        str(value["n"]),
                        *(
                            f"{_spread(parts[m][name])}<small>{_interval(parts[m][name])}</small>"
                            for m in parts
                        ),
                    ],
                )
                for name, value in parts[REFERENCE].items()
            ]
            title = f"AUROC by {label} ({metric_name(PRIMARY)}, mean ± std over folds)"
            tables.append(_table(results, "Table.", title, [label, "n", *map(method_name, parts)], rows))
    details = f"<details><summary>As tables</summary>{''.join(tables)}</details>" if tables else ""
    return _gallery(results, pngs, "AUROC by class", "Figure.", captions, "") + details


def _panel_section(results: Mapping[str, Any], pngs: Mapping[str, bytes], panels: Panels) -> str:
    """Figure 5."""
    sides = {True: _text(results["data"]["positive"]) + " (training class)", False: "other classes"}
    captions = {}
    for name, rows in _panel_rows(panels).items():
        first = rows[0]
        captions[name] = f"{sides[bool(panels.positive[first])]}, {_KINDS[str(panels.kind[first])]}"
    return _gallery(
        results,
        pngs,
        "Original, masked, inpainted",
        "Figure 5.",
        captions,
        f"Above each name stand the image, what the network saw, the image with the hole filled, and the absolute "
        f"difference (mean of the channels; black = none, brightest = {figures.DIFFERENCE_SCALE} of full scale or "
        f"more). The number is {metric_name(PRIMARY)} under that fold's model, which was not trained on the image.",
    )


def _decisions(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    decision, data = results["decision"], results["data"]
    groups = _class_groups(results)
    order = sorted(
        decision["table"], key=lambda name: (name != data["positive"], groups.get(name, "~"), name)
    )
    rows = [
        _row(
            name,
            [
                _text("training class" if name == data["positive"] else groups.get(name, "–")),
                str(decision["table"][name]["n"]),
                str(decision["table"][name]["mpox_like"]),
                _share(decision["table"][name]["mpox_like"], decision["table"][name]["n"]),
            ],
        )
        for name in order
    ]
    thresholds = "; ".join(
        f"fold {split['fold'] + 1}: {_number(threshold) if threshold is not None else 'none'}"
        for split, threshold in zip(results["splits"], decision["thresholds"], strict=True)
    )
    captions = {
        "histograms": f"{metric_name(PRIMARY)} of the plain test images, all folds together; thin lines are the "
        "folds' thresholds, the dashed one the pooled threshold"
    }
    title = f"Decisions by {metric_name(decision['metric'])} on the plain test images, all folds together"
    return (
        _gallery(results, pngs, "Scores and decisions", "Figure.", captions, "")
        + f"<p>{_text(decision['rule'])}</p><p class=soft>Thresholds: {thresholds}; pooled: "
        f"{_number(decision['pooled'])}. Every fold's model judges every image of the other classes, so each of "
        "them counts once a fold.</p>"
        + _table(results, "Table.", title, ["class", "group", "decisions", "mpox-like", "share"], rows)
    )


def _splits(results: Mapping[str, Any]) -> str:
    """Table 1."""
    columns = {
        "train": "train",
        "test": "test, plain",
        "augmented": "test, augmented",
        "negatives": "test, others",
        "train_groups": "groups in train",
        "test_groups": "groups in test",
    }
    rows = [
        _row(f"fold {split['fold'] + 1}", [_text(split[key]) for key in columns])
        for split in results["splits"]
    ]
    grouped = (
        "No group of images (a patient, say) is on both sides of a split."
        if results["data"]["grouped"]
        else "Groups are not known for these data: images of one patient may be on both sides of a split, which "
        "makes every figure here look better than it is."
    )
    table = _table(results, "Table 1.", "Images in each split", ["", *columns.values()], rows)
    return f"<h2>Who is in which split</h2><p>{grouped}</p>{table}"


def _training(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    training, wall = results["training"] or {}, results["wall_time"]
    words = ""
    if training:
        parameters = " and ".join(
            f"{count:,} ({_text(name)})" for name, count in training["parameters"].items()
        )
        words = (
            f"{training['epochs']:,} epochs, {training['steps']:,} updates a fold; parameters: {parameters}. The "
            "network that was scored is the last one, never one picked by a test score."
        )
    captions = {name: f"{ylabel}, folds overlaid" for name, (ylabel, _) in _CURVES.items()}
    times = [
        ("train, " + f"fold {split['fold'] + 1}", seconds)
        for split, seconds in zip(results["splits"], wall["train"])
    ]
    times += [(name, wall[name]) for name in ("evaluate", "total") if wall.get(name) is not None]
    table = _table(
        results,
        "Table.",
        "Wall time",
        ["", "time", "seconds"],
        [_row(name, [_duration(s), f"{s:,.1f}"]) for name, s in times],
    )
    gallery = _gallery(results, pngs, "Training", "Figure.", captions, words)
    return (
        gallery
        or f"<h2>Training</h2><p>{words or 'This run trained nothing: it evaluated saved models.'}</p>"
    ) + table


def _data(results: Mapping[str, Any]) -> str:
    data, groups = results["data"], _class_groups(results)
    rows = [
        _row(
            name,
            [_text("training class" if name == data["positive"] else groups.get(name, "–")), f"{count:,}"],
        )
        for name, count in data["classes"].items()
    ]
    unusable = "<p>Every file could be used.</p>"
    if data["unusable"]:
        bad = [_row(name, [_text(reason)]) for name, reason in data["unusable"]]
        count = len(data["unusable"])
        unusable = (
            f"<p>{count} file{'' if count == 1 else 's'} could not be used and took no part:</p>"
            + _table(results, "Table.", "Unusable files", ["file", "reason"], bad, words=True)
        )
    return (
        f"<h2>Data</h2><p>Source: {_text(data['source'])}. Digest: <code>{_text(data['digest'])}</code>.</p>{unusable}"
        "<details><summary>Images of each class</summary>"
        + _table(results, "Table.", "Images of each class", ["class", "group", "images"], rows)
        + "</details>"
    )


def _settings(results: Mapping[str, Any]) -> str:
    environment = dict(results["environment"])
    facts = {**environment.pop("versions"), **environment, "seed": results["seed"]}
    hashes = (results["training"] or {}).get("parameter_hash") or []
    facts |= {f"parameters of fold {index + 1}": value for index, value in enumerate(hashes)}
    rows = [_row(name, [_text(value)]) for name, value in facts.items()]
    config = _lines(json.dumps(results["config"], indent=2, default=str, ensure_ascii=False))
    return (
        "<h2>Versions, device and configuration</h2>"
        + _table(results, "Table.", "Versions, device, seed and hashes", ["", ""], rows, words=True)
        + f"<details><summary>Configuration</summary><pre>{config}</pre></details>"
    )


def _notes(results: Mapping[str, Any]) -> str:
    notice = f'<p class="notice">{_text(results["notice"])}</p>' if results["notice"] else ""
    return (
        "<h2>How to read this page</h2><ul>"
        "<li>AUROC is the chance that a training-class image scores above another image, ties counting half: 0.5 "
        "is chance, 1 is perfect. Scores are similarities, so high means mpox-like.</li>"
        "<li>± is the population standard deviation over the folds (divided by k), as in the paper.</li>"
        "<li>Intervals are 95 % percentile intervals of a cluster bootstrap with 2,000 resamples: whole groups are "
        "drawn, so that an image and its augmented copies, or the images of one patient, count as one. Differences "
        "between methods are paired by resample. Intervals hold for the models at hand; they do not contain the "
        "spread of training anew.</li>"
        "<li>The many metrics, classes and groups are shown without correction for multiple comparison.</li>"
        "<li>Folds are numbered from 1 here and from 0 in the files of the run.</li></ul>"
        "<p>Cite the paper for the method (Y. Yue and Z. Li, “Adversarial masked image inpainting for robust "
        "detection of mpox and non-mpox”, arXiv 2310.06318; journal version: Scientific Reports, 2025, doi "
        "10.1038/s41598-025-85771-z), and the numbers of this page with its data digest and seed.</p>"
        f"<footer>{notice}<p>This is research software and not a medical device.</p></footer>"
    )


def _notice(results: Mapping[str, Any]) -> str:
    return SHORT_NOTICE if results["notice"] else ""


def _ends(results: Mapping[str, Any]) -> dict[str, int]:
    """Places of the best and the worst fold by MIM's AUROC; one of them where they are the same."""
    values = [fold["value"] for fold in results["auroc"]["augmented"][REFERENCE][PRIMARY]["folds"]]
    ends = {"best": values.index(max(values)), "worst": values.index(min(values))}
    return ends if ends["best"] != ends["worst"] else {"best": ends["best"]}


def _class_groups(results: Mapping[str, Any]) -> dict[str, str]:
    """Class -> group, for the classes other than the training class."""
    data = results["data"]
    return {
        name: group
        for group, names in data["class_groups"].items()
        for name in names
        if name != data["positive"]
    }


def _by_group(results: Mapping[str, Any], scores: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The network's scores of the plain test images: the training class, then each group of the others."""
    groups = _class_groups(results)
    positive, rest = results["data"]["positive"], "other classes"
    series: dict[str, list[float]] = {
        name: [] for name in (positive, *sorted(set(groups.values()), key=list(groups.values()).index), rest)
    }
    for row in scores:
        if row["method"] == REFERENCE and row["plain"]:
            series[positive if row["positive"] else groups.get(row["class"], rest)].append(row[PRIMARY])
    return {name: np.array(values) for name, values in series.items() if values}


def _panel_rows(panels: Panels) -> dict[str, np.ndarray]:
    """Figure name -> the panels on it; what was picked by score is ordered by score."""
    chosen = {}
    for kind in figures.KINDS:
        for positive, side in ((True, "training"), (False, "others")):
            rows = np.flatnonzero((panels.kind == kind) & (panels.positive == positive))
            if kind != "typical":
                sign = -1 if kind == "best" else 1
                rows = rows[np.argsort(sign * panels.scores[rows], kind="stable")]
            for part, start in enumerate(range(0, len(rows), figures.ROWS_A_FIGURE)):
                chosen[f"panels_{side}_{kind}_{part + 1}"] = rows[start : start + figures.ROWS_A_FIGURE]
    return chosen


def _curves(
    epochs: Mapping[tuple[int, int], Mapping[str, Any]], columns: Mapping[str, str]
) -> list[figures.Curve]:
    """One curve a fold and column: coloured by column where there are several, by fold otherwise."""
    curves = []
    for style, (column, words) in enumerate(columns.items()):
        for fold in sorted({fold for fold, _ in epochs}):
            rows = [epochs[key] for key in sorted(epochs) if key[0] == fold]
            values = [math.nan if row[column] is None else row[column] for row in rows]
            several = len(columns) > 1
            label = words if several else f"fold {fold + 1}"
            curves.append(
                figures.Curve(label, [row["epoch"] for row in rows], values, style if several else fold)
            )
    return curves


def _ranked(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The network first, and the parts by its mean AUROC, highest first."""
    order = sorted(parts[REFERENCE], key=lambda name: -parts[REFERENCE][name]["mean"])
    methods = [REFERENCE, *(method for method in parts if method != REFERENCE)]
    return {
        method: {name: parts[method][name] for name in order if name in parts[method]} for method in methods
    }


def _title(results: Mapping[str, Any], label: str, title: str) -> str:
    notice = f' – <span class="notice">{_text(_notice(results))}</span>' if results["notice"] else ""
    return f"<b>{label}</b> {title}{notice}"


def _table(
    results: Mapping[str, Any],
    label: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[str],
    *,
    words: bool = False,
) -> str:
    """A table that scrolls inside its own box."""
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header)
    return (
        f'<div class="box" tabindex="0"><table{" class=words" if words else ""}>'
        f"<caption>{_title(results, label, title)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, cells: Sequence[str], style: str = "") -> str:
    """A table row: `name` is text, `cells` are HTML."""
    opening = f'<tr class="{style}">' if style else "<tr>"
    return (
        f'{opening}<th scope="row">{_text(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
    )


def _gallery(
    results: Mapping[str, Any],
    pngs: Mapping[str, bytes],
    heading: str,
    label: str,
    captions: Mapping[str, str],
    words: str,
) -> str:
    """A section with those figures that were drawn; nothing where none was. Captions are HTML."""
    drawn = "".join(
        f'<figure><img alt="{label} {caption}" src="data:image/png;base64,{base64.b64encode(pngs[name]).decode()}">'
        f"<figcaption>{_title(results, label, caption)}</figcaption></figure>\n"
        for name, caption in captions.items()
        if name in pngs
    )
    return f'<h2>{heading}</h2><p>{words}</p><div class="grid">{drawn}</div>' if drawn else ""


def _text(value: object) -> str:
    """HTML of a value that comes from outside."""
    return html.escape(figures.printable(value))


def _lines(text: str) -> str:
    return "\n".join(map(_text, text.split("\n")))


def _number(value: float | None) -> str:
    return f"{value:.4f}" if value is not None and math.isfinite(value) else "–"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _interval(estimate: Mapping[str, Any]) -> str:
    return f"[{_number(estimate['low'])}, {_number(estimate['high'])}]".replace("-", "−")


def _spread(estimate: Mapping[str, Any]) -> str:
    return f"{_number(estimate['mean'])} ± {_number(estimate['std'])}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    )
