"""The sections on clinical and on worse photographs, as HTML."""

from collections.abc import Mapping
from typing import Any

from mim_jax import page
from mim_jax.stress_figures import AXES, axis_names
from mim_jax.wording import interval, metric_name, metrics, number, percent

_SWEEP = {"positives": "noise on mpox alone", "both": "noise on both sides"}


def clinical_section(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    """The clinical test of the paper (section 3.4), with its noise sweep."""
    test = results["clinical"]
    if not test:
        return page.section(
            "Clinical test",
            "There is no clinical test in this run: give a folder of clinical images, none of them of the "
            "training class, with <code>--config.evaluation.clinical=FOLDER</code> and evaluate again with "
            "<code>--mode=evaluate</code> in the same workdir.",
        )
    primary, aurocs, images = test["metric"], test["auroc"], test["images"]
    names, own = [split["fold"] + 1 for split in results["splits"]], aurocs[primary]
    few, most = min(images["of_positives"]), max(images["of_positives"])
    given = f"{few}" if few == most else f"{few} to {most}"
    words = (
        f"By {_metric(primary)}: paper {test['paper']}, this run <b>{number(own['mean'])}</b> "
        f"{interval(own)}; data: {images['positives']} noisy copies of the {given} mpox test images of each "
        f"fold against {images['negatives']} clinical images ({page.text(test['source'])}; digest "
        f"<code>{page.text(test['digest'])}</code>). The noise is Gaussian with a standard deviation of "
        f"{test['sigma']:g} for values in [0, 1], on the mpox images alone, as in the paper, which does not "
        "state its strength. Noise is hard to inpaint, so scores of mpox fall for a reason that has nothing "
        "to do with the disease: the sweep therefore shows noise on both sides too. Intervals are by images."
    )
    rows = [
        page.row(
            _metric(metric),
            [
                page.cell(number(aurocs[metric]["mean"]), aurocs[metric]),
                *map(number, aurocs[metric]["folds"]),
            ],
        )
        for metric in metrics(aurocs)
    ]
    table = page.table(
        "Table. AUROC of the clinical test", ["", "mean", *(f"fold {name}" for name in names)], rows
    )
    caption = (
        f"Figure. AUROC of the clinical test by {_metric(primary)} against the noise, 95 % interval by "
        "images; the dotted line is the noise of the table"
    )
    sweep = test["noise_sweep"]
    noise = [
        page.row(
            f"{sigma:g}",
            [page.cell(number(sweep[name][place]["mean"]), sweep[name][place]) for name in _SWEEP],
        )
        for place, sigma in enumerate(sweep["sigmas"])
    ]
    swept = page.table("Table. The noise sweep", ["noise", *_SWEEP.values()], noise)
    classes = [page.row(page.text(name), [str(count)]) for name, count in sorted(test["classes"].items())]
    held = page.table("Table. Clinical images of each class", ["class", "images"], classes)
    return page.section(
        "Clinical test",
        words,
        table,
        page.gallery(pngs, {"noise_sweep": caption}),
        page.details("The sweep as a table, and the classes", swept, held),
    )


def robustness_section(results: Mapping[str, Any], pngs: Mapping[str, bytes]) -> str:
    """The sheet of corruptions, mask positions and mask sizes."""
    sheet = results["robustness"]
    if not sheet:
        return page.section(
            "Worse photographs",
            "There is no robustness sheet in this run: give the number of images to corrupt with "
            "<code>--config.evaluation.robustness_images=N</code> and evaluate again with "
            "<code>--mode=evaluate</code> in the same workdir.",
        )
    images, decider = sheet["images"], _metric(sheet["metric"])
    words = (
        f"Images of both sides are made worse alike ({sum(images['positives'])} of "
        f"{sum(images['of_positives'])} mpox test images and {images['negatives']} of "
        f"{images['of_negatives']} others, drawn by seed). The left edge of each panel is the untouched "
        "image. Missed mpox and false alarms are by the threshold of each fold and belong together: what "
        "makes every image easy to inpaint misses none and alarms always."
    )
    if all(threshold is None for threshold in sheet["thresholds"]):
        words += " This run states no thresholds, so there is neither here."
    header = ["strength", "AUROC", "mpox missed", "false alarms"]
    rows = [page.row("untouched", _entry(sheet["plain"]), "strong")]
    for name in axis_names(sheet):
        axis = sheet["axes"][name]
        title = page.text(AXES[name][0] if name in AXES else name)
        rows.append(page.subheading(f"{title} <small>{page.text(axis['unit'])}</small>", len(header)))
        for strength, entry in zip(axis["strengths"], axis["entries"], strict=True):
            rows.append(page.row(f"{strength:g}", _entry(entry)))
    table = page.table(f"Table. Robustness by {decider}, mean over the folds", header, rows)
    caption = (
        f"Figure. Robustness by {decider}: AUROC with its 95 % interval by images, shares missed and "
        "alarmed, means over the folds"
    )
    return page.section(
        "Worse photographs",
        words,
        page.gallery(pngs, {"robustness": caption}),
        page.details("The same as a table, with units", table),
    )


def _entry(entry: Mapping[str, Any]) -> list[str]:
    auroc = page.cell(number(entry["auroc"]["mean"]), entry["auroc"])
    return [auroc, percent(entry["missed"]["mean"]), percent(entry["false_alarms"]["mean"])]


def _metric(name: str) -> str:
    return page.text(metric_name(name))
