"""Figures of worse photographs: the noise sweep of the clinical test and the sheet of corruptions, as PNG."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from mim_jax import canvas
from mim_jax.wording import metric_name

# In the order of the sheet; where the untouched image stands on the axis.
AXES = {
    "noise": ("noise", 0.0),
    "blur": ("blur", 0.0),
    "jpeg": ("JPEG", 0.0),
    "brightness": ("darker", 0.0),
    "white_balance": ("warmer light", 0.0),
    "rotation": ("rotation", 0.0),
    "crop": ("crop", 0.0),
    "mask_position": ("position of the hole", 0.0),
    "mask_size": ("size of the patch", 1.0),
}


def noise_sweep_figure(clinical: Mapping[str, Any], *, notice: str = "") -> bytes:
    """AUROC of the clinical test against the noise: on mpox images alone, and on both sides; with bands."""
    sweep = clinical["noise_sweep"]
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(3.0, notice)
        axes = figure.add_subplot(
            xlabel="standard deviation of the noise, values in [0, 1]",
            ylabel=f"AUROC, {metric_name(clinical['metric'])}",
            ylim=(0, 1),
        )
        axes.axhline(0.5, color="#999999", linewidth=0.8)
        axes.axvline(clinical["sigma"], color="#444444", linewidth=0.8, linestyle=":")
        curves = {"positives": "noise on mpox alone", "both": "noise on both sides"}
        for index, (name, words) in enumerate(curves.items()):
            _band(axes, sweep["sigmas"], sweep[name], index, words)
        axes.grid()
        canvas.legend_above(figure, axes)
        return canvas.png(figure)


def robustness_figure(sheet: Mapping[str, Any], *, notice: str = "") -> bytes:
    """One panel an axis: AUROC with its band, missed mpox and false alarms against the strength."""
    names = axis_names(sheet)
    lines = -(-(len(names) + 1) // 2)  # one cell more, for the legend
    with matplotlib.rc_context(canvas.STYLE):
        figure = canvas.blank(1.45 * lines, notice)
        cells = figure.subplots(lines, 2, sharey=True, squeeze=False).ravel()
        for name, axes in zip(names, cells, strict=False):
            title, plain = AXES.get(name, (canvas.drawable(name, 22), 0.0))
            axis = sheet["axes"][name]
            strengths, entries = [plain, *axis["strengths"]], [sheet["plain"], *axis["entries"]]
            _band(axes, strengths, [entry["auroc"] for entry in entries], 0, "AUROC")
            for index, (share, words) in enumerate(
                {"missed": "mpox missed", "false_alarms": "false alarms"}.items(), start=1
            ):
                values = [entry[share]["mean"] for entry in entries]
                if None not in values:
                    axes.plot(strengths, values, **_style(index), label=words)
            axes.axhline(0.5, color="#999999", linewidth=0.8)
            axes.set_title(title, loc="left", pad=3)
            axes.set_ylim(0, 1)
            if strengths[-1] < strengths[0]:
                axes.invert_xaxis()
            axes.grid()
        for axes in cells[len(names) :]:
            axes.set_axis_off()
        cells[len(names)].legend(*cells[0].get_legend_handles_labels(), loc="center")
        return canvas.png(figure)


def axis_names(sheet: Mapping[str, Any]) -> list[str]:
    """The axes of the sheet in its order, unknown ones last, by name."""
    known = [name for name in AXES if name in sheet["axes"]]
    return [*known, *sorted(set(sheet["axes"]) - set(known))]


def _band(
    axes: Any, places: Sequence[float], areas: Sequence[Mapping[str, Any]], index: int, label: str
) -> None:
    axes.plot(places, [area["mean"] for area in areas], **_style(index), label=label)
    low, high = ([area[end] for area in areas] for end in ("low", "high"))
    axes.fill_between(places, low, high, color=canvas.COLORS[index], alpha=0.18, linewidth=0)


def _style(index: int) -> dict[str, Any]:
    return {
        "color": canvas.COLORS[index],
        "linestyle": canvas.LINES[index],
        "marker": canvas.MARKERS[index],
        "markersize": 3,
        "linewidth": 1.4,
    }
