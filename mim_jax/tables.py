"""The tables of AUROCs as HTML: MIM beside the paper, the panel of controls, operating points, classes."""

from collections.abc import Mapping
from typing import Any

from mim_jax import figures, page
from mim_jax.wording import (
    REFERENCE,
    controls,
    interval,
    leading,
    method_name,
    metric_name,
    metrics,
    number,
    ordered,
    percent,
    positive_share,
    signed,
    spread,
    variants,
)

_SETS = {"augmented": "augmented test sets", "plain": "plain test images"}


def auroc_section(results: Mapping[str, Any]) -> str:
    """Table 2 of the paper, what it does not have beside it, and the same on the plain test images."""
    primary = results["decision"]["metric"]
    data, mim = results["data"], results["auroc"]["augmented"][REFERENCE]
    positives = data["classes"].get(data["positive"], 0)
    others = sum(data["classes"].values()) - positives
    words = ""
    if primary in results["paper"]:
        words += (
            f"By {_metric(primary)}: paper {_paper(results, primary)}, this run {spread(mim[primary])}; "
            f"data: the paper's own images there, {page.text(data['source'])} here ({positives:,} of "
            f"{page.text(data['positive'])}, {others:,} others). Other images make another task: the two "
            "numbers are not a comparison of methods."
        )
    return page.section(
        "AUROC by metric",
        words,
        _mim_table(results, "augmented"),
        _panel_table(results, "augmented"),
        page.details(
            "Controls and variants by every metric", _metric_table(results), _difference_table(results)
        ),
        page.details(
            "The same on the plain test images",
            _mim_table(results, "plain"),
            _panel_table(results, "plain"),
        ),
        page.details("Average precision, sensitivity and specificity", *_operating(results)),
    )


def class_section(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    """AUROC against each group of classes and each class."""
    decider = _metric(results["decision"]["metric"])
    captions, tables = {}, []
    for part in ("group", "class"):
        if results[f"per_{part}"].get(REFERENCE):
            parts = figures.ranked(results[f"per_{part}"])
            title = f"AUROC of {decider} by {part}, augmented test sets, mean over the folds"
            captions[f"per_{part}"] = f"Figure. {title}, interval by images; number of images in brackets"
            rows = []
            for name, value in parts[REFERENCE].items():
                cells = [page.cell(spread(values[name]), values[name]) for values in parts.values()]
                rows.append(page.row(page.text(name), [str(value["n"]), *cells]))
            header = [part, "images", *(_marked(results, method) for method in parts)]
            tables.append(page.table(f"Table. {title} ± std", header, rows))
    words = (
        "All test images of the training class against a part of the others, ordered by MIM's AUROC. The "
        "figures show MIM, the best control and the most telling others; the tables show all."
    )
    details = page.details("The same as tables", *tables)
    return page.section("AUROC by class", words, page.gallery(pngs, captions), details)


def _mim_table(results: Mapping[str, Any], kind: str) -> str:
    """Table 2: the mean with both intervals, the paper, each fold."""
    mim = results["auroc"][kind][REFERENCE]
    order = metrics(mim)
    rows = [
        page.row("this run, mean ± std", [spread(mim[metric]) for metric in order], "strong"),
        page.row("95 % by images", [interval(mim[metric]) for metric in order], "strong"),
        page.row("95 % by images and folds", [interval(mim[metric], "_folds") for metric in order], "strong"),
    ]
    if kind == "augmented":
        rows.append(page.row("paper (other data)", [_paper(results, metric) for metric in order], "aside"))
    for place, split in enumerate(results["splits"]):
        folds = [mim[metric]["folds"][place] for metric in order]
        rows.append(page.row(f"fold {split['fold'] + 1}", [page.cell(number(f["value"]), f) for f in folds]))
    title = f"Table 2{'' if kind == 'augmented' else ', plain'}. AUROC of MIM on the {_SETS[kind]}"
    return page.table(title, ["", *map(_metric, order)], rows)


def _panel_table(results: Mapping[str, Any], kind: str) -> str:
    """Every method by the metric that decides, or by its own score; MIM minus each where it was compared."""
    primary, methods = results["decision"]["metric"], results["auroc"][kind]

    def row(method: str, style: str = "") -> str:
        value = leading(methods[method], primary)
        cells = [page.cell(spread(value), value)]
        if kind == "augmented":
            difference = results["differences"].get(method, {}).get(primary)
            cells.append(page.cell(signed(difference["mean"]), difference) if difference else "")
        return page.row(_marked(results, method), cells, style)

    header = ["", "AUROC ± std", *(["MIM minus it"] if kind == "augmented" else [])]
    rows = [row(REFERENCE, "strong")]
    for title, names in (("Controls", controls(results)), ("Variants of MIM", variants(results))):
        if names:
            rows += [page.subheading(title, len(header)), *map(row, names)]
    title = f"Table. MIM, controls and variants by {_metric(primary)} on the {_SETS[kind]}"
    note = f"<p><small>* by a score of its own instead of {_metric(primary)}.</small></p>"
    return page.table(title, header, rows) + (note if any(" *" in line for line in rows) else "")


def _metric_table(results: Mapping[str, Any]) -> str:
    methods = results["auroc"]["augmented"]
    order = metrics(methods[REFERENCE])
    rows = [
        page.row(_method(method), [page.cell(spread(methods[method][m]), methods[method][m]) for m in order])
        for method in ordered(methods)
        if set(order) <= set(methods[method])
    ]
    title = "Table. AUROC ± std by every metric, augmented test sets"
    return page.table(title, ["", *map(_metric, order)], rows)


def _difference_table(results: Mapping[str, Any]) -> str:
    differences, order = results["differences"], metrics(results["auroc"]["augmented"][REFERENCE])
    rows = [
        page.row(
            f"MIM minus {_method(method)}",
            [page.cell(signed(differences[method][m]["mean"]), differences[method][m]) for m in order],
        )
        for method in ordered(differences)
        if set(order) <= set(differences[method])
    ]
    title = "Table. MIM minus each method by every metric, augmented test sets"
    return page.table(title, ["", *map(_metric, order)], rows)


def _operating(results: Mapping[str, Any]) -> tuple[str, str]:
    """What the numbers are, and the table."""
    operating = results["operating"]
    names = {"sensitivity_at_specificity": "sensitivity at", "specificity_at_sensitivity": "specificity at"}
    levels = sorted(operating[REFERENCE]["sensitivity_at_specificity"], key=float)
    header = ["", "average precision"]
    header += [
        f"{words} {100 * float(level):g} % {'specificity' if words.startswith('sens') else 'sensitivity'}"
        for words in names.values()
        for level in levels
    ]
    rows = []
    for method in ordered(operating):
        values = [operating[method]["average_precision"]]
        values += [operating[method][name][level] for name in names for level in levels]
        cells = [page.cell(number(value["mean"]), value) for value in values]
        rows.append(page.row(_marked(results, method), cells))
    words = (
        f"<p>The share of positives is {percent(positive_share(results))} (mean over the folds): a score "
        "that says nothing has that average precision. All of this is read off the test images, to describe "
        "them: an operating point chosen so promises nothing for new images.</p>"
    )
    title = "Table. Operating points on the augmented test sets, mean over the folds"
    return words, page.table(title, header, rows)


def _paper(results: Mapping[str, Any], metric: str) -> str:
    return " ± ".join(map(number, results["paper"].get(metric, (None,))))


def _method(name: str) -> str:
    return page.text(method_name(name))


def _marked(results: Mapping[str, Any], method: str) -> str:
    """The name, with a star where the method has a score of its own."""
    own = results["decision"]["metric"] not in results["auroc"]["augmented"][method]
    return _method(method) + (" *" if own else "")


def _metric(name: str) -> str:
    return page.text(metric_name(name))
