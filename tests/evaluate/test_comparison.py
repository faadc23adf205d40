"""Finished runs are read back and compared on the same images; unsuitable runs are refused."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mim_jax.classifiers import ood_scores
from mim_jax.evaluate import comparison
from mim_jax.evaluate.comparison import compare
from mim_jax.evaluate.saved_run import network_name, read_run
from tests.invented_runs import CLASSES, FOLDS, KNOWN, RESAMPLES, a_workdir, four_workdirs


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return four_workdirs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def runs(folders):
    return [read_run(folder) for folder in folders]


@pytest.fixture(scope="module")
def found(runs):
    return compare(runs, resamples=RESAMPLES, seed=0)


def table_of(folder, fold, method, name="scores.csv"):
    with (folder / f"fold_{fold}" / name).open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["method"] == method]


def test_a_run_is_read_as_it_lies_on_disk(folders, runs):
    resnet, ours = runs[:2]
    assert (ours.method, ours.primary, set(ours.baselines)) == (
        "mim",
        "ssim_hbd",
        {"autoencoder", "color_neighbors"},
    )
    assert list(ours.baselines["color_neighbors"][0].similarities) == ["score"]
    assert not any(fold.seen.any() for fold in ours.folds)
    table = table_of(folders[0], 1, "resnet50")
    fold = resnet.folds[1]
    assert fold.names.tolist() == [row["name"] for row in table]
    assert fold.plain.tolist() == [row["plain"] == "True" for row in table]
    assert fold.seen.tolist() == [row["seen"] == "True" for row in table]
    assert list(fold.similarities) == list(ood_scores.SCORES)
    assert fold.similarities["energy"].tolist() == [float(row["energy"]) for row in table]
    assert len(resnet.clinical) == FOLDS and resnet.clinical[0].groups[11] == "c11"


def test_views_hold_the_images_that_they_name(folders, found):
    again = comparison.run_names([read_run(folder) for folder in folders])[3]
    assert again == "resnet50 (again)" and again in found["runs"]
    assert next(iter(found["runs"])) == found["reference"] == "mim"
    for name, entry in found["methods"].items():
        if entry["run"] is None:
            continue
        run = found["runs"][entry["run"]]
        score = "ssim_hbd" if name == "mim" else entry["score"]
        for view in ("paper", "all", "open", "clinical"):
            known = view == "open"
            if known and score not in ood_scores.KNOWN:
                assert name not in found["views"]["open"]["auroc"]["augmented"]
                continue
            values = found["views"][view]["auroc"]["augmented"][name]["score"]
            for fold in range(FOLDS):
                file = "clinical.csv" if view == "clinical" else "scores.csv"
                rows = table_of(Path(run["path"]), fold, run["method"], file)
                marks = [row["seen"] == "True" for row in table_of(folders[0], fold, "resnet50", file)]
                kept = [
                    row
                    for row, seen in zip(rows, marks, strict=True)
                    if not (seen and view in ("paper", "open"))
                ]
                labels = [row["positive"] == "True" or (known and row["class"] in KNOWN) for row in kept]
                expected = roc_auc_score(labels, [float(row[score]) for row in kept])
                assert values["folds"][fold]["value"] == pytest.approx(expected, abs=1e-12)
    assert found["images"][0] == {
        "fold": 0,
        "augmented": 20,
        "plain": 4,
        "known": 6,
        "unknown": 12,
        "seen": 12,
    }


def test_differences_are_the_references_and_the_best_score_is_picked(found):
    paper = found["views"]["paper"]
    means = {name: own["score"]["mean"] for name, own in paper["auroc"]["augmented"].items()}
    for name, difference in paper["differences"].items():
        assert difference["score"]["mean"] == pytest.approx(means["mim"] - means[name])
    others = {
        name: means[name]
        for name, entry in found["methods"].items()
        if entry["score"] in ood_scores.SCORES and entry["score"] != "probability"
    }
    assert len(others) == 21 and found["best_score"] == max(others, key=others.get)
    # Six images of each class: two of a known class in each fold, all of another class in every fold.
    assert {name: own["n"] for name, own in paper["per_class"]["mim"].items()} == dict.fromkeys(CLASSES, 6)
    assert json.loads(json.dumps(found)) == found


def test_one_classifier_alone_or_several_without_mim(folders, runs):
    alone = compare(runs[:1], resamples=RESAMPLES, seed=0)
    assert alone["reference"] == "resnet50.probability" and alone["shown"] == ["resnet50.probability"]
    two = compare([runs[2], runs[0]], resamples=RESAMPLES, seed=0)
    assert two["reference"] == "swin_b.probability"
    assert two["shown"] == ["swin_b.probability", "resnet50.probability"]
    both = two["views"]["paper"]["auroc"]["augmented"]["resnet50.energy"]
    one = alone["views"]["paper"]["auroc"]["augmented"]["resnet50.energy"]
    assert both["score"]["folds"] == one["score"]["folds"]


def test_detectors_alone_or_beside_classifiers(tmp_path, runs):
    second = read_run(a_workdir(tmp_path / "second", "mim", seed=5, gap=0.5))
    frozen = read_run(a_workdir(tmp_path / "frozen", "features", seed=6, gap=2.5))
    three = compare([frozen, runs[1], second], resamples=RESAMPLES, seed=0)
    shown = ["features", "mim (mim)", "mim (second)"]
    assert (three["reference"], three["shown"], three["best_score"], three["known"]) == (
        "features",
        shown,
        None,
        [],
    )
    assert list(three["methods"]) == shown  # only baselines of the first run are shown, and it has none
    aurocs = three["views"]["paper"]["auroc"]["augmented"]
    rows = table_of(second.path, 0, "mim")
    labels, scores = [row["positive"] == "True" for row in rows], [float(row["ssim_hbd"]) for row in rows]
    found = aurocs["mim (second)"]["score"]["folds"][0]["value"]
    assert found == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert three["views"]["open"] is None and three["views"]["clinical"]
    mixed = compare([runs[0], frozen, second], resamples=RESAMPLES, seed=0)
    assert mixed["shown"] == ["features", "mim", "resnet50.probability"]
    assert set(mixed["views"]["open"]["auroc"]["augmented"]) == {f"resnet50.{n}" for n in ood_scores.KNOWN}


def test_without_clinical_tests_or_unknown_classes_a_view_is_missing(tmp_path, runs):
    def no_unknown(fold, images):
        return images.select(~np.isin(images.classes, ("acne", "nv")))

    bare = read_run(a_workdir(tmp_path / "bare", "swin_b", clinical=False, edit=no_unknown))
    views = compare([bare], resamples=RESAMPLES, seed=0)["views"]
    assert views["open"] is None and views["clinical"] is None and views["paper"]


def test_damaged_workdirs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no results\.json: finish that run"):
        read_run(tmp_path)

    path = a_workdir(tmp_path / "run", "resnet50")
    file = path / "fold_1" / "scores.csv"
    whole = file.read_text()
    file.write_text(whole[:-30])
    with pytest.raises(ValueError, match=r"fold_1.scores\.csv cannot be read \(line"):
        read_run(path)
    for column in ("seen", "energy"):  # which a classifier's table must hold
        file.write_text(whole.replace(column, "other", 1))
        with pytest.raises(
            ValueError, match=rf"fold_1.scores\.csv cannot be read \(it has no column '{column}'"
        ):
            read_run(path)
    file.write_text(whole.replace("resnet50", "vgg"))
    with pytest.raises(ValueError, match="holds no scores by resnet50 in fold 1"):
        read_run(path)
    file.write_text(whole)
    clinical = path / "fold_2" / "clinical.csv"
    clinical.write_text(clinical.read_text().replace("resnet50", "vgg"))
    with pytest.raises(ValueError, match=r"fold_2.clinical\.csv holds no scores by resnet50"):
        read_run(path)
    clinical.unlink()
    with pytest.raises(ValueError, match=r"fold_2.clinical\.csv does not exist"):
        read_run(path)


def test_runs_that_do_not_belong_together_are_refused(tmp_path, runs):
    with pytest.raises(ValueError, match=r"only .*mim was given"):
        compare(runs[1:2], resamples=9, seed=0)
    with pytest.raises(ValueError, match="given twice"):
        compare([runs[0], runs[0]], resamples=9, seed=0)

    def other_patient(fold, images):
        there = (images.names == "nv/3") & (fold == 1)
        return replace(images, groups=np.where(there, "x", images.groups))

    def fewer(fold, images):
        return images.select(np.arange(len(images) - (fold == 2)))

    for edit, words in (
        (other_patient, r"test image 47 of fold 1 has the group nv-3 in the first, x in the second"),
        (fewer, "fold 2 has 50 test images in the first, 49 in the second"),
    ):
        run = read_run(a_workdir(tmp_path / edit.__name__, "swin_b", edit=edit))
        with pytest.raises(ValueError, match=rf"r and .*{edit.__name__} do not hold the same .*{words}"):
            compare([runs[0], run], resamples=9, seed=0)
    run = read_run(a_workdir(tmp_path / "known", "swin_b"))
    run.results["known"].remove("hfmd")
    with pytest.raises(ValueError, match="trained on different classes"):
        compare([runs[0], run], resamples=9, seed=0)


def test_width_and_size_belong_to_the_name_of_a_network(tmp_path):
    def name(method, **settings):
        run = read_run(a_workdir(tmp_path / method / str(len(settings)), method))
        config = {"data": {"image_size": 224}, "classifier": {"width": 0.25}, "generator": {"width": 16}}
        return network_name(replace(run, results={**run.results, "config": config | settings}))

    assert name("mobilenet_v3_large", data={"image_size": 64}) == "MobileNetV3-Large (width 0.25, 64 px)"
    assert name("mobilenet_v3_large", classifier={"width": 1.0}, generator={}) == "MobileNetV3-Large"
    assert name("mim") == "MIM (width 0.25)"
