"""The methods that score the test images: MIM, the baselines, and variants of MIM's own score.

A baseline tests a simpler explanation of MIM's AUROC; a variant uses the same networks in another way. No
method sees a test image before scoring it. `advice` warns if they would take long.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax

from mim_jax import detector
from mim_jax.data.augment import COPIES
from mim_jax.data.batches import in_pieces
from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Split
from mim_jax.detector import Detector
from mim_jax.evaluate.baselines.image_statistics import STATISTICS
from mim_jax.evaluate.baselines.inpainting import FILLS
from mim_jax.evaluate.folds import TrainedFold
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.test_set import TestSet
from mim_jax.measure.similarity import REDUCTIONS, Measure
from mim_jax.measure.ssim import Options
from mim_jax.train.config import Experiment
from mim_jax.train.metric_writer import Recorder
from mim_jax.train.mim import mim_settings

_ROBUSTNESS = 46  # scores per image and model on the robustness sheet
# Fills x pixels x width^2, to which a network's multiplications are proportional. A run with 36,104 fills at
# 96 pixels and width 16 has 8.5e10 and takes a minute on two cores; this limit is a quarter of an hour.
MUCH = 1e12


def score_methods(
    test_set: TestSet, folds: Sequence[TrainedFold], *, more_holes: int, recorder: Recorder
) -> dict[str, list[ScoredImages]]:
    """Score each fold's test images by every method that inpaints: name -> one `ScoredImages` per fold.

    "mim" is first, then the baselines, then the variants. The result is empty without folds, i.e. if nothing
    is inpainted. `more_holes` above 1 adds the variants "holes_mean" and "holes_min".
    """
    if not folds:
        return {}
    measure = folds[0].detector.measure
    scored = sum(map(len, test_set.parts))
    networks = list(folds[0].networks)
    # The default window of SSIM must fit into the hole.
    with_region = measure.region == "image" and folds[0].detector.mask_size >= Options().filter_size
    # Progress counts holes filled and compared, so that the remaining time can be predicted.
    rounds = 1 + len(networks) + (more_holes if more_holes > 1 else 0)
    recorder.start("scoring", total=rounds * scored + len(FILLS) * len(test_set.images))

    def by_network(models: Sequence[Detector], measures: Sequence[Measure]) -> list[list[ScoredImages]]:
        """For each measure, the scored images of each fold."""
        found = []
        for model, part in zip(models, test_set.parts, strict=True):
            score = functools.partial(model.measured, measures=measures)
            found.append(in_pieces(score, test_set.images[part], recorder.advance))
        return [
            test_set.scored({m: s[0] for m, s in scores.items()} for scores in by_fold)
            for by_fold in zip(*found, strict=True)
        ]

    measures = [measure, dataclasses.replace(measure, region="mask")][: 1 + with_region]
    whole, *region = by_network([fold.detector for fold in folds], measures)
    methods = {"mim": whole}
    for name, fill in FILLS.items():
        # A fill is the same in every fold: score the test set once.
        score = functools.partial(
            detector.measure_filled, fill, mask_size=folds[0].detector.mask_size, measure=measure
        )
        scores = in_pieces(score, test_set.images, recorder.advance)
        methods[name] = test_set.scored({m: s[part] for m, s in scores.items()} for part in test_set.parts)
    for name in networks:
        (methods[name],) = by_network([fold.networks[name] for fold in folds], [measure])
    if more_holes > 1:
        methods |= _several_holes(test_set, folds, more_holes, recorder)
    if region:
        (methods["mask_region"],) = region
    recorder.finish()
    return methods


def score_statistics(
    dataset: Dataset, test_set: TestSet, splits: Sequence[Split]
) -> dict[str, list[ScoredImages]]:
    """Score each fold's test images by the baselines without inpainting: name -> one entry per fold."""
    trains = [dataset.images[split.train] for split in splits]
    methods = {}
    for name, statistic in STATISTICS.items():
        scores = zip(statistic(test_set.images, trains), test_set.parts, strict=True)
        methods[name] = test_set.scored({"score": own[part]} for own, part in scores)
    return methods


def _several_holes(
    test_set: TestSet, folds: Sequence[TrainedFold], holes: int, recorder: Recorder
) -> dict[str, list[ScoredImages]]:
    """Score by several holes, each filled once for all reductions: "holes_mean" and "holes_min"."""
    every = []
    for part, fold in zip(test_set.parts, folds, strict=True):
        measure = dataclasses.replace(fold.detector.measure, holes=holes)
        model = dataclasses.replace(fold.detector, measure=measure)
        found = in_pieces(
            model.hole_similarities, test_set.images[part], lambda n: recorder.advance(holes * n)
        )
        every.append({m: s[:, 0] for m, s in found.items()})
    return {
        f"holes_{reduce}": test_set.scored(Measure(reduce=reduce).reduced(scores) for scores in every)
        for reduce in REDUCTIONS
    }


def count_fills(experiment: Experiment) -> int:
    """Count the holes that a run's networks fill during evaluation, without the clinical test."""
    settings, dataset = experiment.settings, experiment.dataset
    options, measure, folds = settings.evaluation, mim_settings(settings).measure, settings.data.folds
    tested = COPIES * len(dataset.positives) + folds * len(dataset.tested_negatives)
    networks = 3 if settings.training.autoencoder else 2  # trained, untrained and without adversary
    several = options.more_holes if options.more_holes > 1 else 0
    sheet = min(options.robustness_images * folds, len(dataset.positives))
    sheet += folds * min(options.robustness_images, len(dataset.tested_negatives))
    return tested * (measure.holes * networks + several) + _ROBUSTNESS * sheet


def advice(experiment: Experiment) -> str | None:
    """Return a sentence on how to shorten the evaluation; None if it is short or does not run on a CPU."""
    settings = experiment.settings
    if jax.default_backend() != "cpu" or not settings.mim or settings.detector == "features":
        return None
    fills, size = count_fills(experiment), settings.data.image_size
    if fills * size**2 * settings.mim.generator_options.get("width", 64) ** 2 < MUCH:
        return None
    options = settings.evaluation
    shorter = {
        "evaluation.more_holes=1": options.more_holes > 1,
        "evaluation.robustness_images=0": options.robustness_images > 0,
        "training.autoencoder=False": settings.training.autoencoder,
    }
    names = [f"--config.{option}" for option, possible in shorter.items() if possible]
    return (
        f"the evaluation will fill {fills:,} holes in images of {size} pixels, which takes long on a CPU; "
        f"shorten it with {', '.join([*names, 'a GPU'])}"
    )
