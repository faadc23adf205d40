"""Layouts of downloaded folders: finds the images of the paper's data by their names.

Nothing is decoded here. Every layout is read the same way on every system: names sorted, case ignored,
system files skipped, unpacked at any depth.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from mim_jax.data.dataset import printable
from mim_jax.data.folder import is_leftover, list_images, read_csv

# The classes of MSLD v2.0 that the paper uses: its 1,690 negatives contain no cowpox and no healthy skin.
_MSLD = {"monkeypox": "mpox", "chickenpox": "chickenpox", "measles": "measles", "hfmd": "hfmd"}
# v1.0 has one class for chickenpox and measles together; nothing in it distinguishes them.
_MSLD_V1 = {"monkeypox": "mpox", "others": "others"}
_ISIC = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
# The eight of 23 folders that the paper names, by name prefix.
_DERMNET = {
    "bullous": "bullous",
    "cellulitis": "bacterial_infection",
    "eczema": "eczema",
    "herpes": "hpv",
    "urticaria": "urticaria",
    "vasculartumor": "vascular_tumor",
    "vasculitis": "vasculitis",
    "warts": "viral_infection",
}

# Classes of the sources whose set of classes is fixed.
CLASSES: dict[str, tuple[str, ...]] = {
    "isic2018": tuple(sorted(_ISIC)),
    "dermnet": tuple(sorted(_DERMNET.values())),
}

_MSLD_V2_PATH = re.compile(r"(?:^|/)folds/fold([1-5])/(train|valid|test)[^/]*/([^/]+)/[^/]+$")
_MSLD_V1_PATH = re.compile(r"(?:^|/)original images/([^/]+)/[^/]+$")
# MKP_17_01 and M17_01: image 1 of patient 17.
_MSLD_PATIENT = re.compile(r"^[a-z]+_?(\d+)_\d+", re.IGNORECASE)
_DERMNET_PATH = re.compile(r"(?:^|/)(train|test)/([^/]+)/(?:[^/]+/)*[^/]+$")


@dataclass(frozen=True)
class Entry:
    """One image: its path below the folder, "/" between the parts; its class; its group, "" = unknown."""

    name: str
    label: str
    group: str = ""


@dataclass(frozen=True)
class Contents:
    """Contents of a folder: images sorted by name; (name, reason) of files refused, ungrouped or skipped."""

    title: str
    entries: tuple[Entry, ...]
    refused: tuple[tuple[str, str], ...] = ()
    ungrouped: tuple[tuple[str, str], ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()


def read_layout(source: str, folder: Path) -> Contents:
    """Read the downloaded folder of a source; ValueError says what is missing or wrong in it."""
    if source not in LAYOUTS:
        raise ValueError(f"unknown data source {source!r}: the known ones are {', '.join(sorted(LAYOUTS))}")
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise ValueError(
            f"the folder of {source}, {folder}, {state}: download and unpack the data set there, "
            "or leave this source out"
        )
    listing = list_images(folder)
    try:
        contents = LAYOUTS[source](folder, listing.names)
    except ValueError as error:
        raise ValueError(f"{error}{listing.note()}") from None
    return Contents(
        contents.title,
        tuple(sorted(contents.entries, key=lambda entry: printable(entry.name))),
        tuple(sorted([*contents.refused, *listing.refused])),
        tuple(sorted(contents.ungrouped)),
        tuple(listing.passed_over),
    )


def draw(entries: Iterable[Entry], *, seed: int) -> dict[str, list[Entry]]:
    """Shuffle the images of each class; the order of one class does not depend on the others."""
    classes: dict[str, list[Entry]] = {}
    for entry in entries:
        classes.setdefault(entry.label, []).append(entry)
    return {
        label: [members[i] for i in np.random.default_rng(seed).permutation(len(members))]
        for label, members in sorted(classes.items())
    }


def fingerprint(folder: Path, entries: Iterable[Entry]) -> str:
    """SHA-256 (hex) of names, classes, groups and file sizes: identifies the folder of a preparation."""
    sha = hashlib.sha256()
    for entry in entries:
        size = (folder / entry.name).stat().st_size
        sha.update(f"{printable(entry.name)}\0{entry.label}\0{entry.group}\0{size}\1".encode())
    return sha.hexdigest()


def _msld(folder: Path, names: list[str]) -> Contents:
    # The given folder may itself be an inner folder of the archive.
    paths = {name: f"{folder.resolve().name}/{name}".lower() for name in names}
    in_folds = [(name, match) for name, path in paths.items() if (match := _MSLD_V2_PATH.search(path))]
    in_originals = [
        (name, match[1])
        for name, path in paths.items()
        if (match := _MSLD_V1_PATH.search(path)) and _letters(match[1]) in _MSLD_V1
    ]
    if in_folds and in_originals:
        raise ValueError(
            f"the folder of msld, {folder}, holds versions 1.0 and 2.0 of MSLD: keep one, they share images"
        )
    if in_folds:
        return _msld_v2(folder, in_folds)
    if not in_originals:
        raise ValueError(
            f"the folder of msld, {folder}, has images neither in 'Original Images/FOLDS/fold1/Train' (2.0) "
            "nor in 'Original Images/Monkey Pox' (1.0): name the right folder, or download it again"
        )
    found = [(name, _MSLD_V1[_letters(label)]) for name, label in in_originals]
    _check_classes("msld", folder, {label for _, label in found}, _MSLD_V1.values())
    return _with_patients("MSLD v1.0", found)


def _msld_v2(folder: Path, found: list[tuple[str, re.Match[str]]]) -> Contents:
    """Read MSLD v2.0: each of its five folds holds all images, and each image is used once."""
    parts = {(match[1], match[2]) for _, match in found}
    missing = [
        f"fold{fold}/{part.title()}"
        for fold in "12345"
        for part in ("train", "valid", "test")
        if (fold, part) not in parts
    ]
    if missing:
        raise ValueError(
            f"the folder of msld, {folder}, is incomplete: no images in {', '.join(missing)}; "
            "download it again"
        )
    images: dict[str, tuple[str, str]] = {}
    seen: dict[tuple[str, ...], str] = {}
    for name, match in found:
        label = _MSLD.get(_letters(match[3]))
        if label is None:
            continue
        stem = PurePosixPath(name).stem.casefold()
        twin = seen.setdefault((*match.groups(), stem), name)
        if twin != name:
            raise ValueError(f"MSLD has one image twice, {twin} and {name}, in {folder}: keep one of them")
        first, known = images.setdefault(stem, (name, label))
        if known != label:
            raise ValueError(
                f"MSLD has one image in two classes, {first} and {name}, in {folder}: keep it in one of them"
            )
    _check_classes("msld", folder, {label for _, label in images.values()}, _MSLD.values())
    return _with_patients("MSLD v2.0", images.values())


def _with_patients(title: str, found: Iterable[tuple[str, str]]) -> Contents:
    entries = []
    for name, label in found:
        match = _MSLD_PATIENT.search(PurePosixPath(name).stem)
        entries.append(Entry(name, label, f"{label}/{int(match[1])}" if match else ""))
    ungrouped = [
        (entry.name, "no patient number in the file name; a group of its own")
        for entry in entries
        if not entry.group
    ]
    return Contents(title, tuple(entries), ungrouped=tuple(ungrouped))


def _isic2018(folder: Path, names: list[str]) -> Contents:
    truth_path, truth = _read_table(folder, "ISIC2018_Task3_Training_GroundTruth.csv", {"image", *_ISIC})
    lesion_path, lesions = _read_table(
        folder, "ISIC2018_Task3_Training_LesionGroupings.csv", {"image", "lesion_id"}
    )
    if foreign := sorted(set(truth[0]) - {"image", *_ISIC}):
        raise ValueError(
            f"{truth_path} has the unknown label {foreign[0].upper()!r}; the labels of ISIC 2018 task 3 are "
            f"{', '.join(label.upper() for label in _ISIC)}: take the file of that challenge"
        )
    labels = {row["image"]: _one_hot(row, truth_path) for row in truth}
    lesion_of = {row["image"]: row["lesion_id"] for row in lesions if row["lesion_id"]}
    if len(labels) < len(truth):
        raise ValueError(f"{truth_path} names {len(truth) - len(labels)} images twice: download it again")
    if len(lesion_of) < sum(bool(row["lesion_id"]) for row in lesions):
        raise ValueError(f"{lesion_path} names an image twice: download it again")
    paths: dict[str, str] = {}
    wanted = {image.upper() for image in labels}
    for name in names:
        stem = PurePosixPath(name).stem.upper()
        if stem in wanted and (twin := paths.setdefault(stem, name)) != name:
            raise ValueError(
                f"{folder} holds two files of one image, {twin} and {name}: move thumbnails and copies away"
            )
    if lost := [image for image in labels if image.upper() not in paths]:
        raise ValueError(
            f"{truth_path} names {len(lost)} images that are not below {folder}, such as {lost[0]}: "
            "unpack ISIC2018_Task3_Training_Input.zip there, completely"
        )
    if lost := [image for image in labels if image not in lesion_of]:
        raise ValueError(
            f"{lesion_path} has no lesion for {len(lost)} images of the ground truth, such as {lost[0]}: "
            "download it again"
        )
    _check_classes("isic2018", folder, set(labels.values()), _ISIC)
    entries = tuple(Entry(paths[image.upper()], label, lesion_of[image]) for image, label in labels.items())
    return Contents("ISIC 2018 task 3", entries)


def _one_hot(row: dict[str, str], path: Path) -> str:
    try:
        values = {label: float(row[label]) for label in _ISIC}
    except ValueError:
        values = {}
    if sorted(values.values()) != [0.0] * (len(_ISIC) - 1) + [1.0]:
        raise ValueError(
            f"{path} must have one 1 and otherwise 0 in each row; the row of {row['image']!r} does not: "
            "download it again"
        )
    return max(values, key=values.__getitem__)


def _dermnet(folder: Path, names: list[str]) -> Contents:
    found: dict[tuple[str, str], list[str]] = {}
    for name in names:
        match = _DERMNET_PATH.search(name.lower())
        if not match:
            continue
        # No prefix is the beginning of another; melanoma, psoriasis and the other folders match none.
        label = next((_DERMNET[start] for start in _DERMNET if _letters(match[2]).startswith(start)), "")
        if label:
            found.setdefault((match[1], label), []).append(name)
    wanted = [(part, label) for part in ("train", "test") for label in _DERMNET.values()]
    missing = ["/".join(pair) for pair in wanted if pair not in found]
    if missing:
        raise ValueError(
            f"the folder of dermnet, {folder}, is incomplete: no images in {', '.join(missing)} "
            "(by the names of the paper's classes); download it again, with its folders train and test"
        )
    # The names do not tell which images show the same patient.
    entries = tuple(Entry(name, label) for (_, label), members in found.items() for name in members)
    return Contents("Dermnet", entries)


def _clinical(folder: Path, names: list[str]) -> Contents:
    stray = tuple((name, "not in a class folder") for name in names if "/" not in name)
    folders: dict[str, set[str]] = {}
    for path in folder.iterdir():
        if path.is_dir() and not is_leftover(path.name):
            folders.setdefault(_label(path.name), set()).add(path.name)
    entries = tuple(Entry(name, _label(name.split("/")[0])) for name in names if "/" in name)
    if mpox := sorted(label for label in folders if _letters(label) in ("mpox", "monkeypox")):
        raise ValueError(
            f"the clinical folder {folder} has a class {mpox[0]!r}: it must hold negatives only, because the "
            "clinical test takes its mpox images from the test folds; move that folder away"
        )
    if not entries:
        raise ValueError(
            f"the clinical folder {folder} holds no negatives: put images into one folder per class, such as "
            f"{folder}/hospital and {folder}/normal"
        )
    for label, spellings in sorted(folders.items()):
        if len(spellings) > 1:
            listed = " and ".join(sorted(spellings))
            raise ValueError(
                f"the clinical folder {folder} has the class {label!r} twice, as {listed}: keep one of them"
            )
    if empty := sorted(set(folders) - {entry.label for entry in entries}):
        raise ValueError(
            f"the clinical folder {folder} has no images in {empty[0]!r}: fill that folder or move it away"
        )
    return Contents("clinical images", entries, stray)


# Data source -> reader of its folder.
LAYOUTS: dict[str, Callable[[Path, list[str]], Contents]] = {
    "msld": _msld,
    "isic2018": _isic2018,
    "dermnet": _dermnet,
    "clinical": _clinical,
}


def _check_classes(source: str, folder: Path, found: set[str], wanted: Iterable[str]) -> None:
    if missing := sorted(set(wanted) - found):
        raise ValueError(
            f"the folder of {source}, {folder}, is incomplete: no images of {', '.join(missing)}; "
            "download it again"
        )


def _read_table(folder: Path, file: str, columns: set[str]) -> tuple[Path, list[dict[str, str]]]:
    """Read the only CSV file of that name below `folder`: column names in lower case, cells stripped."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower() == file.lower()
        and path.is_file()
        and not any(map(is_leftover, path.relative_to(folder).parts))
    )
    if len(found) != 1:
        raise ValueError(
            f"the folder of isic2018, {folder}, must hold one file {file}; it holds {len(found)}"
        )
    held, rows = read_csv(found[0])
    if missing := sorted(columns - set(held)):
        listed = ", ".join(held) or "none"
        raise ValueError(f"{found[0]} lacks the column {missing[0]!r}; it has {listed}: download it again")
    if not rows:
        raise ValueError(f"{found[0]} has no rows: download it again")
    return found[0], rows


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _label(name: str) -> str:
    """`Herpes zoster` -> `herpes_zoster`."""
    return "_".join(re.findall(r"\w+", printable(name).lower().replace("_", " "))) or name
