"""Everything that scores the test images: MIM, the panel of controls, and variants of MIM's own score.

A control shows what else explains MIM's AUROC; a variant is another way to use the same networks. None of
them sees a test image before it scores it.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from mim_jax import detector
from mim_jax.bank import Bank, scored_images
from mim_jax.batches import in_pieces
from mim_jax.controls import CONTROLS
from mim_jax.data.datasets import Dataset
from mim_jax.detector import Detector, Measure
from mim_jax.recorder import Recorder
from mim_jax.scored_images import ScoredImages
from mim_jax.similarity import Options
from mim_jax.simple_scores import SIMPLE_SCORES
from mim_jax.trained import TrainedFold
from mim_jax.variants import refined_scores

Scores = Mapping[str, np.ndarray]


def score_methods(
    dataset: Dataset,
    bank: Bank,
    parts: Sequence[np.ndarray],
    folds: Sequence[TrainedFold],
    *,
    more_holes: int,
    recorder: Recorder,
) -> tuple[dict[str, list[ScoredImages]], list[str]]:
    """Scores the test images of every fold by every method.

    Args:
      dataset: where the images come from.
      bank: the test images.
      parts: for each fold the positions in the bank that it is tested on.
      folds: what is scored with.
      more_holes: holes of the variants "holes_mean" and "holes_min"; 1 = no such variants.
      recorder: shows the progress.

    Returns:
      name -> one `ScoredImages` a fold, "mim" first, then the controls, then the variants; and the names of
      the variants.
    """
    measure = folds[0].detector.measure
    sizes = [len(part) for part in parts]
    networks = list(folds[0].networks)
    # The default window of SSIM has to fit into the hole.
    with_region = measure.region == "image" and folds[0].detector.mask_size >= Options().filter_size
    # The unit is one hole of one image filled and compared, so that what is left can be foretold.
    rounds = 1 + len(networks) + (more_holes if more_holes > 1 else 0) + with_region
    recorder.start("scoring", total=rounds * sum(sizes) + len(CONTROLS) * len(bank.images))

    def dealt(by_fold: Sequence[Scores]) -> list[ScoredImages]:
        return [scored_images(dataset, bank, p, s) for p, s in zip(parts, by_fold, strict=True)]

    def by_network(models: Sequence[Detector]) -> list[ScoredImages]:
        found = []
        for model, part in zip(models, parts, strict=True):
            scores = in_pieces(model.similarities, bank.images[part], recorder.advance)
            found.append({m: s[0] for m, s in scores.items()})
        return dealt(found)

    methods = {"mim": by_network([fold.detector for fold in folds])}
    for name, fill in CONTROLS.items():
        # A fill is the same in every fold: score the bank once and deal it out.
        score = functools.partial(
            detector.measure_filled, fill, mask_size=folds[0].detector.mask_size, measure=measure
        )
        scores = in_pieces(score, bank.images, recorder.advance)
        methods[name] = dealt([{m: values[part] for m, values in scores.items()} for part in parts])
    for name in networks:
        methods[name] = by_network([fold.networks[name] for fold in folds])
    for name, simple in SIMPLE_SCORES.items():
        train = [dataset.images[fold.train] for fold in folds]
        methods[name] = dealt(
            [{"score": simple(bank.images[part], own)} for part, own in zip(parts, train, strict=True)]
        )
    variants = []
    if more_holes > 1:
        several = _several_holes(bank, parts, folds, more_holes, recorder)
        for reduce, by_fold in several.items():
            variants.append(f"holes_{reduce}")
            methods[f"holes_{reduce}"] = dealt(by_fold)
    if with_region:
        masked = dataclasses.replace(measure, region="mask")
        variants.append("mask_region")
        methods["mask_region"] = by_network(
            [dataclasses.replace(fold.detector, measure=masked) for fold in folds]
        )
    for name, refined in refined_scores(dataset, bank, parts, folds, methods).items():
        variants.append(name)
        methods[name] = dealt([{"score": scores} for scores in refined])
    recorder.finish()
    return methods, variants


def _several_holes(
    bank: Bank,
    parts: Sequence[np.ndarray],
    folds: Sequence[TrainedFold],
    holes: int,
    recorder: Recorder,
) -> dict[str, list[Scores]]:
    """Reduction -> the scores of each fold: every hole is painted once for both."""
    found: dict[str, list[Scores]] = {reduce: [] for reduce in detector.REDUCTIONS}
    for fold, part in zip(folds, parts, strict=True):
        measure = dataclasses.replace(fold.detector.measure, holes=holes)
        model = dataclasses.replace(fold.detector, measure=measure)
        every = in_pieces(model.hole_similarities, bank.images[part], lambda n: recorder.advance(holes * n))
        scores = {m: s[:, 0] for m, s in every.items()}
        for reduce in found:
            found[reduce].append(Measure(reduce=reduce).reduced(scores))
    return found
