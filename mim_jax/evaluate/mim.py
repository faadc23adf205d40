"""Evaluation of a detector: held-out scores of the test images, decisions, robustness.

Nothing is trained, and no test image influences a choice.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mim_jax.decide.decision import RULES, SCORE_NAMES
from mim_jax.detector import CombinedDetector, Detector
from mim_jax.evaluate import controls, decisions, features, metadata
from mim_jax.evaluate.folds import load_folds
from mim_jax.evaluate.method_names import REFERENCE, VARIANTS, method_name
from mim_jax.evaluate.methods import score_methods, score_statistics
from mim_jax.evaluate.panels import Panels, UnlikeImages, choose_panels, choose_unlike
from mim_jax.evaluate.robustness import sheet
from mim_jax.evaluate.scores import ScoredImages, write_scores
from mim_jax.evaluate.statistics.summary import summarize
from mim_jax.evaluate.test_set import TestSet, grouped, make_test_set
from mim_jax.features import saved
from mim_jax.features.detector import BOTH, FEATURES
from mim_jax.measure import METRICS
from mim_jax.measure.similarity import Measure
from mim_jax.train import workdir
from mim_jax.train.checkpoints import parameter_hash
from mim_jax.train.config import Experiment
from mim_jax.train.metric_writer import Recorder, read_events
from mim_jax.train.mim import mim_settings
from mim_jax.train.settings import FeatureSettings

_SCORES = (*SCORE_NAMES, "score")


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Results of an evaluation, as the report shows them."""

    results: dict[str, Any]  # the content of results.json
    methods: dict[str, list[ScoredImages]]  # name -> the scored test images, one entry per fold
    history: list[dict[str, Any]]  # the epochs of MIM's training
    panels: Panels  # the images to show
    unlike: UnlikeImages | None  # images with maps by a frozen network; None without such a network


def evaluate(experiment: Experiment, path: Path, recorder: Recorder, *, began: float) -> Evaluated:
    """Score the test images of a run and compute every table.

    The results name the deciding method under "reference": MIM, a frozen network or both combined.

    Writes `fold_k/scores.csv`, `fold_k/clinical.csv`, `calibration.json` and `results.json` to the workdir
    `path`. `began` is the `time.perf_counter` at the start of the run. ValueError if a fold has not finished
    training.
    """
    started = time.perf_counter()
    settings, dataset = experiment.settings, experiment.dataset
    measured = mim_settings(settings).measure.metric
    folds = load_folds(experiment, path) if settings.detector != "features" else []
    options, seed = settings.evaluation, settings.seed
    test_set = make_test_set(dataset, experiment.splits, mode=options.augmentation, seed=seed)
    methods = score_methods(test_set, folds, more_holes=options.more_holes, recorder=recorder)
    methods |= score_statistics(dataset, test_set, experiment.splits)
    models: list[Any] = [fold.detector for fold in folds]
    reference, metric = REFERENCE, measured
    if own := settings.features:
        reference, models = _score_features(experiment, own, path, test_set, methods, models, recorder)
        metric = reference if reference != REFERENCE else metric

    scored = time.perf_counter()
    hashes = [parameter_hash(model.networks) for model in models]
    cutoffs, decision = _decide(experiment, path, methods[reference], models, metric, hashes)
    methods[reference] = [
        decisions.judge(own, each) for own, each in zip(methods[reference], cutoffs, strict=True)
    ]
    for fold in range(len(models)):
        table = {name: many[fold] for name, many in methods.items()}
        write_scores(path / f"fold_{fold}" / "scores.csv", fold, table, scores=_SCORES)
    comparable = {name: _comparable(many, metric, measured) for name, many in methods.items()}
    summary = summarize(
        comparable,
        metrics=METRICS if reference == REFERENCE else None,
        primary=metric,
        reference=reference,
        resamples=options.resamples,
        seed=seed,
        class_groups=metadata.class_groups(dataset),
    )
    history = [event for event in read_events(path / "metrics.jsonl") if event["event"] == "epoch"]
    before = time.perf_counter()
    stress = _stress(experiment, path, models, reference, decision["thresholds"], recorder)
    seconds = {"scoring": scored - started, "stress": time.perf_counter() - before}
    results = {
        **metadata.describe_run(method_name(reference), experiment),
        "reference": reference,
        "splits": metadata.describe_splits(dataset, experiment.splits, test_set),
        "paper": {name: list(values) for name, values in metadata.PAPER_AUROC.items()},
        "training": {
            "epochs": settings.training.epochs if folds else 0,
            "parameters": metadata.describe_parameters(settings) if folds else {},
            "parameter_hash": hashes,
        },
        **summary,
        "variants": [name for name in VARIANTS if name in methods],
        "held_out": metadata.held_out_error(dataset, folds),
        "decision": decision,
        **stress,
        "same_sources": controls.same_sources(
            comparable, dataset, primary=metric, resamples=options.resamples, seed=seed
        ),
        "tones": controls.tones(methods[reference], dataset),
        "scores_sha256": workdir.hash_scores(path),
        "wall_time": metadata.wall_time(history, len(models), started=started, began=began) | seconds,
    }
    workdir.write_json(path / "results.json", results, sealed=True)
    painters = [fold.detector for fold in folds]
    panels = choose_panels(test_set, painters, methods[reference], metric=metric)
    mim = [event for event in history if event["role"] == "mim"]
    unlike = None
    networks = [getattr(model, "features", model) for model in models]
    if reference != REFERENCE and "nearest" in networks[0].references[FEATURES].kinds:
        unlike = choose_unlike(test_set, networks, methods[reference], metric=metric)
    return Evaluated(results=results, methods=methods, history=mim, panels=panels, unlike=unlike)


def _score_features(
    experiment: Experiment,
    own: FeatureSettings,
    path: Path,
    test_set: TestSet,
    methods: dict[str, list[ScoredImages]],
    networks: Sequence[Detector],
    recorder: Recorder,
) -> tuple[str, list[Any]]:
    """Save the feature detector and add its scores to `methods`; return the deciding one, its detectors."""
    decides = experiment.settings.detector
    detector, scores = features.score_features(experiment, own, test_set, recorder)
    saved.save(path, detector, weights=own.weights)
    for name in (FEATURES, BOTH):
        methods[name] = test_set.scored({name: each[name]} for each in scores)
    combined: list[Any] = []
    if networks:
        combined, methods[features.COMBINED] = features.combine(
            detector, scores, experiment, networks, methods[REFERENCE]
        )
        if own.inpaintings:
            methods["feature_hbd"] = features.score_inpaintings(
                detector.backbone, test_set, networks, recorder
            )
    if decides == "combined":
        return features.COMBINED, combined
    if decides == "features":
        metric = BOTH if own.color else FEATURES
        return metric, [replace(detector.of_fold(k), metric=metric) for k in range(detector.folds)]
    return REFERENCE, list(networks)


def _comparable(folds: list[ScoredImages], primary: str, own: str) -> list[ScoredImages]:
    """The folds unchanged if they hold `primary` or a single score, otherwise with the score `own` alone."""
    if primary in folds[0].similarities or len(folds[0].similarities) == 1:
        return folds
    return [replace(fold, similarities={own: fold.similarities[own]}) for fold in folds]


def _decide(
    experiment: Experiment,
    path: Path,
    scored: Sequence[ScoredImages],
    models: Sequence[Any],
    metric: str,
    hashes: Sequence[str],
) -> tuple[list[decisions.Cutoffs], dict[str, Any]]:
    """Write `calibration.json`; return each fold's cutoffs, and the entry "decision" of results.json."""
    own, dataset = mim_settings(experiment.settings), experiment.dataset
    rule, measure = own.rule, own.measure
    about: dict[str, Any] = {
        "metric": metric,
        "positive": dataset.positive,
        "class_groups": metadata.class_groups(dataset),
    }
    # The paper's threshold applies to the paper's score only.
    names = [name for name in RULES if name != "paper" or (measure == Measure() and metric == measure.metric)]
    made = {name: decisions.calibrate(scored, rule=replace(rule, name=name), **about) for name in names}
    pooled, folds = made[rule.name].pooled, made[rule.name].folds
    named = {
        name: {"lower": each.pooled.lower, "origin": each.pooled.origin, "promise": each.pooled.promise}
        for name, each in made.items()
    }
    workdir.write_json(
        path / workdir.CALIBRATION,
        {
            "format": workdir.CALIBRATION_FORMAT,
            "detector": experiment.settings.detector,
            "parameter_hash": list(hashes),  # of the networks that the calibration is for
            "measure": asdict(measure),
            "units": [each.units_of_mim() for each in models if isinstance(each, CombinedDetector)],
            "pooled": asdict(pooled),
            "alone": [asdict(each) for each in made[rule.name].alone],
            "folds": [{"lower": each.lower, "upper": each.upper} for each in folds],
            "alternatives": named,
        },
        sealed=True,
    )
    tables = {
        name: decisions.count_decisions(
            decisions.judge(images, each.folds[fold]) for fold, images in enumerate(scored)
        )
        for name, each in made.items()
    }
    return folds, {
        "metric": metric,
        "name": rule.name,
        "rule": pooled.origin,
        "promise": pooled.promise,
        "band": pooled.band,
        "thresholds": [each.lower for each in folds],
        "upper": [each.upper for each in folds],
        "pooled": pooled.lower,
        "pooled_upper": pooled.upper,
        "table": tables[rule.name],
        "alternatives": {name: {**each, "table": tables[name]} for name, each in named.items()},
        "reliability": decisions.reliability(scored, **about),
    }


def _stress(
    experiment: Experiment,
    path: Path,
    models: Sequence[Any],
    reference: str,
    thresholds: Sequence[float | None],
    recorder: Recorder,
) -> Mapping[str, Any]:
    """Run the clinical test (writes `fold_k/clinical.csv`) and the robustness sheet; None if not wanted."""
    options, dataset, clinical = experiment.settings.evaluation, experiment.dataset, experiment.clinical
    size = models[0].image_size
    positives = [grouped(dataset, split.test, size=size) for split in experiment.splits]
    shared: dict[str, Any] = {
        "resamples": options.resamples,
        "seed": experiment.settings.seed,
        "progress": recorder.advance,
    }
    found: dict[str, Any] = {"clinical": None, "robustness": None}
    if clinical is not None:
        recorder.start("clinical test", total=2 * len(models) * len(clinical))
        others = grouped(clinical, np.arange(len(clinical)), size=size)
        sigma = options.clinical_sigma
        test, scored = sheet.clinical_test(models, positives, others, sigma=sigma, **shared)
        for fold, images in enumerate(scored):
            write_scores(path / f"fold_{fold}" / "clinical.csv", fold, {reference: images}, scores=_SCORES)
        found["clinical"] = {**test, **metadata.describe_clinical(clinical)}
    if limit := options.robustness_images:
        others = grouped(dataset, dataset.tested_negatives, size=size)
        count = sum(min(limit, len(own.images)) for own in positives)
        recorder.start("robustness", total=count + len(models) * min(limit, len(others.images)))
        found["robustness"] = sheet.robustness_sheet(
            models, positives, others, thresholds, limit=limit, **shared
        )
    recorder.finish()
    return found
