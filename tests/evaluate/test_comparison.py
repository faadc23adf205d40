"""Finished runs read back, compared on the same images, and the page that says who wins."""

import csv
import json
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from mim_jax.classifiers import ood_scores
from mim_jax.evaluate import comparison
from mim_jax.evaluate.comparison import compare
from mim_jax.evaluate.saved_run import read_run
from tests.invented_runs import CLASSES, FOLDS, KNOWN, RESAMPLES, a_workdir, fold_rows, four_workdirs


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
    assert not any(seen.any() for seen in ours.seen)
    table = table_of(folders[0], 1, "resnet50")
    fold = resnet.folds[1]
    assert fold.names.tolist() == [row["name"] for row in table]
    assert fold.plain.tolist() == [row["plain"] == "True" for row in table]
    assert resnet.seen[1].tolist() == [row["seen"] == "True" for row in table]
    assert list(fold.similarities) == list(ood_scores.SCORES)
    assert fold.similarities["energy"].tolist() == [float(row["energy"]) for row in table]
    assert len(resnet.clinical) == FOLDS and resnet.clinical[0].groups[11] == "c11"


def test_views_hold_the_images_that_they_name(folders, found):
    again = comparison.run_names([read_run(folder) for folder in folders])[3]
    assert again == f"resnet50 ({folders[3].as_posix()})" and again in found["runs"]
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
    # Six images of each known class, two in each fold; the other classes whole in all.
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


def test_without_clinical_tests_or_unknown_classes_a_view_is_missing(tmp_path, runs):
    def no_unknown(fold, table):
        return [row for row in table if row["class"] not in ("acne", "nv")]

    bare = read_run(a_workdir(tmp_path / "bare", "swin_b", clinical=False, edit=no_unknown))
    views = compare([bare], resamples=RESAMPLES, seed=0)["views"]
    assert views["open"] is None and views["clinical"] is None and views["paper"]


def test_damaged_workdirs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no results\.json: finish that run"):
        read_run(tmp_path)

    def folder(name, edit=None, method="resnet50"):
        return a_workdir(tmp_path / name, method, edit=edit)

    def without(column):
        return lambda fold, table: [{k: v for k, v in row.items() if k != column} for row in table]

    def changed(column, value):
        return lambda fold, table: [{**table[0], column: value}, *table[1:]]

    for edit, words in (
        (without("seen"), "no column 'seen'"),
        (without("energy"), "no column 'energy'"),
        (changed("msp", "high"), "msp is 'high', which is no number"),
        (changed("msp", "nan"), "msp of mpox/0-0 is nan"),
        (changed("plain", "yes"), "plain is 'yes', neither True nor False"),
        (changed("method", "vgg"), None),
    ):
        path = folder(words or "fine", edit)
        if words:
            with pytest.raises(ValueError, match=rf"fold_0.scores\.csv cannot be read .*{words}"):
                read_run(path)
        else:
            assert len(read_run(path).folds[0]) == len(fold_rows(0)) - 1
    gone = folder("gone")
    (gone / "fold_2" / "scores.csv").unlink()
    with pytest.raises(ValueError, match=r"fold_2.scores\.csv does not exist"):
        read_run(gone)
    (gone / "fold_2" / "clinical.csv").unlink()
    other = folder("other", lambda fold, table: [{**row, "method": "vgg"} for row in table])
    with pytest.raises(ValueError, match="holds no scores by resnet50 in fold 0"):
        read_run(other)
    cut = folder("cut")
    file = cut / "fold_1" / "scores.csv"
    file.write_text(file.read_text()[:-30])
    with pytest.raises(ValueError, match=r"fold_1.scores\.csv cannot be read \(line"):
        read_run(cut)


def test_runs_that_do_not_belong_together_are_refused(tmp_path, runs):
    with pytest.raises(ValueError, match="no classifier is among the 1 runs"):
        compare(runs[1:2], resamples=9, seed=0)
    with pytest.raises(ValueError, match="given twice"):
        compare([runs[0], runs[0]], resamples=9, seed=0)
    second = read_run(a_workdir(tmp_path / "second", "mim"))
    with pytest.raises(ValueError, match="both runs of MIM"):
        compare([runs[0], runs[1], second], resamples=9, seed=0)

    def other_patient(fold, table):
        return [{**row, "group": "x"} if fold == 1 and row["name"] == "nv/3" else row for row in table]

    def fewer(fold, table):
        return table[:-1] if fold == 2 else table

    for edit, words in (
        (other_patient, r"test image 47 of fold 1 has the group nv-3 there, x here"),
        (fewer, "fold 2 has 50 test images there, 49 here"),
    ):
        run = read_run(a_workdir(tmp_path / edit.__name__, "swin_b", edit=edit))
        with pytest.raises(ValueError, match=rf"r and .*{edit.__name__} do not hold the same .*{words}"):
            compare([runs[0], run], resamples=9, seed=0)
    run = read_run(a_workdir(tmp_path / "known", "swin_b"))
    run.results["known"].remove("hfmd")
    with pytest.raises(ValueError, match="trained on other classes"):
        compare([runs[0], run], resamples=9, seed=0)
