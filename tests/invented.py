"""An invented run for the tests of the report: small, all numbers distinct, nothing trained."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np

from mim_jax.evaluate.mim import Evaluated
from mim_jax.evaluate.panels import KINDS, Panels
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.measure import METRIC_NAMES
from mim_jax.report.figures import TRAINING_CURVES

METHODS = ("mim", "mean_fill", "harmonic_fill", "autoencoder", "brightness", "holes_min", "mask_region")
VARIANTS = ("mask_region", "holes_min")
OWN_SCORE = ("brightness",)
LEVELS = ("0.8", "0.9", "0.95")
HOSTILE = 'x$\\frac$"><script>alert(1)</script>\n \u202e中 &amp;| `_.jpg'


def panels_of(count: int, *, size: int = 16, seed: int = 0) -> Panels:
    """Panels of `count` noise images: every third of the training class, the kind changing after three."""
    generator = np.random.default_rng(seed)
    images = generator.random((count, size, size, 3), dtype=np.float32)
    first, mask = size // 4, size // 2
    inpainted = images.copy()
    inpainted[:, first : first + mask, first : first + mask] = generator.random((count, mask, mask, 3))
    index = np.arange(count)
    return Panels(
        images=np.round(images * 255).astype(np.uint8),
        inpainted=inpainted,
        offset=(first, first),
        mask_size=mask,
        names=np.array([f"image_{i}.jpg" for i in index]),
        classes=np.where(index % 3 == 0, "mpox", "acne"),
        scores=generator.random(count),
        folds=index % 2,
        positive=index % 3 == 0,
        kind=np.array(KINDS)[index // 3 % 3],
        maps=generator.random((count, size, size)),
    )


def evaluated(
    *,
    folds: int = 3,
    methods: tuple[str, ...] = METHODS,
    metric: str = "ssim_hbd",
    notice: str | None = None,
) -> Evaluated:
    """A small run that decides by `metric`; all numbers are distinct."""
    generator = np.random.default_rng(0)

    def area(**first: float) -> dict[str, Any]:
        low, high = np.sort(generator.random(2)).tolist()
        return {**first, "low": low, "high": high}

    def mean(**first: float) -> dict[str, Any]:
        low, high = np.sort(generator.random(2)).tolist() if folds > 1 else (None, None)
        return {**area(**first), "low_folds": low, "high_folds": high}

    def value() -> float:
        return float(generator.random())

    def summary() -> dict[str, Any]:
        return {"folds": [area(value=value()) for _ in range(folds)], **mean(mean=value(), std=value())}

    def metrics(method: str) -> tuple[str, ...]:
        return ("score",) if method in OWN_SCORE else tuple(METRIC_NAMES)

    def parts(names: tuple[str, ...]) -> dict[str, Any]:
        return {m: {name: {"n": 7, **mean(mean=value(), std=0.1)} for name in names} for m in methods}

    def counts() -> dict[str, Any]:
        return {
            "acne": {"n": 27, "mpox_like": 9, "cannot_tell": 14, "not_mpox_like": 4},
            "mpox": {"n": 12, "mpox_like": 7, "cannot_tell": 4, "not_mpox_like": 1},
        }

    def share() -> dict[str, Any]:
        low, middle, high = np.sort(generator.random(3)).tolist()
        return {"cases": 20, "value": middle, "low": low, "high": high}

    def operating() -> dict[str, Any]:
        columns = ("sensitivity_at_specificity", "specificity_at_sensitivity")
        levels = {name: {level: area(mean=value()) for level in LEVELS} for name in columns}
        return {"average_precision": area(mean=value()), **levels}

    results = {
        "title": "MIM on a folder",
        "notice": notice,
        "variants": [method for method in VARIANTS if method in methods],
        "data": {
            "source": "folder",
            "digest": "0123abcd",
            "positive": "mpox",
            "grouped": True,
            "classes": {"acne": 9, "mpox": 12, "nv": 8},
            "groups": {"acne": 6, "mpox": 10, "nv": 5},
            "class_groups": {"training": ["mpox"], "dermoscopy": ["nv"]},
            "unusable": [["nv/bad.jpg", "damaged"]],
            "duplicates": [["mpox/1.jpg", "mpox/2.jpg"]],
            "left_out": ["acne/3.jpg"],
            "group_problems": [["manifest.csv line 3", "no such file"]],
            "remarks": ["The source nv holds 8 images; the paper has 100."],
        },
        "splits": [
            {
                "fold": fold,
                "train": 8,
                "held_out": 0,
                "test": 4,
                "augmented": 20,
                "negatives": 60,
                "train_groups": 5,
                "test_groups": 3,
            }
            for fold in range(folds)
        ],
        "auroc": {
            kind: {m: {name: summary() for name in metrics(m)} for m in methods}
            for kind in ("augmented", "plain")
        },
        "per_class": parts(("acne", "nv")),
        "per_group": parts(("dermoscopy",)),
        "differences": {
            m: {
                name: mean(mean=float(generator.normal()))
                for name in (METRIC_NAMES if m not in OWN_SCORE else (metric,))
            }
            for m in methods[1:]
        },
        "operating": {m: operating() for m in methods},
        "decision": {
            "metric": metric,
            "rule": "At least the threshold.",
            "thresholds": [0.5, None, 0.625][:folds],
            "pooled": 0.5625,
            "name": "calibrated",
            "promise": "One in ten is missed.",
            "band": "One in ten is a false alarm.",
            "upper": [0.75] * folds,
            "pooled_upper": 0.78125,
            "table": counts(),
            "alternatives": {
                "calibrated": {"lower": 0.5625, "origin": "mpox", "promise": "", "table": counts()},
                "paper": {"lower": 0.8526, "origin": "other data", "promise": "", "table": counts()},
            },
            "reliability": [
                {
                    "rate": rate,
                    "missed": share(),
                    "false_alarms": {"dermoscopy": share(), "other classes": share()},
                    "training": {"images": 12, "decided": 6, "wrong": 2},
                    "others": {"images": 27, "decided": 9, "wrong": 3},
                }
                for rate in (0.1, 0.2)
            ],
        },
        "paper": {"ssim_hbd": [0.8237, 0.0101], "ssim": [0.7582, 0.0455]},
        "training": {
            "epochs": 2,
            "parameters": {"generator": 40401187, "discriminator": 1555585},
            "parameter_hash": ["aa"] * folds,
        },
        "environment": {"versions": {"jax": "0.10.2"}, "device": "cpu", "platform": "cpu", "cpu_count": 2},
        "seed": 3,
        "wall_time": {"train": [61.0] * folds, "evaluate": 2.5, "total": 4000.0},
        "config": {"data": {"root": "", "image_size": 16}},
        "clinical": a_clinical_test(generator, folds),
        "robustness": a_sheet(generator, folds),
    }
    index = np.arange(20)
    images = ScoredImages(
        names=np.array([f"{i}.jpg" for i in index]),
        classes=np.where(index < 6, "mpox", np.array(["acne", "nv"])[index % 2]),
        groups=index.astype(str),
        copies=((index >= 3) & (index < 6)).astype(int),
        positive=index < 6,
        augmented=np.ones(20, bool),
        plain=(index < 3) | (index >= 6),
        similarities={},
    )
    scored = {
        method: [
            replace(images, similarities={"score" if method in OWN_SCORE else metric: generator.random(20)})
            for _ in range(folds)
        ]
        for method in methods
    }
    columns = {column for _, named in TRAINING_CURVES.values() for column in named}
    history: list[dict[str, Any]] = [{"event": "start", "fold": 0}]
    for fold in range(folds):
        for epoch in (1, 2):
            numbers = {column: value() for column in sorted(columns)}
            history.append({"event": "epoch", "fold": fold, "epoch": epoch, **numbers})
    return Evaluated(results=results, methods=scored, history=history, panels=panels_of(18), unlike=None)


def a_clinical_test(generator: np.random.Generator, folds: int) -> dict[str, Any]:
    """The results of `mim_jax.evaluate.robustness.sheet.clinical_test`, with what the run adds to them."""

    def area() -> dict[str, Any]:
        low, mean, high = np.sort(generator.random(3)).tolist()
        return {"mean": mean, "low": low, "high": high, "folds": generator.random(folds).tolist()}

    return {
        "sigma": 0.05,
        "seed": 0,
        "images": {"positives": 30, "negatives": 30, "of_positives": [4] * folds},
        "metric": "ssim_hbd",
        "auroc": {metric: area() for metric in METRIC_NAMES},
        "noise_sweep": {
            "sigmas": [0.0, 0.05, 0.1],
            "positives": [area() for _ in range(3)],
            "both": [area() for _ in range(3)],
        },
        "source": "clinic",
        "classes": {"normal": 10, "hospital": 20},
        "digest": "feed",
        "paper": 0.881,
    }


def a_sheet(generator: np.random.Generator, folds: int) -> dict[str, Any]:
    """The results of `mim_jax.evaluate.robustness.sheet.robustness_sheet`, with two axes."""

    def entry() -> dict[str, Any]:
        low, mean, high = np.sort(generator.random(3)).tolist()
        shares = generator.random((2, folds))
        return {
            "auroc": {"mean": mean, "low": low, "high": high, "folds": [mean] * folds},
            "missed": {"mean": float(shares[0].mean()), "folds": shares[0].tolist()},
            "false_alarms": {"mean": float(shares[1].mean()), "folds": shares[1].tolist()},
        }

    axes = {"mask_size": ("share of the hole's side", [0.9, 0.5]), "noise": ("deviation", [0.02, 0.3])}
    return {
        "metric": "ssim_hbd",
        "limit": None,
        "seed": 0,
        "images": {
            "positives": [4] * folds,
            "negatives": 17,
            "of_positives": [4] * folds,
            "of_negatives": 17,
        },
        "thresholds": [0.5] * folds,
        "plain": entry(),
        "axes": {
            name: {"unit": unit, "strengths": strengths, "entries": [entry() for _ in strengths]}
            for name, (unit, strengths) in axes.items()
        },
    }


class Page(HTMLParser):
    """A parsed HTML page: elements, text, titles and tables; fails if an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.titles: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""  # white space collapsed as in a browser
        self._open: list[str] = []
        self.feed(text)
        assert not self._open
        self.text = " ".join(self.text.split())
        self.titles = [" ".join(title.split()) for title in self.titles]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "figcaption":
            self.titles.append("")
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "figcaption" in self._open:
            self.titles[-1] += data
        if self._open and "tr" in self._open:
            self.tables[-1][-1][-1] += data + " " * (self._open[-1] != "small")

    def table(self, title: str) -> dict[str, list[str]]:
        """Rows of the only table whose title, without its number, starts with `title`: name -> cells."""
        titles = [re.sub(r"^(Table) \d+( \(Table \d+ of the paper\))?", r"\1", text) for text in self.titles]
        titles = [text for text in titles if text.startswith("Table")]
        (place,) = [index for index, text in enumerate(titles) if text.startswith(title)]
        return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in self.tables[place]}
