"""Folder trees of photographs, one folder a class, read into a `Dataset`."""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from mim_jax.data.dataset import Dataset, printable
from mim_jax.data.folds import group_name
from mim_jax.data.images import MIN_SIDE, UnusableImage, load_image, read_bytes

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"})

# Photographs all the same: they are opened so that they are listed with a reason, not passed over.
_OTHER_IMAGE_SUFFIXES = frozenset({".gif", ".heic", ".heif", ".avif"})


def from_folder(
    root: str | os.PathLike[str],
    *,
    size: int,
    positive: str,
    manifest: str = "",
    group_pattern: str = "",
    strict: bool = False,
    min_side: int = MIN_SIDE,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    r"""Read `root/<class>/**/*.{jpg,jpeg,jfif,png,webp,bmp,tif,tiff}`, sorted by name; suffixes in any case.

    Hidden files and other types are passed over. Images that cannot be used are left out and listed.

    Args:
      root: the folder that holds one folder a class.
      size: side of the square images, in pixels.
      positive: the class the network is trained on.
      manifest: path, relative to root, of a CSV file with the columns `file` (relative to root) and `group`.
        Empty: `root/manifest.csv` where that exists and no `group_pattern` is given.
      group_pattern: regular expression with one group, searched in the file name without its suffix. The
        group is the class and what it captures: `^[A-Z]+_(\d+)_\d+` puts `mpox/MKP_17_01.jpg` into "mpox/17".
      strict: unusable images are an error.
      min_side: images with a shorter side, in pixels, are unusable.
      progress: called with (images done, images in all) after each image.

    Raises:
      ValueError: nothing usable is there, `positive` is not among the classes or has no usable image, the
        manifest or the pattern does not fit, or (strict) a file is unusable.
    """
    folder = _check_root(Path(root).expanduser())
    names, refused = list_images(folder)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and _visible(path.name))
    _check_classes(folder, names, classes, positive)
    refused += [(name, "not in the folder of a class") for name in names if "/" not in name]
    names = [name for name in names if "/" in name]
    found, problems = _find_groups(folder, names, manifest, group_pattern)

    images, reasons = _decode(folder, names, size, min_side, progress)
    refused += [(names[i], reason) for i, reason in enumerate(reasons) if reason]
    unusable = tuple(sorted((printable(name), reason) for name, reason in refused))
    if strict and unusable:
        listed = "; ".join(f"{name}: {reason}" for name, reason in unusable[:3])
        raise ValueError(
            f"{len(unusable)} unusable files in {root} ({listed}): "
            "fix or remove them, or allow that they are left out"
        )

    kept = [i for i, reason in enumerate(reasons) if not reason]
    dataset = Dataset(
        images=images if len(kept) == len(names) else images[kept],
        labels=np.array([printable(names[i].split("/")[0]) for i in kept], dtype=str),
        groups=np.array([printable(found.get(names[i], names[i])) for i in kept], dtype=str),
        names=np.array([printable(names[i]) for i in kept], dtype=str),
        source=str(root),
        positive=positive,
        grouped=bool(found),
        unusable=unusable,
        group_problems=tuple(sorted((printable(name), problem) for name, problem in problems)),
    )
    if not dataset.positives.size:
        example = next(
            (f" ({name}: {reason})" for name, reason in unusable if name.split("/")[0] == positive), ""
        )
        raise ValueError(f"the positive class {positive!r} in {root} has no usable image{example}")
    return dataset


def list_images(folder: str | os.PathLike[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Sorted names of all image files below `folder`, relative to it; (name, reason) of the refused ones."""
    root = Path(folder).resolve()
    names: list[str] = []
    refused: list[tuple[str, str]] = []

    def unreadable(error: OSError) -> None:
        refused.append((_relative(Path(error.filename), root), "a folder that cannot be read"))

    for here, folders, files in os.walk(root, onerror=unreadable):
        folders[:] = [name for name in folders if _visible(name)]
        links = [Path(here, name) for name in folders if os.path.islink(os.path.join(here, name))]
        for path in links:
            inside = path.resolve().is_relative_to(root)
            reason = "a link to a folder, which is not followed" if inside else "link outside the root"
            refused.append((_relative(path, root), reason))
        for name in files:
            path = Path(here, name)
            if not _visible(name) or path.suffix.lower() not in IMAGE_SUFFIXES | _OTHER_IMAGE_SUFFIXES:
                continue
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                refused.append((_relative(path, root), "link outside the root"))
            else:
                names.append(_relative(path, root))
    return sorted(names), sorted(refused)


def _check_root(root: Path) -> Path:
    if not root.exists():
        raise ValueError(
            f"the data folder {root} does not exist: give --config.data.root=FOLDER with one folder a class"
        )
    if not root.is_dir():
        raise ValueError(
            f"the data root {root} is not a folder: give --config.data.root=FOLDER with one folder a class"
        )
    if not os.access(root, os.R_OK | os.X_OK):
        raise ValueError(f"the data folder {root} cannot be read: allow this user to read it")
    return root.resolve()


def _check_classes(root: Path, names: Sequence[str], classes: Sequence[str], positive: str) -> None:
    if not classes:
        what = f"{len(names)} images, but no folder of a class" if names else "neither folders nor images"
        raise ValueError(
            f"the data folder {root} holds {what}: put the images of each class into a folder, {root}/CLASS/"
        )
    if positive not in classes:
        raise ValueError(
            f"the data folder {root} has no class {positive!r}; it has {', '.join(classes)}: "
            "name one of these with --config.data.positive=CLASS"
        )
    if not any("/" in name for name in names):
        suffixes = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise ValueError(f"the class folders in {root} hold no images: files must end in one of {suffixes}")


def _decode(
    root: Path,
    names: Sequence[str],
    size: int,
    min_side: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, list[str]]:
    """Decode all images, uint8 `[N, size, size, 3]`, and give the reason why each is unusable, or ""."""
    images = np.zeros((len(names), size, size, 3), dtype=np.uint8)

    def decode(i: int) -> str:
        try:
            images[i] = load_image(root / names[i], size=size, min_side=min_side)
        except UnusableImage as error:
            return error.reason
        return ""

    # Threads suffice: Pillow decodes and scales without holding the interpreter lock.
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    reasons: list[str] = []
    try:
        for reason in pool.map(decode, range(len(names))):
            reasons.append(reason)
            if progress:
                progress(len(reasons), len(names))
    finally:
        pool.shutdown(cancel_futures=True)
    return images, reasons


def _find_groups(
    root: Path, names: Sequence[str], manifest: str, group_pattern: str
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Group of each name where one is known, and (name, problem) for the others."""
    if manifest and group_pattern:
        raise ValueError(
            f"both manifest={manifest!r} and group_pattern={group_pattern!r} are given: leave one empty"
        )
    if group_pattern:
        return _groups_by_pattern(names, group_pattern)
    path = root / (manifest or "manifest.csv")
    if manifest or path.exists():
        return _groups_by_manifest(path, names)
    return {}, []


def _groups_by_pattern(names: Sequence[str], pattern: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"group_pattern={pattern!r} is not a regular expression: {error}") from None
    if compiled.groups != 1:
        raise ValueError(
            f"group_pattern={pattern!r} has {compiled.groups} groups: put brackets around one part"
        )
    matches = {name: compiled.search(PurePosixPath(name).stem) for name in names}
    groups = {
        name: f"{name.split('/')[0]}/{match[1]}" for name, match in matches.items() if match and match[1]
    }
    if not groups:
        raise ValueError(
            f"group_pattern={pattern!r} fits none of the {len(names)} file names, "
            f"such as {PurePosixPath(names[0]).stem!r}: correct it, or leave it empty"
        )
    return groups, [
        (name, "does not fit the group pattern; a group of its own") for name in names if name not in groups
    ]


def _groups_by_manifest(path: Path, names: Sequence[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    by_key = {_key(name): name for name in names}
    groups: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    rows = [(file, group_name(group)) for file, group in _read_manifest(path)]
    for file, group in rows:
        name = by_key.get(_key(file))
        if name is None:
            problems.append((file, "in the manifest, but not among the images"))
        elif not group:
            problems.append((name, "no group in the manifest; a group of its own"))
        elif groups.setdefault(name, group) != group:
            problems.append(
                (name, f"in the manifest twice, as {groups[name]!r} and {group!r}; the first counts")
            )
    if not groups:
        raise ValueError(
            f"the manifest {path} gives a group to none of the {len(names)} images: "
            f"its column 'file' must be relative to the root, such as {names[0]!r}"
        )
    listed = {_key(file) for file, _ in rows}
    problems += [
        (name, "not in the manifest; a group of its own") for name in names if _key(name) not in listed
    ]
    return groups, problems


def _read_manifest(path: Path) -> list[tuple[str, str]]:
    columns, rows = read_csv(path)
    if not {"file", "group"} <= set(columns):
        found = ", ".join(columns) or "nothing"
        raise ValueError(
            f"the manifest {path} needs columns file and group, separated by commas; found {found}"
        )
    return [(row["file"], row["group"]) for row in rows]


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read the columns, in lower case, and the rows of a CSV file, with spaces stripped off every cell."""
    try:
        text = read_bytes(path).decode("utf-8-sig")  # spreadsheets put a byte-order mark in front
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        reader.fieldnames = columns = [name.strip().lower() for name in reader.fieldnames or ()]
        rows = []
        for row in reader:
            if any(row.pop(None, ())):
                raise csv.Error(
                    f"line {reader.line_num} has more cells than columns: quote cells with commas"
                )
            rows.append({key: cell.strip() for key, cell in row.items() if key})
        return columns, rows
    except (UnusableImage, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV in UTF-8: {error}") from None


def _key(name: str) -> str:
    r"""One spelling for a file's names: systems differ in "/" or "\\" and in how they compose accents."""
    return unicodedata.normalize("NFC", PurePosixPath(name.replace("\\", "/")).as_posix())


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
