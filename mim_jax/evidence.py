"""The model card of a run: markdown that goes wherever its weights go."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mim_jax.stress_figures import AXES, axis_names
from mim_jax.wording import (
    INTERVALS,
    METHOD_CLAUSES,
    REFERENCE,
    controls,
    interval,
    leading,
    method_name,
    metric_name,
    metrics,
    number,
    percent,
    positive_share,
    printable,
    signed,
    spread,
    variants,
    verdict,
)

_WORST = 5  # classes named as the worst
_USE = (
    "**This is research software and not a medical device.** It must not be used to diagnose, to triage or "
    "to rule out any disease, nor be built into a product that does.\n\n"
    "Intended use: research on novelty detection by masked inpainting, on images like those described here, "
    "by people who can judge the figures below. A score says how closely an image resembles its inpainting "
    "(high = like the training class); it is no probability of a disease. Images that are not photographs of "
    "skin get a score too, and it means nothing."
)
_LIMITS = (
    "A high score may come from blur, darkness or colours as well as from a disease: compare the controls.",
    "Skin tones, ages, cameras and countries are known only as far as the source documents them; where they "
    "differ from the training images, nothing is promised.",
    "Training sets of the folds overlap: other training images may move the mean further than any interval "
    "here.",
    "Nothing is corrected for the number of methods, metrics and classes compared.",
    "Thresholds hold for new images only as far as these are drawn like the ones they were fitted on.",
)


def model_card(results: Mapping[str, Any]) -> str:
    """Intended use, data, procedure, results with intervals, and limits: markdown with YAML front matter.

    Args:
      results: what results.json holds. What comes from data in it is escaped.
    """
    notice = f"> **{_text(results['notice'])}**\n\n" if results["notice"] else ""
    licence = "No licence is stated for these weights; the terms of the training images may reach them.\n"
    sections = {
        "Intended use": _USE,
        "Training data": _data(results),
        "Procedure": _procedure(results),
        "Results": _results(results),
        "Where it fails": _failures(results),
        "Clinical test": _clinical(results),
        "Worse photographs": _robustness(results),
        "Limits": _bullets(_LIMITS),
        "Versions and hashes": _versions(results),
        "Licence": licence,
    }
    body = "\n\n".join(f"## {title}\n\n{text.strip()}" for title, text in sections.items())
    return f"{_front(results)}\n# {_text(results['title'])}\n\n{notice}{body}\n"


def _front(results: Mapping[str, Any]) -> str:
    """YAML. A string of JSON is one of YAML as well."""
    primary, data = results["decision"]["metric"], results["data"]
    summary = results["auroc"]["augmented"][REFERENCE][primary]
    name = f"AUROC by {metric_name(primary)}, augmented test sets, mean over {len(summary['folds'])} folds"
    tag = "procedural-images" if results["notice"] else "skin-images"
    lines = (
        "---",
        "license: unknown",
        "library_name: mim_jax",
        "tags: [novelty-detection, one-class, inpainting, not-a-medical-device, " + tag + "]",
        "model-index:",
        f"- name: {_quoted(results['title'])}",
        "  results:",
        "  - task:",
        "      type: image-classification",
        '      name: "novelty detection, trained on one class"',
        "    dataset:",
        f"      name: {_quoted(data['source'])}",
        f"      type: {_quoted(data['digest'])}",
        "    metrics:",
        "    - type: roc_auc",
        f"      name: {_quoted(name)}",
        f"      value: {summary['mean']:.4f}",
        "---",
    )
    return "\n".join(lines) + "\n"


def _data(results: Mapping[str, Any]) -> str:
    data = results["data"]
    positive = data["positive"]
    rows = [
        (_text(name), f"{count:,}", f"{data['groups'][name]:,}") for name, count in data["classes"].items()
    ]
    grouped = (
        "No group (a patient, or near-duplicates) is on both sides of a split."
        if data["grouped"]
        else "The splits do not respect groups: images of one patient may be on both sides, which would make "
        "the results look better than they are."
    )
    left = (
        f"Files that could not be used: {len(data['unusable'])}. Sets of near-duplicates, each put into one "
        f"group: {len(data['duplicates'])}. Images of other classes left out of the test for sharing a group "
        f"with {_text(positive)}: {len(data['left_out'])}. Problems with groups: "
        f"{len(data['group_problems'])}."
    )
    remarks = _bullets(map(_text, data["remarks"]))
    return (
        f"{_text(data['source'])}; digest `{_code(data['digest'])}`. Only images of {_text(positive)} are "
        f"trained on; every other class is only ever tested. {grouped} {left}\n\n{remarks}\n"
        + _table(("class", "images", "groups"), rows)
    )


def _procedure(results: Mapping[str, Any]) -> str:
    training, config = results["training"], results["config"]
    counts = ", ".join(f"{_text(name)} {count:,}" for name, count in training["parameters"].items())
    size = config.get("data", {}).get("image_size")
    pixels = f" at {size} pixels" if size else ""
    return (
        "MIM (Y. Yue and Z. Li, arXiv 2310.06318, 2023): a generative adversarial network learns to inpaint "
        f"masked images of the training class{pixels}; an image is scored by its similarity to its "
        f"inpainting. {len(results['splits'])} folds, {training['epochs']:,} epochs each; the last weights "
        f"count, never ones picked by a test score. Parameters: {counts}. Every positive image is scored by "
        "the fold that has not trained on it, every other image by all folds."
    )


def _results(results: Mapping[str, Any]) -> str:
    primary, aurocs = results["decision"]["metric"], results["auroc"]["augmented"]
    mim = aurocs[REFERENCE]
    words, reservation = verdict(mim[primary], base=0.5)
    first = (
        f"AUROC on the augmented test sets, mean ± population standard deviation over the folds. By "
        f"{metric_name(primary)} MIM is **{words}** chance{_aside(reservation)}.\n\n"
    )
    header = ("metric", "AUROC", "by images", "by images and folds", "paper, other data")
    rows = [
        (
            metric_name(metric),
            spread(mim[metric]),
            interval(mim[metric]),
            interval(mim[metric], "_folds"),
            " ± ".join(map(number, results["paper"].get(metric, (None,)))),
        )
        for metric in metrics(mim)
    ]
    precision = results["operating"][REFERENCE]["average_precision"]
    second = (
        f"\nAverage precision {number(precision['mean'])} {interval(precision)}, where the share of "
        f"positives is {percent(positive_share(results))}.\n\n{INTERVALS}\n\n"
    )
    text = first + _table(header, rows) + second
    for title, methods in (("control", controls(results)), ("variant", variants(results))):
        lines = []
        for method in methods:
            own, difference = leading(aurocs[method], primary), results["differences"][method][primary]
            words, reservation = verdict(difference)
            clause = METHOD_CLAUSES.get(method, "")
            lines.append(
                (
                    f"{_text(method_name(method))}{f': {clause}' if clause else ''}",
                    spread(own),
                    f"{signed(difference['mean'])} {interval(difference)}",
                    interval(difference, "_folds"),
                    f"{words} it{_aside(reservation)}",
                )
            )
        if lines:
            text += _table(
                (title, "AUROC", "MIM minus it, by images", "by images and folds", "MIM is"), lines
            )
            text += "\n"
    return text


def _failures(results: Mapping[str, Any]) -> str:
    """The groups and the classes that MIM tells least from the training class, and what it decides."""
    text = ""
    for part in ("group", "class"):
        values = results[f"per_{part}"].get(REFERENCE)
        if not values:
            continue
        worst = sorted(values, key=lambda name: (values[name]["mean"], name))[:_WORST]
        rows = [
            (_text(name), str(values[name]["n"]), spread(values[name]), interval(values[name]))
            for name in worst
        ]
        text += _table((f"lowest AUROC by {part}", "images", "AUROC", "by images"), rows) + "\n"
    table, positive = results["decision"]["table"], results["data"]["positive"]
    if positive in table and table[positive]["n"]:
        own = table[positive]
        others = [value for name, value in table.items() if name != positive]
        count, alarms = sum(value["n"] for value in others), sum(value["mpox_like"] for value in others)
        text += (
            f"At the thresholds of the folds ({_text(results['decision']['rule'])}) "
            f"{own['not_mpox_like']} of {own['n']} plain test images of {_text(positive)} are missed and "
            f"{own['cannot_tell']} cannot be told; {alarms:,} of {count:,} others are false alarms and "
            f"{sum(value['cannot_tell'] for value in others):,} cannot be told. "
            f"{_text(results['decision']['promise'])} {_text(results['decision']['band'])}\n"
        )
    else:
        text += "No decision on the training class was made: there are too few images for thresholds.\n"
    return text


def _clinical(results: Mapping[str, Any]) -> str:
    test = results["clinical"]
    if not test:
        return "None was made."
    own = test["auroc"][test["metric"]]
    return (
        f"Noisy images of the training class (standard deviation {test['sigma']:g}) against "
        f"{test['images']['negatives']} images of {_text(test['source'])} (digest "
        f"`{_code(test['digest'])}`): AUROC by {metric_name(test['metric'])} {number(own['mean'])} "
        f"{interval(own)} (paper {test['paper']}, other data)."
    )


def _robustness(results: Mapping[str, Any]) -> str:
    sheet = results["robustness"]
    if not sheet:
        return "None were tried."
    rows = [("untouched", "", *_entry(sheet["plain"]))]
    for name in axis_names(sheet):
        axis = sheet["axes"][name]
        title = AXES[name][0] if name in AXES else _text(name)
        strength = f"{axis['strengths'][-1]:g} ({_text(axis['unit'])})"
        rows.append((title, strength, *_entry(axis["entries"][-1])))
    header = ("change", "strongest tried", "AUROC", "missed", "false alarms")
    return f"By {metric_name(sheet['metric'])}, both sides changed alike.\n\n" + _table(header, rows)


def _entry(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    auroc = f"{number(entry['auroc']['mean'])} {interval(entry['auroc'])}"
    return auroc, percent(entry["missed"]["mean"]), percent(entry["false_alarms"]["mean"])


def _versions(results: Mapping[str, Any]) -> str:
    environment = dict(results["environment"])
    facts = {**environment.pop("versions"), **environment, "seed": results["seed"]}
    facts["data digest"] = results["data"]["digest"]
    for split, value in zip(results["splits"], results["training"]["parameter_hash"], strict=True):
        facts[f"parameters of fold {split['fold'] + 1}"] = value
    return _table(("item", "value"), [(_text(name), _text(value)) for name, value in facts.items()])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _bullets(items: Iterable[str]) -> str:
    return "".join(f"- {item}\n" for item in items)


def _aside(reservation: str) -> str:
    return f" ({reservation})" if reservation else ""


def _text(value: object) -> str:
    """Markdown that shows a value from outside as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&])", r"\\\1", printable(value))


def _code(value: object) -> str:
    """A value from outside between backticks, which cannot be escaped there."""
    return printable(value).replace("`", "'").replace("|", "/")


def _quoted(value: object) -> str:
    return json.dumps(printable(value), ensure_ascii=False)
