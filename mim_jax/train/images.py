"""Load the images of a run: from a folder, from the paper's sources, or generated."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mim_jax.data import dataset as datasets
from mim_jax.data import duplicates, folder, quality
from mim_jax.data.dataset import Dataset
from mim_jax.data.folder import read_csv, spelled
from mim_jax.data.resize import reduce
from mim_jax.data.sources import load as sources
from mim_jax.train.settings import Settings


def load_dataset(settings: Settings, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Load the images that the settings name: a folder, the paper's sources, or procedural ones.

    They are read once, at the size of the frozen network if there is one, and downscaled for MIM.
    """
    return _at_sizes(_load_dataset(settings, _read_size(settings), progress), settings)


def _read_size(settings: Settings) -> int:
    return settings.features.image_size if settings.features else settings.data.image_size


def _at_sizes(dataset: Dataset, settings: Settings) -> Dataset:
    size = settings.data.image_size
    if dataset.images.shape[1] == size:
        return dataset
    return replace(dataset, images=reduce(dataset.images, size), large=dataset.images)


def _load_dataset(settings: Settings, size: int, progress: Callable[[int, int], None] | None) -> Dataset:
    data = settings.data
    if data.source_column and not data.root:
        raise ValueError(
            f"config.data.source_column={data.source_column} is a column of the manifest in "
            "config.data.root, which is not given: leave source_column out"
        )
    if data.root and data.sources:
        raise ValueError(
            f"config.data.root ({data.root}) and config.data.sources ({', '.join(data.sources)}) are both "
            "given: name one of the two"
        )
    if data.procedural:
        # Each image is drawn from random numbers of its own: no copies to look for.
        return datasets.from_lesions(
            size=size,
            positives=data.procedural_positives,
            negatives=data.procedural_negatives,
            seed=settings.seed,
        )
    read: dict[str, Any] = {"size": size, "positive": data.positive, "min_side": data.min_side}
    if data.sources:
        draw: dict[str, Any] = {"per_class": data.per_class, "seed": settings.seed}
        folders = prepared_folder(data.data_dir)
        dataset = sources.load_sources(data.sources, data_dir=folders, **draw, **read, progress=progress)
        remarks = (
            *sources.shortfalls(dataset, per_class=data.per_class),
            *sources.count_differences(dataset),
        )
        dataset = replace(dataset, remarks=remarks)
    else:
        dataset = folder.from_folder(
            data.root,
            **read,
            manifest=data.manifest,
            group_pattern=data.group_pattern,
            strict=data.strict,
            progress=progress,
        )
    if data.source_column:
        manifest = Path(data.root).expanduser() / (data.manifest or "manifest.csv")
        dataset = replace(dataset, sources=read_sources(manifest, data.source_column, dataset.names.tolist()))
    dataset = quality.screen(dataset, data.gate, data.gate_training, strict=data.strict)
    return duplicates.settle(dataset, data.duplicates)


def read_sources(path: Path, column: str, names: Sequence[str]) -> np.ndarray:
    """Read the source of each file (repository, clinic or camera): str `[N]`, "" if it is not given.

    The manifest has columns `file`, a path relative to the data folder like those in `names`, and `column`.
    ValueError if it or a column does not exist, or none of the names has a source.
    """
    if not path.exists():
        raise ValueError(
            f"config.data.source_column={column} needs a manifest, and there is no {path}: "
            "leave it out, or name the manifest with --config.data.manifest"
        )
    columns, rows = read_csv(path)
    if not {"file", column.lower()} <= set(columns):
        raise ValueError(
            f"the manifest {path} needs columns file and {column}; found {', '.join(columns) or 'nothing'}"
        )
    known = {spelled(row["file"]): row[column.lower()] for row in rows}
    found = np.array([known.get(spelled(name), "") for name in names], dtype=str)
    if not np.any(found != ""):
        raise ValueError(
            f"the manifest {path} gives a {column} for none of the {len(names)} images: its column 'file' "
            f"must be relative to the data folder, such as {names[0]!r}"
        )
    return found


def load_clinical(settings: Settings) -> Dataset | None:
    """Load the images of the clinical test, none of them mpox; None if the settings name none.

    Procedural ones are drawn with a different seed from the training images.
    """
    data, evaluation = settings.data, settings.evaluation
    if evaluation.clinical:
        loaded = sources.load_clinical(
            evaluation.clinical,
            data_dir=prepared_folder(data.data_dir),
            size=_read_size(settings),
            positive=data.positive,
            min_side=data.min_side,
        )
        loaded = quality.screen(loaded, data.gate, "off" if data.gate_training == "off" else "list")
        return _at_sizes(loaded, settings)
    if data.procedural and evaluation.procedural_clinical:
        drawn = datasets.from_lesions(
            size=_read_size(settings),
            positives=1,
            negatives=evaluation.procedural_clinical,
            seed=settings.seed + 1,
        )
        return _at_sizes(drawn.select(drawn.negatives), settings)
    return None


def prepared_folder(data_dir: str) -> Path:
    """Folder of decoded sources; ValueError if it is not given and the user has no home folder."""
    if data_dir:
        return Path(data_dir).expanduser()
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise ValueError(
            "this user has no home folder for decoded sources: give a folder as --config.data.data_dir"
        ) from error
    return Path(cache) / "mim_jax" / "prepared"


def check_negatives(dataset: Dataset) -> None:
    """Raise ValueError if there are no negatives to test against."""
    if not len(dataset.negatives):
        raise ValueError(
            f"{dataset.source} has no class but {dataset.positive!r}: add folders of other classes to test "
            "against, or only train with --mode=train"
        )
    if not len(dataset.tested_negatives):
        raise ValueError(
            f"every image of another class shares a group with {dataset.positive!r} images that a fold "
            "trains on: correct the groups (--mode=check_data lists them), or only train with --mode=train"
        )
