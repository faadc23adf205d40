"""The data of the paper from downloaded folders: prepared once, verified on every load.

A preparation is a TFDS folder, `data_dir/<source>/<options>/<version>`, with a `prepared.json` that holds
the SHA-256 of its files, a fingerprint of the downloaded folder, and the unusable images. A preparation that
does not match is refused, never repaired.
"""

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mim_jax.data.dataset import Dataset, printable
from mim_jax.data.images import MIN_SIDE
from mim_jax.data.sources.folders import CLASSES, Contents, fingerprint, read_layout
from mim_jax.data.synthetic.lesions import PAPER_COUNTS

RECORD = "prepared.json"


def load_sources(
    folders: Mapping[str, str],
    *,
    data_dir: str | os.PathLike[str],
    size: int,
    per_class: int = 100,
    seed: int = 0,
    positive: str = "mpox",
    min_side: int = MIN_SIDE,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Load several sources as one data set, sorted by name; the first call prepares them.

    Names and groups begin with their source, so that two sources never clash. The builders in
    `mim_jax.data.sources.tfds` say what the folders must hold. All are checked before anything is decoded.

    Args:
      folders: source ("msld", "isic2018", "dermnet", "clinical") -> downloaded folder.
      data_dir: folder of prepared images; several runs may share it.
      size, positive, min_side: as in `mim_jax.data.folder.from_folder`.
      per_class: images drawn, by `seed`, from each class of isic2018 and dermnet; 0 = all, as always for the
        others.
      progress: called with (images done, images in all) while images are prepared.

    Raises:
      ValueError: a folder is missing, incomplete or inconsistent, two sources have the same class,
        `positive` is not a class, or a preparation is damaged or belongs to another folder.
    """
    if not folders:
        raise ValueError("no data source is given: give the folder of at least one, such as msld")
    if size < 1 or per_class < 0 or seed < 0:
        raise ValueError(
            f"size={size}, per_class={per_class} and seed={seed}: size must be at least 1 "
            "pixel, the others at least 0"
        )
    how = {"size": size, "min_side": min_side, "per_class": per_class, "seed": seed}
    plans = [_plan(source, folder, data_dir, **how) for source, folder in sorted(folders.items())]
    _check_labels(plans, positive)

    report = _count_images(plans, progress) if progress else None
    return _join([_load(plan, positive, report) for plan in plans])


def load_clinical(
    folder: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str],
    size: int,
    positive: str = "mpox",
    min_side: int = MIN_SIDE,
) -> Dataset:
    """Load a clinical set without mpox, one folder per class (hospital, normal), as `load_sources` does."""
    return _join([_load(_plan("clinical", folder, data_dir, size=size, min_side=min_side), positive, None)])


def count_differences(dataset: Dataset) -> list[str]:
    """Report each class whose number of images differs from the paper's (Figure 1b, section 2.2)."""
    found = dataset.class_counts()
    sentences = [
        f"{label}: {_number(found.get(label, 0))}, the paper has {expected:,}."
        for label, expected in PAPER_COUNTS.items()
        if found.get(label, 0) != expected
    ]
    sentences += [
        f"{label}: {_number(count)} of a class that the paper does not have."
        for label, count in found.items()
        if label not in PAPER_COUNTS
    ]
    others = len(dataset) - found.get("mpox", 0)
    expected = sum(PAPER_COUNTS.values()) - PAPER_COUNTS["mpox"]
    if others != expected:
        classes = len(found) - ("mpox" in found)
        sentences.append(
            f"Other classes than mpox: {_number(others)} in {classes} classes, the paper has {expected:,} in "
            f"{len(PAPER_COUNTS) - 1}."
        )
    return sentences


def shortfalls(dataset: Dataset, *, per_class: int) -> list[str]:
    """Report each class that has fewer usable images than `load_sources` was asked for."""
    sources = {name.split("/")[0] for name in dataset.names.tolist()}
    counts = dataset.class_counts()
    return [
        f"{label}: {_number(counts.get(label, 0))} could be drawn from {source}, {per_class} were asked for."
        for source in sorted(sources & set(CLASSES))
        for label in CLASSES[source]
        if counts.get(label, 0) < per_class
    ]


@dataclass(frozen=True)
class _Plan:
    """A source to load: its folder and contents, and how it is prepared."""

    source: str
    folder: Path
    contents: Contents
    data_dir: Path
    options: dict[str, int]  # of `mim_jax.data.sources.tfds.Preparation`


def _plan(
    source: str, folder: str | os.PathLike[str], data_dir: str | os.PathLike[str], **options: int
) -> _Plan:
    path = Path(folder).expanduser()
    if source not in CLASSES:  # Nothing is drawn: unused options must not cause a second preparation.
        options |= {"per_class": 0, "seed": 0}
    return _Plan(source, path, read_layout(source, path), Path(data_dir).expanduser(), options)


def _check_labels(plans: list[_Plan], positive: str) -> None:
    owners: dict[str, str] = {}
    for plan in plans:
        for label in sorted({entry.label for entry in plan.contents.entries}):
            if owners.setdefault(label, plan.source) != plan.source:
                raise ValueError(
                    f"the class {label!r} is in {owners[label]} and in {plan.source}: rename its folder in "
                    "one of them, or leave one of the sources out"
                )
    if positive not in owners:
        raise ValueError(
            f"no source has the class {positive!r}; the classes are {', '.join(sorted(owners))}: name one of "
            "these, or add the source that has it (msld has mpox)"
        )


def _count_images(plans: list[_Plan], progress: Callable[[int, int], None]) -> Callable[[], None]:
    """Make a function that counts an image of any source for `progress`, replaced ones included."""
    total = sum(
        min(count, plan.options["per_class"] or count)
        for plan in plans
        for count in Counter(entry.label for entry in plan.contents.entries).values()
    )
    counter = itertools.count(1)

    def report() -> None:
        done = next(counter)
        progress(done, max(total, done))

    return report


def _load(plan: _Plan, positive: str, report: Callable[[], None] | None) -> Dataset:
    # Imported here, because TFDS takes half a second to import and only these sources need it.
    from mim_jax.data.sources import tfds as builders

    builder_class = builders.BUILDERS[plan.source]
    config = builders.Preparation(**plan.options)
    where = plan.data_dir / plan.source / config.name / str(builder_class.VERSION)
    mark = fingerprint(plan.folder, plan.contents.entries)
    with _quiet():
        if not where.exists():
            _prepare(builder_class(data_dir=plan.data_dir, config=config), plan, where, mark, report)
        unusable = _verify(where, plan, mark)
        # Only after verification: a TFDS builder reads its files when it is created.
        examples = list(builder_class(data_dir=plan.data_dir, config=config).as_data_source(builders.SPLIT))
    examples.sort(key=lambda example: example["name"])
    labels, groups, names = (
        [example[key].decode() for example in examples] for key in ("label", "group", "name")
    )
    source, contents = plan.source, plan.contents

    def named(items: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        return tuple((f"{source}/{printable(name)}", words) for name, words in items)

    return Dataset(
        images=np.stack([example["image"] for example in examples]),
        labels=np.array(labels, dtype=str),
        # An image without a known group is a group of its own.
        groups=np.array(
            [f"{source}/{group or name}" for group, name in zip(groups, names, strict=True)], str
        ),
        names=np.array([f"{source}/{name}" for name in names], dtype=str),
        source=contents.title,
        positive=positive,
        grouped=True,
        unusable=named([*contents.refused, *unusable]),
        passed_over=named(contents.passed_over),
        group_problems=named(contents.ungrouped),
    )


def _prepare(builder: Any, plan: _Plan, where: Path, mark: str, report: Callable[[], None] | None) -> None:
    import tensorflow_datasets as tfds

    builder.on_image = report
    # TFDS requires a download folder, although nothing is downloaded.
    with tempfile.TemporaryDirectory() as downloads:
        builder.download_and_prepare(
            download_dir=downloads,
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(manual_dir=plan.folder, try_download_gcs=False),
        )
    record = {"folder": mark, "files": _hash_files(where), "unusable": sorted(builder.unusable)}
    (where / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _verify(where: Path, plan: _Plan, mark: str) -> list[tuple[str, str]]:
    """Check that a preparation is complete and was made from this folder; return its unusable images."""
    way_out = f"delete {where} to prepare {plan.source} again"
    try:
        record = json.loads((where / RECORD).read_text(encoding="utf-8"))
        files, folder = record["files"], record["folder"]
        unusable = [(str(name), str(reason)) for name, reason in record["unusable"]]
    except PermissionError:
        raise ValueError(f"no permission to read {where / RECORD}: allow this user to read it") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"the prepared images in {where} have no readable {RECORD}: the preparation was interrupted, or "
            f"another program made it; {way_out}"
        ) from None
    if folder != mark:
        raise ValueError(
            f"the prepared images in {where} were not made from the files that {plan.folder} holds now: "
            f"{way_out}, or give another data_dir"
        )
    found = _hash_files(where)
    if changed := sorted(name for name in {*found, *files} if found.get(name) != files.get(name)):
        raise ValueError(f"the prepared images in {where} are damaged, {changed[0]} has changed: {way_out}")
    return unusable


def _hash_files(where: Path) -> dict[str, str]:
    """SHA-256 (hex) of every file of a preparation except its record."""
    hashes = {}
    for path in sorted(where.rglob("*")):
        if path.is_file() and path.name != RECORD:
            with path.open("rb") as file:
                hashes[path.relative_to(where).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and log lines of TFDS; `progress` replaces them."""
    import tensorflow_datasets as tfds
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.display_progress_bar(False)
    try:
        yield
    finally:
        tfds.display_progress_bar(True)
        logging.set_verbosity(verbosity)


def _join(parts: list[Dataset]) -> Dataset:
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("images", "labels", "groups", "names")
    }
    lists: dict[str, Any] = {
        name: tuple(sorted(item for part in parts for item in getattr(part, name)))
        for name in ("unusable", "passed_over", "group_problems")
    }
    return replace(parts[0], **arrays, **lists, source=", ".join(part.source for part in parts))


def _number(count: int) -> str:
    return f"{count:,} image" + "s" * (count != 1)
