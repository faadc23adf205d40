"""The evaluation of MIM: test images scored by the fold that never saw them, decisions, robustness.

It trains nothing, and never lets a test image choose anything.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mim_jax.decide.decision import RULES
from mim_jax.evaluate import decisions, metadata
from mim_jax.evaluate.folds import TrainedFold, load_folds
from mim_jax.evaluate.methods import score_methods
from mim_jax.evaluate.panels import Panels, choose_panels
from mim_jax.evaluate.robustness import sheet
from mim_jax.evaluate.scores import ScoredImages, write_scores
from mim_jax.evaluate.statistics.summary import summarize
from mim_jax.evaluate.test_set import grouped, make_test_set, tested
from mim_jax.measure import METRICS
from mim_jax.measure.similarity import Measure
from mim_jax.train import workdir
from mim_jax.train.checkpoints import parameter_hash
from mim_jax.train.config import Experiment
from mim_jax.train.metric_writer import Recorder, read_events
from mim_jax.train.mim import mim_settings

_SCORES = (*METRICS, "score")


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Findings of an evaluation, as the report shows them."""

    results: dict[str, Any]  # what results.json holds
    methods: dict[str, list[ScoredImages]]  # name -> the scored test images, one entry a fold
    history: list[dict[str, Any]]  # the epochs of MIM's training
    panels: Panels  # the images to show


def evaluate(experiment: Experiment, path: Path, recorder: Recorder, *, began: float) -> Evaluated:
    """Score the test images of a run, whose workdir is `path`, and compute every table.

    Writes `fold_k/scores.csv`, `fold_k/clinical.csv`, `calibration.json` and `results.json`. `began` is when
    the run
    began, by `time.perf_counter`.

    Raises:
      ValueError: a fold is not trained to its end.
    """
    started = time.perf_counter()
    settings, dataset = experiment.settings, experiment.dataset
    metric = mim_settings(settings).measure.metric
    folds = load_folds(experiment, path)
    options, seed = settings.evaluation, settings.seed
    test_set = make_test_set(dataset, mode=options.augmentation, seed=seed)
    parts = [tested(test_set, dataset, fold.split) for fold in folds]
    methods, variants = score_methods(
        dataset, test_set, parts, folds, more_holes=options.more_holes, recorder=recorder
    )

    scored = time.perf_counter()
    hashes = [parameter_hash(fold.detector.variables[0]) for fold in folds]
    cutoffs, decision = _decide(experiment, path, methods["mim"], hashes)
    methods["mim"] = [decisions.judge(own, each) for own, each in zip(methods["mim"], cutoffs, strict=True)]
    for fold in range(len(folds)):
        table = {name: many[fold] for name, many in methods.items()}
        write_scores(path / f"fold_{fold}" / "scores.csv", fold, table, scores=_SCORES)
    summary = summarize(
        methods,
        metrics=METRICS,
        primary=metric,
        resamples=options.resamples,
        seed=seed,
        class_groups=metadata.class_groups(dataset),
    )
    history = [event for event in read_events(path / "metrics.jsonl") if event["event"] == "epoch"]
    state = folds[0].state
    before = time.perf_counter()
    stress = _stress(experiment, path, folds, decision["thresholds"], recorder)
    seconds = {"scoring": scored - started, "stress": time.perf_counter() - before}
    results = {
        **metadata.describe_run("MIM", experiment),
        "splits": metadata.describe_splits(dataset, experiment.splits, test_set, parts),
        "paper": {name: list(values) for name, values in metadata.PAPER_AUROC.items()},
        "training": {
            "epochs": settings.training.epochs,
            "parameters": {
                "generator": metadata.count_parameters(state.generator_params),
                "discriminator": metadata.count_parameters(state.discriminator_params),
            },
            "parameter_hash": hashes,
        },
        **summary,
        "variants": variants,
        "held_out": metadata.held_out_error(dataset, folds),
        "decision": decision,
        **stress,
        "scores_sha256": workdir.hash_scores(path),
        "wall_time": metadata.wall_time(history, len(folds), started=started, began=began) | seconds,
    }
    workdir.write_json(path / "results.json", results, sealed=True)
    panels = choose_panels(test_set, [fold.detector for fold in folds], methods["mim"], parts, metric=metric)
    mim = [event for event in history if event["role"] == "mim"]
    return Evaluated(results=results, methods=methods, history=mim, panels=panels)


def _decide(
    experiment: Experiment, path: Path, scored: Sequence[ScoredImages], hashes: Sequence[str]
) -> tuple[list[decisions.Cutoffs], dict[str, Any]]:
    """Write `calibration.json`; return the cutoffs of each fold, and the entry in results.json."""
    own, dataset = mim_settings(experiment.settings), experiment.dataset
    rule, measure = own.rule, own.measure
    about: dict[str, Any] = {
        "metric": measure.metric,
        "positive": dataset.positive,
        "class_groups": metadata.class_groups(dataset),
    }
    # The paper's number is one on its own score, and means nothing on another.
    names = [name for name in RULES if name != "paper" or measure == Measure()]
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
            "parameter_hash": list(hashes),  # of the networks that it belongs to
            "measure": asdict(measure),
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
        "metric": measure.metric,
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
    folds: Sequence[TrainedFold],
    thresholds: Sequence[float | None],
    recorder: Recorder,
) -> Mapping[str, Any]:
    """Run the clinical test (`fold_k/clinical.csv`) and the robustness sheet; None where not wanted."""
    options, dataset, clinical = experiment.settings.evaluation, experiment.dataset, experiment.clinical
    models = [fold.detector for fold in folds]
    positives = [grouped(dataset, fold.split.test) for fold in folds]
    shared: dict[str, Any] = {
        "resamples": options.resamples,
        "seed": experiment.settings.seed,
        "progress": recorder.advance,
    }
    found: dict[str, Any] = {"clinical": None, "robustness": None}
    if clinical is not None:
        recorder.start("clinical test", total=2 * len(folds) * len(clinical))
        others = grouped(clinical, np.arange(len(clinical)))
        sigma = options.clinical_sigma
        test, scored = sheet.clinical_test(models, positives, others, sigma=sigma, **shared)
        for fold, images in enumerate(scored):
            write_scores(path / f"fold_{fold}" / "clinical.csv", fold, {"mim": images}, scores=_SCORES)
        found["clinical"] = {**test, **metadata.describe_clinical(clinical)}
    if limit := options.robustness_images:
        others = grouped(dataset, dataset.tested_negatives)
        count = sum(min(limit, len(own.images)) for own in positives)
        recorder.start("robustness", total=count + len(folds) * min(limit, len(others.images)))
        found["robustness"] = sheet.robustness_sheet(
            models, positives, others, thresholds, limit=limit, **shared
        )
    recorder.finish()
    return found
