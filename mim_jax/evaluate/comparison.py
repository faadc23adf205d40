"""Comparison of finished runs on the same images: Table 4, the clinical test, fairer tests.

A run is a one-class detector (MIM, frozen features, both) or a classifier. The paper's classifiers are
trained on four classes, mpox and three that look like it, so they cannot be tested on all of MIM's images.
Four views define which images count:

  "paper": the augmented positives against the negatives that no classifier here was trained on (Table 3).
  "all": against all negatives of MIM's test. The classifiers were trained on many of them, which helps them.
  "open": images of the training classes, mpox included, against images of all other classes: does a
    classifier recognise an unknown class? Detectors are left out, as they know one class only.
  "clinical": noisy mpox against clinical images (section 3.4).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mim_jax.classifiers import ood_scores
from mim_jax.classifiers.ood_scores import SCORE_NAMES
from mim_jax.evaluate.method_names import method_name
from mim_jax.evaluate.saved_run import SavedRun, describe_training, network_name
from mim_jax.evaluate.scores import ScoredImages
from mim_jax.evaluate.statistics.summary import summarize

SCORE = "score"  # name of the single score that each method has in a view
_FIELDS = {
    "names": "name",
    "classes": "class",
    "groups": "group",
    "copies": "copy",
    "positive": "flag for mpox",
    "augmented": "flag for the augmented set",
    "plain": "flag for the plain set",
}

Methods = dict[str, list[ScoredImages]]


def compare(runs: Sequence[SavedRun], *, resamples: int, seed: int) -> dict[str, Any]:
    """Compare the runs in every view, with paired intervals, as plain values ready for JSON.

    The runs are detectors and classifiers, all on the same images in the same folds; the size of the images
    may differ. A single classifier is allowed.

    Returns:
      "runs": {name: {"path", "method", "primary", "title", "training": item -> text}}, detectors first;
      "methods": {method: {"run": a key of "runs" | None for a baseline of the first run, "score", "title"}};
      "reference": the method that all others are compared with: the first run by its primary score;
      "shown": the reference, then the other detectors and the probabilities of the (other) classifiers;
      "known": the training classes of the classifiers other than mpox; [] without classifiers;
      "images": for each fold {"fold", "augmented", "plain", "known", "unknown", "seen"}: number of positives,
        of negatives of known and of unknown classes that count in "paper", and of negatives that do not;
      "best_score": the method with the highest mean AUROC in "paper" among the classifiers' scores other
        than their probability, chosen post hoc; None without classifiers;
      "extremes": {"best" | "worst": {shown method: index of its fold with the highest or lowest AUROC in
        "paper"}}, also chosen post hoc;
      "views": {"paper" | "all" | "open" | "clinical": the result of `summarize` with the single metric
        "score"; None if the runs lack the images or classifiers for the view};
      "resamples", "seed".

    Raises:
      ValueError: a single detector, a workdir given twice, or runs on different images, folds or known
        classes; the message names the two workdirs and the first difference.
    """
    runs = ordered(runs)
    _check(runs)
    named = dict(zip(run_names(runs), runs, strict=True))
    classifiers = {name: run for name, run in named.items() if not run.is_mim}
    titles = {name: network_name(run) + name.removeprefix(run.method) for name, run in named.items()}
    methods = {
        _method(run, name, score): {
            "run": name,
            "score": score,
            "title": titles[name] + ("" if score == run.primary else f", {SCORE_NAMES[score]}"),
        }
        for name, run in named.items()
        for score in _scores(run)
    } | {name: {"run": None, "score": name, "title": method_name(name)} for name in runs[0].baselines}
    first_name, first = next(iter(named.items()))
    reference = _method(first, first_name, first.primary)
    known = sorted({name for run in classifiers.values() for name in run.results["known"]})

    def view(found: Methods, leader: str = reference) -> dict[str, Any]:
        return summarize(
            found,
            primary=SCORE,
            reference=leader,
            resamples=resamples,
            seed=seed,
            class_groups=first.results["data"]["class_groups"],
        )

    paper = view(tested(runs))
    means = {
        name: paper["auroc"]["augmented"][name][SCORE]["mean"]
        for name, method in methods.items()
        if method["run"] in classifiers and method["score"] != "probability"
    }
    shown = [_method(run, name, run.primary) for name, run in named.items()]
    values = {
        name: [fold["value"] for fold in paper["auroc"]["augmented"][name][SCORE]["folds"]] for name in shown
    }
    open_set, clinical = _open(classifiers, known), _clinical(named)
    return {
        "runs": {
            name: {
                "path": run.path.as_posix(),
                "method": run.method,
                "primary": run.primary,
                "title": titles[name],
                "one_class": run.is_mim,
                "training": describe_training(run),
            }
            for name, run in named.items()
        },
        "methods": methods,
        "reference": reference,
        "shown": shown,
        "known": known,
        "images": _count(runs, known),
        "best_score": max(means, key=lambda name: means[name], default=None),
        "extremes": {
            end: {name: own.index(pick(own)) for name, own in values.items()}
            for end, pick in (("best", max), ("worst", min))
        },
        "views": {
            "paper": paper,
            "all": view(_methods(named)),
            "open": view(open_set, next(iter(open_set))) if open_set else None,
            "clinical": view(clinical) if clinical else None,
        },
        "resamples": resamples,
        "seed": seed,
    }


def ordered(runs: Sequence[SavedRun]) -> list[SavedRun]:
    """Put detectors before classifiers, otherwise as given."""
    return sorted(runs, key=lambda run: not run.is_mim)


def tested(runs: Sequence[SavedRun]) -> Methods:
    """Images of the view "paper" scored by every method, baselines included: name -> one entry per fold."""
    runs = ordered(runs)
    return _methods(dict(zip(run_names(runs), runs, strict=True)), [~seen for seen in _seen(runs)])


def run_names(runs: Sequence[SavedRun]) -> list[str]:
    """Method of each run; runs of the same method add the workdir's name, or its path if names clash."""
    methods = [run.method for run in runs]
    unique = len({(run.method, run.path.name) for run in runs}) == len(runs)
    places = [run.path.name if unique else run.path.as_posix() for run in runs]
    return [
        method if methods.count(method) == 1 else f"{method} ({place})"
        for method, place in zip(methods, places, strict=True)
    ]


def _method(run: SavedRun, name: str, score: str) -> str:
    return name if run.is_mim else f"{name}.{score}"


def _scores(run: SavedRun) -> tuple[str, ...]:
    return (run.primary,) if run.is_mim else ood_scores.SCORES


def _methods(runs: Mapping[str, SavedRun], masks: Sequence[np.ndarray] | None = None) -> Methods:
    """Every method of the runs, and the baselines of the first run, on the masked images of each fold."""
    found: Methods = {}
    for position, (name, run) in enumerate(runs.items()):
        for score in _scores(run):
            found[_method(run, name, score)] = _alone(run.folds, score, masks)
        for baseline, folds in run.baselines.items() if position == 0 else ():
            held = folds[0].similarities
            own = next(name for name in (run.primary, "score", "ssim_hbd") if name in held)
            found[baseline] = _alone(folds, own, masks)
    return found


def _alone(
    folds: Sequence[ScoredImages], score: str, masks: Sequence[np.ndarray] | None = None
) -> list[ScoredImages]:
    """The folds with one score, on their masked images; None = on all."""
    found = [replace(fold, similarities={SCORE: fold.similarities[score]}) for fold in folds]
    return found if masks is None else [fold.select(mask) for fold, mask in zip(found, masks, strict=True)]


def _seen(runs: Sequence[SavedRun]) -> list[np.ndarray]:
    """For each fold, a mask of the negatives whose group any of the runs was trained on."""
    marks = zip(*([fold.seen for fold in run.folds] for run in runs), strict=True)
    return [np.any(each, axis=0) for each in marks]


def _open(classifiers: Mapping[str, SavedRun], known: Sequence[str]) -> Methods:
    """Scores for known against unknown classes; positive = known. Empty if a fold has no unknown images."""
    found: Methods = {}
    masks = [~seen for seen in _seen(list(classifiers.values()))]
    for name, run in classifiers.items():
        folds = [replace(fold, positive=fold.positive | np.isin(fold.classes, known)) for fold in run.folds]
        if any(fold.positive[mask].all() for fold, mask in zip(folds, masks, strict=True)):
            return {}
        for score in ood_scores.KNOWN:
            found[_method(run, name, score)] = _alone(folds, score, masks)
    return found


def _clinical(runs: Mapping[str, SavedRun]) -> Methods:
    """Scores of the clinical test, empty unless every run has one."""
    if any(run.clinical is None for run in runs.values()):
        return {}
    return _methods({n: replace(run, folds=run.clinical or [], baselines={}) for n, run in runs.items()})


def _count(runs: Sequence[SavedRun], known: Sequence[str]) -> list[dict[str, int]]:
    counts = []
    for split, fold, seen in zip(runs[0].results["splits"], runs[0].folds, _seen(runs), strict=True):
        of_known, other = np.isin(fold.classes, known), ~fold.positive & ~seen
        masks = {
            "augmented": fold.positive & fold.augmented,
            "plain": fold.positive & fold.plain,
            "known": other & of_known,
            "unknown": other & ~of_known,
            "seen": seen,
        }
        counts.append({"fold": split["fold"]} | {name: int(np.sum(mask)) for name, mask in masks.items()})
    return counts


def _check(runs: Sequence[SavedRun]) -> None:
    if len(runs) == 1 and runs[0].is_mim:
        raise ValueError(
            f"only {runs[0].path} was given, and its report.html already has its own comparison: name the "
            "workdir of at least one more finished run"
        )
    paths = [run.path.resolve() for run in runs]
    for position, path in enumerate(paths):
        if path in paths[:position]:
            raise ValueError(f"the workdir {runs[position].path} was given twice: name each run once")
    classifiers = [run for run in runs if not run.is_mim]
    for run in classifiers[1:]:
        own, other = sorted(run.results["known"]), sorted(classifiers[0].results["known"])
        if own != other:
            raise ValueError(
                f"{run.path} and {classifiers[0].path} trained on different classes ({', '.join(own)} and "
                f"{', '.join(other)}): compare classifiers with the same classes"
            )
    for run in runs[1:]:
        _check_same(runs[0], run, _differences(runs[0].folds, run.folds, "test"))
    with_clinical = [run for run in runs if run.clinical]
    for run in with_clinical[1:]:
        first = with_clinical[0]
        _check_same(first, run, _differences(first.clinical or [], run.clinical or [], "clinical"))


def _check_same(first: SavedRun, other: SavedRun, differences: Iterator[str]) -> None:
    if difference := next(differences, ""):
        raise ValueError(
            f"{first.path} and {other.path} do not hold the same images in the same folds ({difference}): "
            "train both on the same data, with the same seed and folds"
        )


def _differences(folds: Sequence[ScoredImages], others: Sequence[ScoredImages], kind: str) -> Iterator[str]:
    if len(folds) != len(others):
        yield f"{len(folds)} folds in the first, {len(others)} in the second"
    for number, (one, two) in enumerate(zip(folds, others, strict=False)):
        if len(one) != len(two):
            yield f"fold {number} has {len(one)} {kind} images in the first, {len(two)} in the second"
        for field, words in _FIELDS.items():
            unequal = np.flatnonzero(getattr(one, field) != getattr(two, field))
            for row in unequal[:1]:
                yield (
                    f"{kind} image {row} of fold {number} has the {words} {getattr(one, field)[row]} in the "
                    f"first, {getattr(two, field)[row]} in the second"
                )
