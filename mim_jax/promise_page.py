"""The decision in the report as HTML: rule and promise, whether it was kept, every class, others."""

from collections.abc import Mapping
from typing import Any

from mim_jax import figures, page
from mim_jax.data_sheet import group_of
from mim_jax.promise_figures import coverage, error_rate
from mim_jax.wording import metric_name, number, percent

_RULES = {
    "calibrated": "calibrated, in expectation",
    "certified": "certified, with confidence",
    "paper": "the paper's",
    "youden": "Youden's",
    "sensitivity": "wanted sensitivity",
}


def decision_section(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    """What decides, what it promises, what came of it on the test images."""
    decision = results["decision"]
    metric = page.text(metric_name(decision["metric"]))
    thresholds = "".join(
        f"fold {split['fold'] + 1}: {number(lower)}{'' if upper is None else f' and {number(upper)}'}; "
        for split, lower, upper in zip(
            results["splits"], decision["thresholds"], decision["upper"], strict=True
        )
    )
    both = number(decision["pooled"])
    if decision["pooled_upper"] is not None:
        both += f" and {number(decision['pooled_upper'])}"
    words = (
        f"Rule: {page.text(decision['rule'])}. An image that is not above the first threshold is not "
        "mpox-like, one above the second as well is mpox-like, and between them it cannot be told."
    )
    facts = [
        page.text(decision["promise"]),
        page.text(decision["band"]),
        f"Thresholds for new images: {both}. For the test images, of which none helped to set its own: "
        f"{thresholds.removesuffix('; ')}.",
        "Every test image is decided once: those of the training class by their fold, the others shared out "
        "among the folds by group.",
    ]
    captions = {
        "histograms": f"Figure. {metric} of the plain test images, all folds together, with the thresholds",
        "reliability": "Figure. Promised and observed rates on the test folds, with the 95 % interval of the "
        "missed",
        "coverage": "Figure. Error among the decided test images as the undecided band narrows",
    }
    return page.section(
        "The decision and its promise",
        words,
        page.bullets(facts),
        page.gallery(pngs, captions),
        _reliability(results),
        _classes(results, metric),
        _alternatives(results, metric),
    )


def _reliability(results: Mapping[str, Any]) -> str:
    rows, found = [], results["decision"]["reliability"]
    families = sorted({name for row in found for name in row["false_alarms"]})
    for row in found:
        cells = [
            f"{percent(each['value'])}<small>{percent(each['low'])} to {percent(each['high'])}</small>"
            if each
            else "none"
            for each in (row["missed"], *(row["false_alarms"].get(name) for name in families))
        ]
        decided = (percent(coverage(row)), *(percent(error_rate(row[s])) for s in ("training", "others")))
        rows.append(page.row(percent(row["rate"]), [*cells, *decided]))
    positive = page.text(results["data"]["positive"])
    header = [
        *("promised", f"{positive} missed", *(f"alarms, {page.text(name)}" for name in families)),
        *("decided", "of these missed", "of these false alarms"),
    ]
    return page.details(
        "Was the promise kept? Promised and observed rates",
        "<p>The same rate is promised for missed cases and for false alarms in each group of classes; a case "
        "is a group of images. Below each its exact 95 % interval (Clopper and Pearson), as if cases were "
        "independent, which those of one fold are not quite. What is decided, and the errors among it, count "
        "images; both sides weigh alike.</p>",
        page.table("Table. Promised and observed rates on the test folds", header, rows),
    )


def _classes(results: Mapping[str, Any], metric: str) -> str:
    decision = results["decision"]
    paper = decision["alternatives"].get("paper", {}).get("table", {})
    order = [results["data"]["positive"], *figures.groups_of_classes(results)]
    rows = []
    for name in sorted(decision["table"], key=[*order, *sorted(decision["table"])].index):
        count = decision["table"][name]
        cells = [_count(count[kind], count["n"]) for kind in ("mpox_like", "cannot_tell", "not_mpox_like")]
        if paper:
            cells.append(_count(paper[name]["mpox_like"], paper[name]["n"]))
        rows.append(page.row(page.text(name), [group_of(results, name), str(count["n"]), *cells]))
    header = ["class", "group", "images", "mpox-like", "cannot tell", "not mpox-like"]
    return page.table(
        f"Table. Decisions by {metric} on the plain test images, all folds together",
        [*header, "mpox-like by the paper's threshold"] if paper else header,
        rows,
        "grouped",
    )


def _alternatives(results: Mapping[str, Any], metric: str) -> str:
    decision, positive = results["decision"], results["data"]["positive"]
    rows = []
    for name, each in decision["alternatives"].items():
        own = [count for label, count in each["table"].items() if label == positive]
        others = [count for label, count in each["table"].items() if label != positive]
        cells = [number(each["lower"])]
        for side, wrong in ((own, "not_mpox_like"), (others, "mpox_like")):
            total = sum(count["n"] for count in side)
            cells += [_count(sum(count[kind] for count in side), total) for kind in (wrong, "cannot_tell")]
        style = "strong" if name == decision["name"] else ""
        rows.append(page.row(_name(name), cells, style))
    missed = page.text(positive)
    header = ["rule", "threshold", f"{missed} missed", "cannot tell", "false alarms", "cannot tell"]
    told = (
        f"<b>{_name(name)}</b>: {page.text(each['origin'])}. {page.text(each['promise'])}"
        for name, each in decision["alternatives"].items()
    )
    title = f"Table. Other thresholds on {metric} beside this one, on the same images"
    return page.table(title, header, rows) + page.details("What each was fitted on", page.bullets(told))


def _name(rule: str) -> str:
    return _RULES.get(rule, page.text(rule))


def _count(hits: int, total: int) -> str:
    return f"{hits:,}<small>{percent(hits / total) if total else 'n/a'}</small>"
