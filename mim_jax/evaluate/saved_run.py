"""Finished runs read from their workdirs: their results, and the scores of their test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mim_jax.classifiers import ood_scores
from mim_jax.classifiers.ood_scores import SCORE_NAMES
from mim_jax.decide.decision import SCORE_NAMES as ONE_CLASS_SCORES
from mim_jax.evaluate.method_names import DETECTORS, REFERENCE, method_name
from mim_jax.evaluate.scores import ScoredImages, read_scores
from mim_jax.train import workdir

BASELINES = ("autoencoder", "color_neighbors")  # of a MIM run; classifiers are compared with them too
# The paper's settings: the width of each network, as in its configuration, and the image size in pixels.
_PAPER_WIDTH = {"mim": 64, "resnet50": 64, "mobilenet_v3_large": 1.0, "swin_b": 128}
_PAPER_SIZE = 224


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A finished run of MIM or of a classifier."""

    path: Path  # the workdir, as given
    method: str  # name of the deciding detector, or of the classifier
    results: Mapping[str, Any]  # the content of results.json
    primary: str  # the main score: the deciding score of a MIM run, "probability" for a classifier
    folds: list[ScoredImages]  # the scored test images, one `ScoredImages` per fold
    baselines: dict[str, list[ScoredImages]]  # the `BASELINES` that a MIM run holds: name -> folds
    # the images of the clinical test, one `ScoredImages` per fold; None = no clinical test
    clinical: list[ScoredImages] | None

    @property
    def is_mim(self) -> bool:
        return self.method in DETECTORS


def read_run(path: str | Path) -> SavedRun:
    """Read the workdir of a finished run; ValueError if results or scores are missing or damaged."""
    path = Path(path)
    if not (path / "results.json").exists():
        raise ValueError(
            f"{path} holds no results.json: finish that run with launch.py --workdir={path} and its own "
            "configuration, or evaluate it with --mode=evaluate"
        )
    results = workdir.read_json(path / "results.json")
    workdir.check_scores(path, results)
    is_mim = results.get("kind") != "classifier"
    method = results.get("reference", REFERENCE) if is_mim else results["method"]
    primary = results["decision"]["metric"] if is_mim else "probability"
    wanted = (method, *(BASELINES if is_mim else ()))
    needed = (primary,) if is_mim else ("seen", *ood_scores.SCORES)
    tables = [
        read_scores(path / f"fold_{split['fold']}" / "scores.csv", methods=wanted, needed=needed)
        for split in results["splits"]
    ]
    for split, table in zip(results["splits"], tables, strict=True):
        if method not in table:
            raise ValueError(
                f"{path} holds no scores by {method} in fold {split['fold']}: evaluate it again with "
                "--mode=evaluate"
            )
    return SavedRun(
        path=path,
        method=method,
        results=results,
        primary=primary,
        folds=[table[method] for table in tables],
        baselines={
            name: [table[name] for table in tables]
            for name in wanted[1:]
            if all(name in table for table in tables)
        },
        clinical=_read_clinical(path, results["splits"], method, needed),
    )


def network_name(run: SavedRun) -> str:
    """Display name of the deciding method, with width and image size if they differ from the paper's.

    A detector on a frozen network alone is named with its backbone instead.
    """
    settings = workdir.flatten(run.results["config"])
    if run.method.startswith("features"):
        return f"{method_name(run.method)} ({settings['features.backbone']})"
    width = settings.get("generator.width" if run.is_mim else "classifier.width")
    size = settings["data.image_size"]
    full = _PAPER_WIDTH.get(run.method, width)
    parts = [] if width in (None, full) else [f"width {width / full:g}"]
    parts += [] if size == _PAPER_SIZE else [f"{size} px"]
    return method_name(run.method) + (f" ({', '.join(parts)})" if parts else "")


def describe_training(run: SavedRun) -> dict[str, str]:
    """Describe the training of a run, item -> text; the same items for every run."""
    settings, training = workdir.flatten(run.results["config"]), run.results["training"]
    parameters = training["parameters"]
    if run.is_mim:
        classes = f"one: {run.results['data']['positive']}"
    elif run.results["merged"]:
        classes = f"two: {run.results['data']['positive']}, and {' with '.join(run.results['known'])}"
    else:
        names = (run.results["data"]["positive"], *run.results["known"])
        classes = f"{len(names)}: {', '.join(names)}"
    return {
        "workdir": run.path.name,
        "score": ONE_CLASS_SCORES[run.primary] if run.is_mim else SCORE_NAMES[run.primary],
        "classes in training": classes,
        "image size": str(settings["data.image_size"]),
        "weights at the start": training.get("pretrained") or "random",
        "parameters": ", ".join(
            f"{count:,}" if len(parameters) == 1 else f"{count:,} ({part})"
            for part, count in parameters.items()
        ),
        "epochs": f"{training['epochs']:,}",
        "batch": str(settings["training.batch_size"]),
        "learning rate": f"{settings['optimizer.learning_rate']:g}, {settings['optimizer.decay']} decay",
        "seed": str(run.results["seed"]),
        "device": str(run.results["environment"]["device"]),
        "training time, all folds": f"{sum(run.results['wall_time']['train']) / 60:,.1f} min",
    }


def _read_clinical(
    path: Path, splits: Sequence[Mapping[str, Any]], method: str, needed: Sequence[str]
) -> list[ScoredImages] | None:
    files = [path / f"fold_{split['fold']}" / "clinical.csv" for split in splits]
    if not any(file.exists() for file in files):
        return None
    found = []
    for file in files:
        table = read_scores(file, methods=(method,), needed=needed)
        if method not in table:
            raise ValueError(f"{file} holds no scores by {method}: evaluate again with --mode=evaluate")
        found.append(table[method])
    return found
