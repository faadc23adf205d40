"""Two controls that keep an AUROC honest: images from the same sources, and skin tones.

Images of other classes often come from other collections than those of the training class, so that a detector
may tell cameras or compressions apart and not diseases: AUROC within the sources of the training class shows
that. A detector may also fail one skin tone more than another.
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
# Bands of the individual typology angle, up to so many degrees: Chardon, Cretois and Hourseau, "Skin colour
# typology and suntanning pathways", International Journal of Cosmetic Science, 1991.
TONES = (("dark", -30), ("brown", 10), ("tan", 28), ("intermediate", 41), ("light", 55))
TONE_NAMES = (*(name for name, _ in TONES), "very light")


def skin_tone(image: np.ndarray) -> str:
    """The estimated band of uint8 `[S, S, 3]`, "very light" to "dark"; "" without colour to judge by.

    The angle arctan((L* - 50) / b*) of the median colour, which need not be that of skin: an estimate.
    """
    usable = (image.max(axis=-1) > 20) & (image.min(axis=-1) < 245)
    if usable.mean() < 0.05:
        return ""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lightness, _, yellow = np.median(lab[usable], axis=0)
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
    """AUROC against images of other classes from the training class's own sources, and from all others.

    Returns:
      "sources", those of the training class; "auroc": {method: {`SAME` | `OTHER`: as "per_class" of
      `summarize`}}. None where the sources are not known, or the other classes have no image in them.
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
    """Missed images of the training class and false alarms by estimated skin tone.

    `scored` are the decided test images of each fold; plain ones alone are counted.

    Returns:
      tone -> {"missed", "alarms", "undecided"}: {"images", "value", "low", "high"}, the share of the training
      class called unlike it, of the others called like it, and of all left undecided, with Clopper-Pearson's
      interval, which counts images as independent.
    """
    tone = dict(zip(dataset.names.tolist(), map(skin_tone, dataset.images), strict=True))
    rows = [
        (tone[name], positive, decision)
        for fold in scored
        for plain in [fold.originals()]
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
