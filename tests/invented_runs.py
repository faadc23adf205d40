"""Invented finished runs on disk, of MIM and classifiers, for the tests of the comparison."""

import json
from dataclasses import replace

import numpy as np

from mim_jax.classifiers import ood_scores
from mim_jax.evaluate.method_names import DETECTORS
from mim_jax.evaluate.scores import ScoredImages, write_scores
from mim_jax.measure import METRICS
from tests.invented import HOSTILE

KNOWN = ("chickenpox", "measles", "hfmd")
CLASSES = (*KNOWN, "acne", "nv")
FOLDS = 3
COPIES = 5
RESAMPLES = 50


def fold_images(fold, *, positives=4, of_class=6):
    """Test images of a fold, without scores; two thirds of the known classes count as seen in training."""
    rows = []
    for i in range(positives):
        for copy in range(COPIES):
            rows.append(("mpox", f"mpox/{fold}-{i}", f"m{fold}-{i // 2}", copy, False))
    for name in CLASSES:
        for i in range(of_class):
            rows.append((name, f"{name}/{i}", f"{name}-{i}", 0, name in KNOWN and i % FOLDS != fold))
    return _images(*zip(*rows, strict=True))


def clinical_images(fold, *, count=10):
    index = range(2 * count)
    return _images(
        ["positive" if i < count else "negative" for i in index],
        [f"image {i}" for i in index],
        [f"m{fold}-{i % 2}" if i < count else f"c{i}" for i in index],
        [0 for _ in index],
        [False for _ in index],
    )


def _images(classes, names, groups, copies, seen):
    classes, copies = np.array(classes), np.array(copies)
    return ScoredImages(
        names=np.array(names),
        classes=classes,
        groups=np.array(groups),
        copies=copies,
        positive=np.isin(classes, ("mpox", "positive")),
        augmented=np.ones(len(classes), bool),
        plain=copies == 0,
        similarities={},
        seen=np.array(seen),
    )


def a_workdir(
    path,
    method,
    *,
    seed=0,
    gap=1.0,
    clinical=True,
    merged=True,
    notice=None,
    size=96,
    pretrained="",
    edit=lambda fold, images: images,
):
    """Write a finished run with random scores, positives higher by `gap`; `edit` may change the images."""
    generator = np.random.default_rng(seed)
    is_mim = method in DETECTORS
    held = METRICS if method == "mim" else (method,) if is_mim else ood_scores.SCORES
    columns = (*METRICS, *DETECTORS[1:], "score") if is_mim else ood_scores.SCORES
    methods = {method: held}
    if method == "mim":
        methods |= {"autoencoder": METRICS, "brightness": ("score",), "color_neighbors": ("score",)}

    def scored(images, held):
        return replace(images, similarities={n: generator.normal(gap * images.positive) for n in held})

    def write(file, fold, table):
        write_scores(file, fold, table, scores=columns, seen=not is_mim)

    splits = []
    for fold in range(FOLDS):
        folder = path / f"fold_{fold}"
        folder.mkdir(parents=True)
        images = edit(fold, fold_images(fold))
        write(folder / "scores.csv", fold, {name: scored(images, held) for name, held in methods.items()})
        if clinical:
            write(folder / "clinical.csv", fold, {method: scored(clinical_images(fold), methods[method])})
        own = {"train": 8} if is_mim else {"train": {"chickenpox": 4, "hfmd": 4, "measles": 4, "mpox": 8}}
        splits.append({"fold": fold, **own, "test": 4, "augmented": 20})
    results = {
        "title": f"{method} on a folder",
        "notice": notice,
        "data": {
            "source": HOSTILE,
            "positive": "mpox",
            "classes": {"mpox": 12, **dict.fromkeys(CLASSES, 6)},
            "class_groups": {"pox_like": list(KNOWN), "dermoscopy": ["nv"]},
        },
        "splits": splits,
        "training": {"epochs": 300, "parameters": {method: 1234567}, "pretrained": pretrained},
        "environment": {"device": "cpu"},
        "seed": 0,
        "config": {
            "data": {"image_size": size},
            "features": {"backbone": "open_nsfw"},
            "training": {"batch_size": 128},
            "optimizer": {"learning_rate": 1e-3, "decay": "cosine"},
        },
        "wall_time": {"train": [60.0] * FOLDS, "evaluate": 1.0, "total": 200.0},
        "clinical": {
            "sigma": 0.05,
            "images": {"positives": 10, "negatives": 10},
            "classes": {"normal": 4, "hospital": 6},
        }
        if clinical
        else None,
    }
    if is_mim:
        results |= {"reference": method, "decision": {"metric": "ssim_hbd" if method == "mim" else method}}
        results["training"]["parameters"] = {"generator": 40401187, "discriminator": 1555585}
    else:
        results |= {"kind": "classifier", "method": method, "known": list(KNOWN), "merged": merged}
    (path / "results.json").write_text(json.dumps(results))
    return path


def four_workdirs(root):
    """Workdirs of MIM and three classifiers, two of them of the same kind."""
    return [
        a_workdir(root / "r", "resnet50", seed=1, gap=-1.0),
        a_workdir(root / "mim", "mim", seed=2, gap=1.5, notice="Procedural.", size=224),
        a_workdir(root / "s", "swin_b", seed=3, gap=-0.5, merged=False, pretrained="swin.safetensors"),
        a_workdir(root / "again", "resnet50", seed=4, gap=1.5),
    ]
