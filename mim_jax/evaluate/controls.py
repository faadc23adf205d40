"""Two checks for confounders: AUROC within the same image sources, and error rates by skin tone.

Images of other classes often come from other collections than the training class, so a detector may separate
cameras or compression instead of diseases; AUROC within the sources of the training class reveals this.
A detector may also make more errors on one skin tone than on another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from mim_jax.data.dataset import Dataset
from mim_jax.decide.decision import Decision
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.auroc import share_estimate
from mim_jax.evaluate.statistics.summary import leading_metric, parts

SAME, OTHER = "same sources", "other sources"
# Bands of the individual typology angle, with upper bounds in degrees: Chardon, Cretois and Hourseau, "Skin
# colour typology and suntanning pathways", International Journal of Cosmetic Science, 1991.
TONES = (("dark", -30), ("brown", 10), ("tan", 28), ("intermediate", 41), ("light", 55))
TONE_NAMES = (*(name for name, _ in TONES), "very light")


def skin_tone(image: np.ndarray) -> str:
    """Estimate the band of uint8 `[S, S, 3]`, "very light" to "dark"; "" if too few pixels are usable.

    The angle is arctan((L* - 50) / b*) of the median colour, which is an estimate: it need not be skin.
    """
    channels = np.ascontiguousarray(np.moveaxis(image, -1, 0))  # NumPy compares whole planes faster
    usable = (channels.max(axis=0) > 20) & (channels.min(axis=0) < 245)
    if usable.mean() < 0.05:
        return ""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lightness, yellow = (np.median(lab[..., axis][usable]) for axis in (0, 2))
    angle = np.degrees(np.arctan2(lightness - 50, yellow))
    return next((name for name, most in TONES if angle <= most), "very light")


def same_sources(
    methods: Mapping[str, Sequence[ScoredImages]],
    dataset: Dataset,
    *,
    primary: str,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """AUROC against other classes, separately for images from the training class's sources and from others.

    Returns:
      "sources": the sources of the training class; "auroc": {method: {`SAME` | `OTHER`: as "per_class" of
      `summarize`}}. None if sources are unknown, or other classes have no image from these sources.
    """
    if dataset.sources is None:
        return None
    known = dict(zip(dataset.names.tolist(), dataset.sources.tolist(), strict=True))
    own = {known[name] for name in dataset.names[dataset.positives].tolist()} - {""}

    def relabelled(fold: ScoredImages) -> ScoredImages:
        sides = np.array([SAME if known[name] in own else OTHER for name in fold.names.tolist()])
        return replace(fold, classes=sides)

    sided = {name: [relabelled(fold.originals()) for fold in folds] for name, folds in methods.items()}
    leading = {name: leading_metric(name, folds, primary) for name, folds in sided.items()}
    found = parts(sided, {SAME: [SAME], OTHER: [OTHER]}, leading, resamples=resamples, seed=seed)
    if not all(SAME in each for each in found.values()):
        return None
    return {"sources": sorted(own), "auroc": found}


def tones(scored: Sequence[ScoredImages], dataset: Dataset) -> dict[str, Any]:
    """Rates of missed images, false alarms and undecided images by estimated skin tone.

    `scored` holds the decided test images of each fold; only plain images are counted.

    Returns:
      tone -> {"missed", "alarms", "undecided"}, each {"images", "value", "low", "high"}: the share of the
      training class called unlike it, of other classes called like it, and of all images left undecided,
      with the Clopper-Pearson interval, which treats images as independent.
    """
    tone = dict(zip(dataset.names.tolist(), map(skin_tone, dataset.images), strict=True))
    rows = [
        (tone[name], positive, decision)
        for plain in map(ScoredImages.originals, scored)
        for name, positive, decision in zip(plain.names, plain.positive, plain.decisions, strict=True)
        if decision
    ]
    found = {}
    for band in TONE_NAMES:
        own = [decision for t, positive, decision in rows if t == band and positive]
        others = [decision for t, positive, decision in rows if t == band and not positive]
        if own or others:
            found[band] = {
                "missed": _share(own, Decision.NOT_MPOX_LIKE),
                "alarms": _share(others, Decision.MPOX_LIKE),
                "undecided": _share(own + others, Decision.CANNOT_TELL),
            }
    return found


def _share(decisions: Sequence[str], wanted: Decision) -> dict[str, Any]:
    if not decisions:
        return {"images": 0, "value": None, "low": None, "high": None}
    hits = sum(decision == wanted for decision in decisions)
    return {"images": len(decisions), **share_estimate(hits, len(decisions))._asdict()}
