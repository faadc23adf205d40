"""Invented finished runs on disk, of MIM and of classifiers, for the tests of the comparison."""

import csv
import json

import numpy as np

from mim_jax.classifiers import ood_scores
from mim_jax.measure import METRICS
from tests.invented import HOSTILE

KNOWN = ("chickenpox", "measles", "hfmd")
CLASSES = (*KNOWN, "acne", "nv")
FOLDS = 3
COPIES = 5
RESAMPLES = 50


def fold_rows(fold, *, positives=4, of_class=6):
    """The images of a fold as columns of scores.csv; a third of the known ones is not seen."""
    rows = []
    for i in range(positives):
        for copy in range(COPIES):
            rows.append(("mpox", f"mpox/{fold}-{i}", f"m{fold}-{i // 2}", copy, False))
    for name in CLASSES:
        for i in range(of_class):
            rows.append((name, f"{name}/{i}", f"{name}-{i}", 0, name in KNOWN and i % FOLDS != fold))
    return [
        {
            "fold": fold,
            "name": name,
            "class": label,
            "group": group,
            "copy": copy,
            "augmented": True,
            "plain": copy == 0,
            "positive": label == "mpox",
            "seen": seen,
        }
        for label, name, group, copy, seen in rows
    ]


def clinical_rows(fold, *, count=10):
    return [
        {
            "fold": fold,
            "name": f"image {i}",
            "class": "positive" if i < count else "negative",
            "group": f"m{fold}-{i % 2}" if i < count else f"c{i}",
            "copy": 0,
            "augmented": True,
            "plain": True,
            "positive": i < count,
            "seen": False,
        }
        for i in range(2 * count)
    ]


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


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
    edit=None,
):
    """A finished run of `method` with random scores, positives higher by `gap`."""
    generator = np.random.default_rng(seed)
    is_mim = method == "mim"
    names = (*METRICS, "score") if is_mim else ood_scores.SCORES

    def scored(rows, name, held):
        table = []
        for row in rows:
            values = {n: generator.normal(gap * row["positive"]) if n in held else "" for n in names}
            table.append({**row, "method": name, **values, "decision": ""})
            if is_mim:
                del table[-1]["seen"]
        return table

    methods = {
        "mim": METRICS,
        "autoencoder": METRICS,
        "brightness": ("score",),
        "color_neighbors": ("score",),
    }
    splits = []
    for fold in range(FOLDS):
        rows = fold_rows(fold)
        table = [
            row
            for name, held in (methods.items() if is_mim else [(method, names)])
            for row in scored(rows, name, held)
        ]
        if edit:
            table = edit(fold, table)
        write_rows(path / f"fold_{fold}" / "scores.csv", table)
        if clinical:
            held = METRICS if is_mim else names
            write_rows(path / f"fold_{fold}" / "clinical.csv", scored(clinical_rows(fold), method, held))
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
        results["decision"] = {"metric": "ssim_hbd"}
        results["training"]["parameters"] = {"generator": 40401187, "discriminator": 1555585}
    else:
        results |= {"kind": "classifier", "method": method, "known": list(KNOWN), "merged": merged}
    (path / "results.json").write_text(json.dumps(results))
    return path


def four_workdirs(root):
    """MIM beside three classifiers, two of which are of one kind."""
    return [
        a_workdir(root / "r", "resnet50", seed=1, gap=-1.0),
        a_workdir(root / "mim", "mim", seed=2, gap=1.5, notice="Procedural.", size=224),
        a_workdir(root / "s", "swin_b", seed=3, gap=-0.5, merged=False, pretrained="swin.safetensors"),
        a_workdir(root / "again", "resnet50", seed=4, gap=9.0),
    ]
