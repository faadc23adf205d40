"""Read folder trees of photographs, one folder per class, into a `Dataset`."""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from mim_jax.data.dataset import Dataset, printable
from mim_jax.data.folds import group_name
from mim_jax.data.images import MIN_SIDE, UnusableImage, load_image, read_bytes

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"})

# Photographs too: they are opened, so that they are listed with a reason instead of skipped.
_OTHER_IMAGE_SUFFIXES = frozenset({".gif", ".heic", ".heif", ".avif"})

# Folders left by NAS systems, Windows, macOS and sync clients; others are known by their first character:
# `@eaDir`, `#recycle`, `$RECYCLE.BIN`, `~snapshot`, `.stversions`.
_LEFTOVERS = frozenset(
    {"__macosx", "lost+found", "network trash folder", "recycled", "recycler", "system volume information"}
    | {"temporary items", "__pycache__"}
)


class Listing(NamedTuple):
    """Contents of a folder tree, as sorted lists: image files, and (name, reason) of everything else.

    Names are relative to the folder and spelled as on disk.
    """

    names: list[str]
    refused: list[tuple[str, str]]  # links that are not followed and folders that cannot be read
    passed_over: list[tuple[str, str]]  # hidden, left by the system, or without an image suffix

    def note(self) -> str:
        """Ending of an error message that names the first entries not read."""
        some = [f"{name} ({reason})" for name, reason in (self.refused + self.passed_over)[:3]]
        return f"; not read: {', '.join(some)}" if some else ""


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

    Unusable images and skipped files are listed with the reason.

    Args:
      root: folder with one subfolder per class.
      size: side of the square images, in pixels.
      positive: the class the network is trained on.
      manifest: path, relative to root, of a CSV file with the columns `file` (relative to root) and `group`.
        Empty: `root/manifest.csv` if it exists and no `group_pattern` is given.
      group_pattern: regular expression with one group, searched in the file name without its suffix. The
        image's group is its class and the match: `^[A-Z]+_(\d+)_\d+` puts `mpox/MKP_17_01.jpg` in "mpox/17".
      strict: raise an error if a file is unusable.
      min_side: images with a shorter side, in pixels, are unusable.
      progress: called with (images done, images in all) after each image.

    Raises:
      ValueError: there are no images, `positive` is not among the classes or has no usable image, the
        manifest or the pattern does not match, or (strict) a file is unusable.
    """
    folder, positive = _check_root(Path(root).expanduser()), printable(positive)
    listing = list_images(folder)
    refused = [(printable(name), reason) for name, reason in listing.refused]
    files = _by_name(listing.names)
    classes = sorted(
        printable(path.name) for path in folder.iterdir() if path.is_dir() and not is_leftover(path.name)
    )
    _check_classes(folder, files, classes, positive, listing.note())
    refused += [(name, "not in a class folder") for name in files if "/" not in name]
    names = [name for name in files if "/" in name]
    found, problems = _find_groups(folder, {name: files[name] for name in names}, manifest, group_pattern)

    images, reasons = _decode([folder / files[name] for name in names], size, min_side, progress)
    refused += [(names[i], reason) for i, reason in enumerate(reasons) if reason]
    unusable = tuple(sorted(refused))
    if strict and unusable:
        listed = "; ".join(f"{name}: {reason}" for name, reason in unusable[:3])
        raise ValueError(
            f"{len(unusable)} unusable files in {root} ({listed}): "
            "fix or remove them, or set strict to False to leave them out"
        )

    kept = [i for i, reason in enumerate(reasons) if not reason]
    dataset = Dataset(
        images=images if len(kept) == len(names) else images[kept],
        labels=np.array([names[i].split("/")[0] for i in kept], dtype=str),
        groups=np.array([printable(found.get(names[i], names[i])) for i in kept], dtype=str),
        names=np.array([names[i] for i in kept], dtype=str),
        source=str(root),
        positive=positive,
        grouped=bool(found),
        unusable=unusable,
        passed_over=tuple((printable(name), reason) for name, reason in listing.passed_over),
        group_problems=tuple(sorted((printable(name), problem) for name, problem in problems)),
    )
    if not dataset.positives.size:
        example = next(
            (f" ({name}: {reason})" for name, reason in unusable if name.split("/")[0] == positive), ""
        )
        raise ValueError(f"the positive class {positive!r} in {root} has no usable image{example}")
    return dataset


def list_images(folder: str | os.PathLike[str]) -> Listing:
    """List the image files below `folder` and the entries skipped, except non-images at the top level."""
    root = Path(folder).resolve()
    names: list[str] = []
    refused: list[tuple[str, str]] = []
    passed_over: list[tuple[str, str]] = []

    def place(path: str | Path) -> str:
        return Path(path).relative_to(root).as_posix()

    def unreadable(error: OSError) -> None:
        refused.append((place(error.filename), "a folder that cannot be read"))

    for here, folders, files in os.walk(root, onerror=unreadable):
        for name in list(folders):
            path = Path(here, name)
            if is_leftover(name):
                folders.remove(name)
                count = sum(len(files) for _, _, files in os.walk(path))
                passed_over.append((place(path), f"a hidden or system folder; files in it: {count}"))
            elif path.is_symlink():
                reason = "a link to a folder, which is not followed; put the folder itself here"
                refused.append((place(path), reason))
        for name in files:
            path = Path(here, name)
            if name.startswith("."):
                passed_over.append((place(path), "a hidden file"))
            elif not is_image(name):
                passed_over.append((place(path), "no image suffix"))
            elif path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                reason = "a link out of the data folder, which is not followed; put the file itself here"
                refused.append((place(path), reason))
            else:
                names.append(place(path))
    # Manifests, licences and the like are expected beside the class folders.
    inside = [item for item in passed_over if "/" in item[0] or (root / item[0]).is_dir()]
    return Listing(sorted(names), sorted(refused), sorted(inside))


def is_image(name: str) -> bool:
    """Whether a file name has an image suffix and is not hidden."""
    last = name.rpartition("/")[2]
    return not last.startswith(".") and Path(last).suffix.lower() in IMAGE_SUFFIXES | _OTHER_IMAGE_SUFFIXES


def is_leftover(name: str) -> bool:
    """Whether a folder is hidden, or was left by a NAS, Windows, macOS or a sync client."""
    return name.startswith((".", "@", "#", "$", "~")) or name.lower() in _LEFTOVERS


def _by_name(found: Sequence[str]) -> dict[str, str]:
    """Map normalised names to names on disk, sorted by normalised name."""
    files: dict[str, str] = {}
    for name in found:
        first = files.setdefault(printable(name), name)
        if first != name:
            raise ValueError(
                f"two files have the name {printable(name)!r}, in two spellings of Unicode: keep one of them"
            )
    return dict(sorted(files.items()))


def _check_root(root: Path) -> Path:
    way_out = "give --config.data.root=FOLDER with one folder per class"
    if not root.exists():
        raise ValueError(f"the data folder {root} does not exist: {way_out}")
    if not root.is_dir():
        raise ValueError(f"the data root {root} is not a folder: {way_out}")
    if not os.access(root, os.R_OK | os.X_OK):
        raise ValueError(f"the data folder {root} cannot be read: allow this user to read it")
    return root.resolve()


def _check_classes(
    root: Path, names: Collection[str], classes: Sequence[str], positive: str, note: str
) -> None:
    if not classes:
        what = f"{len(names)} images, but no class folder" if names else "neither folders nor images"
        raise ValueError(
            f"the data folder {root} holds {what}: put the images of each class into a folder, "
            f"{root}/CLASS/{note}"
        )
    if positive not in classes:
        raise ValueError(
            f"the data folder {root} has no class {positive!r}; it has {', '.join(classes)}: "
            f"name one of these with --config.data.positive=CLASS{note}"
        )
    if not any("/" in name for name in names):
        suffixes = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise ValueError(
            f"the class folders in {root} hold no images: files must end in one of {suffixes}{note}"
        )


def _decode(
    paths: Sequence[Path],
    size: int,
    min_side: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, list[str]]:
    """Decode all images, uint8 `[N, size, size, 3]`; also return why each is unusable, "" if it is usable."""
    images = np.zeros((len(paths), size, size, 3), dtype=np.uint8)

    def decode(i: int) -> str:
        try:
            images[i] = load_image(paths[i], size=size, min_side=min_side)
        except UnusableImage as error:
            return error.reason
        return ""

    # Threads suffice: Pillow decodes and scales without holding the interpreter lock.
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    reasons: list[str] = []
    try:
        for reason in pool.map(decode, range(len(paths))):
            reasons.append(reason)
            if progress:
                progress(len(reasons), len(paths))
    finally:
        pool.shutdown(cancel_futures=True)
    return images, reasons


def _find_groups(
    root: Path, files: Mapping[str, str], manifest: str, group_pattern: str
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Known groups by name, and (name, problem) of the others; `files` as returned by `_by_name`."""
    if manifest and group_pattern:
        raise ValueError(
            f"both manifest={manifest!r} and group_pattern={group_pattern!r} are given: leave one empty"
        )
    if group_pattern:
        return _groups_by_pattern(list(files), group_pattern)
    path = root / (manifest or "manifest.csv")
    if manifest or path.exists():
        return _groups_by_manifest(path, files)
    return {}, []


def _groups_by_pattern(names: Sequence[str], pattern: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    try:
        compiled = re.compile(unicodedata.normalize("NFC", pattern))
    except re.error as error:
        raise ValueError(f"group_pattern={pattern!r} is not a regular expression: {error}") from None
    if compiled.groups != 1:
        raise ValueError(
            f"group_pattern={pattern!r} has {compiled.groups} groups: put parentheses around one part"
        )
    matches = {name: compiled.search(PurePosixPath(name).stem) for name in names}
    groups = {
        name: f"{name.split('/')[0]}/{match[1]}" for name, match in matches.items() if match and match[1]
    }
    if not groups:
        raise ValueError(
            f"group_pattern={pattern!r} matches none of the {len(names)} file names, "
            f"such as {PurePosixPath(names[0]).stem!r}: correct it, or leave it empty"
        )
    return groups, [
        (name, "does not match the group pattern; a group of its own") for name in names if name not in groups
    ]


def _groups_by_manifest(path: Path, files: Mapping[str, str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    by_key = {spelled(on_disk): name for name, on_disk in files.items()}
    groups: dict[str, str] = {}
    problems: list[tuple[str, str]] = []
    columns, table = read_csv(path)
    if not {"file", "group"} <= set(columns):
        found = ", ".join(columns) or "nothing"
        raise ValueError(
            f"the manifest {path} needs columns file and group, separated by commas; found {found}"
        )
    rows = [(row["file"], group_name(row["group"])) for row in table]
    for file, group in rows:
        name = by_key.get(spelled(file))
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
            f"the manifest {path} gives a group for none of the {len(files)} images: "
            f"its column 'file' must be relative to the root, such as {next(iter(files))!r}"
        )
    listed = {spelled(file) for file, _ in rows}
    problems += [
        (name, "not in the manifest; a group of its own") for key, name in by_key.items() if key not in listed
    ]
    return groups, problems


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read the column names, in lower case, and the rows of a CSV file, with whitespace stripped."""
    try:
        text = read_bytes(path).decode("utf-8-sig")  # spreadsheets add a byte-order mark
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


def spelled(name: str) -> str:
    r"""Normalise a file name: systems differ in "/" or "\\" and in how they compose accents."""
    return unicodedata.normalize("NFC", PurePosixPath(name.replace("\\", "/")).as_posix())
