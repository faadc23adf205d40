"""What a trained workdir is worth: every test image scored by the fold that never saw it; tables and report.

Trains nothing, and never lets a test image choose anything.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mim_jax import decisions, facts, robustness, workdir
from mim_jax.assessment import RULES
from mim_jax.bank import grouped, make_bank, tested
from mim_jax.data.datasets import Dataset
from mim_jax.detector import Measure
from mim_jax.evaluation import summarize
from mim_jax.methods import score_methods
from mim_jax.panels import choose_panels
from mim_jax.protocol import Config, measure_options
from mim_jax.recorder import Recorder, read_events
from mim_jax.reliability import reliability
from mim_jax.report import write_report
from mim_jax.scored_images import ScoredImages
from mim_jax.similarity import METRICS
from mim_jax.trained import TrainedFold, load_folds


def evaluate(
    config: Config,
    path: Path,
    dataset: Dataset,
    clinical: Dataset | None,
    recorder: Recorder,
    *,
    began: float,
) -> Path:
    """Scores, tables, figures, report.

    Writes `fold_k/scores.csv`, `fold_k/clinical.csv`, `calibration.json`, `results.json`, `figures/`,
    `model_card.md` and `report.html`.

    Args:
      config: the run's.
      path: its workdir.
      dataset: its images.
      clinical: those of the clinical test; None = no such test.
      recorder: shows the progress.
      began: when the run began, by `time.perf_counter`.

    Returns:
      The report's path.

    Raises:
      ValueError: a fold is not trained to its end.
    """
    started = time.perf_counter()
    measure = Measure(**measure_options(config))
    folds = load_folds(config, path, dataset, measure)
    settings, seed = config["evaluation"], config["seed"]
    bank = make_bank(dataset, mode=settings["augmentation"], seed=seed)
    parts = [tested(bank, dataset, fold.split) for fold in folds]
    methods, variants = score_methods(
        dataset, bank, parts, folds, more_holes=settings["more_holes"], recorder=recorder
    )
    scoring = time.perf_counter() - started

    about = facts.describe(config, dataset, folds, bank, parts)
    hashes = about["training"]["parameter_hash"]
    cutoffs, decision = _decide(config, path, dataset, methods["mim"], measure, hashes)
    table = [
        row
        for method, many in methods.items()
        for fold, scored in enumerate(many)
        for row in decisions.rows(fold, method, scored, cutoffs[fold] if method == "mim" else None)
    ]
    for fold in range(len(folds)):
        decisions.write_csv(
            path / f"fold_{fold}" / "scores.csv", [row for row in table if row["fold"] == fold]
        )
    summary = summarize(
        methods,
        metrics=METRICS,
        primary=measure.metric,
        resamples=settings["resamples"],
        seed=seed,
        class_groups=facts.class_groups(dataset),
    )
    history = [event for event in read_events(path / "metrics.jsonl") if event["event"] == "epoch"]
    before = time.perf_counter()
    stress = _stress(config, path, dataset, clinical, folds, decision["thresholds"], recorder)
    stressed = time.perf_counter() - before
    results = {
        **about,
        **summary,
        "variants": variants,
        "held_out": facts.held_out_error(dataset, folds),
        "decision": decision,
        **stress,
        "scores_sha256": workdir.hash_scores(path),
        "wall_time": {
            "train": facts.training_seconds(history, len(folds)),
            "scoring": scoring,
            "stress": stressed,
            "evaluate": time.perf_counter() - started,
            "total": time.perf_counter() - began,
        },
    }
    workdir.write_json(path / "results.json", results, sealed=True)
    panels = choose_panels(
        bank, [fold.detector for fold in folds], methods["mim"], parts, metric=measure.metric
    )
    mim = [event for event in history if event["role"] == "mim"]
    return write_report(path, results=results, scores=table, history=mim, panels=panels)


def _decide(
    config: Config,
    path: Path,
    dataset: Dataset,
    scored: Sequence[ScoredImages],
    measure: Measure,
    hashes: Sequence[str],
) -> tuple[list[decisions.Cutoffs], dict[str, Any]]:
    """Writes `calibration.json`. Returns what judges each fold's test images, and what results.json says."""
    settings = config["decision"]
    chosen, rates = settings["rule"], (settings["miss_rate"], settings["confidence"])
    about: dict[str, Any] = {
        "metric": measure.metric,
        "positive": dataset.positive,
        "class_groups": facts.class_groups(dataset),
    }
    # The paper's number is one on its own score, and means nothing on another.
    names = [name for name in RULES if name != "paper" or measure == Measure()]
    made = {
        name: decisions.calibrate(
            scored, rule=decisions.Rule(name, *rates, settings["false_alarm_rate"]), **about
        )
        for name in names
    }
    pooled, folds = made[chosen].pooled, made[chosen].folds
    named = {
        name: {"lower": each.pooled.lower, "origin": each.pooled.origin, "promise": each.pooled.promise}
        for name, each in made.items()
    }
    workdir.write_json(
        path / workdir.CALIBRATION,
        {
            "format": workdir.CALIBRATION_FORMAT,
            "parameter_hash": list(hashes),  # of the networks that it belongs to
            "measure": measure_options(config),
            "pooled": asdict(pooled),
            "alone": [asdict(each) for each in made[chosen].alone],
            "folds": [{"lower": each.lower, "upper": each.upper} for each in folds],
            "alternatives": named,
        },
        sealed=True,
    )
    tables = {
        name: decisions.count_decisions(
            row
            for fold, images in enumerate(scored)
            for row in decisions.rows(fold, "mim", images, each.folds[fold])
        )
        for name, each in made.items()
    }
    return folds, {
        "metric": measure.metric,
        "name": chosen,
        "rule": pooled.origin,
        "promise": pooled.promise,
        "band": pooled.band,
        "thresholds": [each.lower for each in folds],
        "upper": [each.upper for each in folds],
        "pooled": pooled.lower,
        "pooled_upper": pooled.upper,
        "table": tables[chosen],
        "alternatives": {name: {**each, "table": tables[name]} for name, each in named.items()},
        "reliability": reliability(scored, **about),
    }


def _stress(
    config: Config,
    path: Path,
    dataset: Dataset,
    clinical: Dataset | None,
    folds: Sequence[TrainedFold],
    thresholds: Sequence[float | None],
    recorder: Recorder,
) -> Mapping[str, Any]:
    """The clinical test, with its `fold_k/clinical.csv`, and the robustness sheet; None where not wanted."""
    settings = config["evaluation"]
    models = [fold.detector for fold in folds]
    positives = [grouped(dataset, dataset.positives[fold.split.test]) for fold in folds]
    shared = {"resamples": settings["resamples"], "seed": config["seed"], "progress": recorder.advance}
    found: dict[str, Any] = {"clinical": None, "robustness": None}
    if clinical is not None:
        recorder.start("clinical test", total=2 * len(folds) * len(clinical))
        others = grouped(clinical, np.arange(len(clinical)))
        sigma = settings["clinical_sigma"]
        test, scored = robustness.clinical_test(models, positives, others, sigma=sigma, **shared)
        for fold, images in enumerate(scored):
            decisions.write_csv(path / f"fold_{fold}" / "clinical.csv", decisions.rows(fold, "mim", images))
        found["clinical"] = {**test, **facts.describe_clinical(clinical)}
    if limit := settings["robustness_images"]:
        others = grouped(dataset, dataset.tested_negatives)
        count = sum(min(limit, len(own.images)) for own in positives)
        recorder.start("robustness", total=count + len(folds) * min(limit, len(others.images)))
        found["robustness"] = robustness.robustness_sheet(
            models, positives, others, thresholds, limit=limit, **shared
        )
    recorder.finish()
    return found
