"""Runs as a user starts them: trained, killed, resumed, evaluated, scored, exported and served."""

import csv
import json
import shutil
import signal
import time
import urllib.request
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from launching import LIMIT, QUICKLY, TINY, finish, launch, start, tiny
from PIL import Image

from configs.mim import get_config
from mim_jax import Detector, load_exported, load_image
from mim_jax.cli import main, runs, score
from mim_jax.data.images import decode_image
from mim_jax.data.synthetic import lesions
from mim_jax.detector.workdir import load_networks
from mim_jax.evaluate.baselines.image_statistics import STATISTICS
from mim_jax.evaluate.baselines.inpainting import FILLS
from mim_jax.train.checkpoints import parameter_hash
from mim_jax.train.config import parse
from mim_jax.train.workdir import read_json, write_json


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run, from launch to report."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    launch(*tiny(workdir), **QUICKLY)
    return workdir


def execute(mode, workdir, *paths, **fields):
    """Run a mode in this process; return its exit status."""
    config = get_config("quick")
    config.update_from_flattened_dict({**TINY, **fields})
    given = {"config": config.to_dict(), "workdir": str(workdir), "paths": list(map(str, paths))}
    return main.execute(mode, device="auto", **given)


def without_times(path):
    """Contents of results.json and metrics.jsonl, without times."""
    results = json.loads((path / "results.json").read_text())
    results.pop("wall_time")
    return results, events_without_times(path)


def pickles(folder):
    """Files that are pickles by name or content, or archives (NumPy's, PyTorch's) that may hold some."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        pickled = content[:1] == b"\x80" and content[1:2] <= b"\x05" and content.endswith(b".")
        if pickled or path.suffix in (".pkl", ".pickle") or zipfile.is_zipfile(path):
            found.append(path.name)
    return found


def events_without_times(path):
    events = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        event.pop("seconds", None), event.pop("images_per_s", None)
    return events


def test_a_run_leaves_what_the_readme_names(finished):
    results, events = without_times(finished)
    page = (finished / "report.html").read_text()
    assert "say nothing about mpox" in page
    for fold in results["auroc"]["augmented"]["mim"]["ssim_hbd"]["folds"]:
        assert f"{fold['value']:.4f}" in page
        assert fold["low"] is fold["high"] is None  # four or five groups are too few
    networks, several = {"mim", "autoencoder", "untrained"}, {"holes_mean", "holes_min", "mask_region"}
    assert set(results["auroc"]["augmented"]) == {*networks, *several, *FILLS, *STATISTICS}
    assert set(results["variants"]) == several
    assert results["clinical"]["images"]["negatives"] == 18
    assert results["robustness"]["images"] == {
        "positives": [3, 3], "negatives": 3, "of_positives": [6, 6], "of_negatives": 18
    }  # fmt: skip
    assert results["robustness"]["limit"] == 3
    assert [row["train"] + row["test"] for row in results["splits"]] == [12, 12]
    assert [row["augmented"] for row in results["splits"]] == [5 * row["test"] for row in results["splits"]]
    assert [event["role"] for event in events] == ["mim"] * 12 + ["autoencoder"] * 12
    assert list((finished / "tensorboard").rglob("events*"))
    assert list((finished / "figures").glob("*.png"))
    for fold in range(2):
        lines = (finished / f"fold_{fold}" / "scores.csv").read_text().splitlines()
        methods = len(results["auroc"]["augmented"])
        assert len(lines) == 1 + methods * (5 * results["splits"][fold]["test"] + 18)
    assert "not a medical device" in (finished / "model_card.md").read_text().lower()
    assert not pickles(finished)


def test_every_auroc_follows_from_scores_csv(finished):
    """Recompute the table from the file by comparing pairs; ties count half."""
    results, _ = without_times(finished)
    for fold in range(2):
        rows = list(csv.DictReader((finished / f"fold_{fold}" / "scores.csv").read_text().splitlines()))
        for method in ("mim", "mean_fill"):
            for kind in ("augmented", "plain"):
                own = [row for row in rows if row["method"] == method and row[kind] == "True"]
                high = np.array([float(row["hbd"]) for row in own if row["positive"] == "True"])
                low = np.array([float(row["hbd"]) for row in own if row["positive"] == "False"])
                wins = (high[:, None] > low[None]).mean() + 0.5 * (high[:, None] == low[None]).mean()
                found = results["auroc"][kind][method]["hbd"]["folds"][fold]["value"]
                assert found == pytest.approx(wins, abs=1e-12)


def test_a_run_stopped_in_an_epoch_and_killed_in_a_save_ends_as_an_uninterrupted_one(finished, tmp_path):
    workdir, cache = tmp_path / "run", tmp_path / "cache"
    environment = {**QUICKLY, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    metrics = workdir / "metrics.jsonl"

    def events():
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    def recorded(before):
        return events() > before

    def saving(before):
        return any(".orbax-checkpoint-tmp" in str(path) for path in workdir.glob("fold_1/checkpoints/*"))

    for number, status, moment in ((signal.SIGTERM, 0, recorded), (signal.SIGKILL, -signal.SIGKILL, saving)):
        before = events()
        process = start("launch.py", *tiny(workdir, "--mode=train"), **environment)
        while process.poll() is None and not moment(before):
            time.sleep(0.0005)
        process.send_signal(number)
        ((_, said),) = finish(process, expect=status)
        if status >= 0:
            assert "and saved: the same command with the same --workdir resumes" in said
    launch(*tiny(workdir, "--mode=train"), **environment)
    assert len(list((cache / "traced").iterdir())) == 1  # by the first start, for every training of all three
    assert events_without_times(workdir) == events_without_times(finished)
    hashes = json.loads((finished / "results.json").read_text())["training"]["parameter_hash"]
    assert [parameter_hash(each) for each in load_networks(workdir).variables] == hashes


def test_a_finished_run_is_not_trained_again(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    before = (copy / "metrics.jsonl").read_text()
    # Evaluated again, by another metric and without the slowest parts.
    short = dict.fromkeys(("evaluation.robustness_images", "evaluation.procedural_clinical"), 0)
    fields = {**short, "evaluation.metric": "hbd", "evaluation.more_holes": 1}
    assert execute("run", copy, **fields) == 0
    assert (copy / "metrics.jsonl").read_text() == before
    results = json.loads((copy / "results.json").read_text())
    assert results["decision"]["metric"] == "hbd"
    assert results["clinical"] is None and results["robustness"] is None


def test_other_images_are_refused(finished, tmp_path, capsys):
    """Folds made again from other images would test on training images."""
    copy = shutil.copytree(finished, tmp_path / "copy")
    write_json(copy / "data.json", {**read_json(copy / "data.json"), "digest": "0" * 64}, sealed=True)
    assert execute("evaluate", copy) == 1
    assert "the images differ from those that the workdir" in capsys.readouterr().err


def test_evaluating_what_was_never_trained_leaves_no_trace(tmp_path, capsys):
    assert execute("evaluate", tmp_path / "typo") == 1
    assert "is not the workdir of a run" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_another_configuration_is_refused_with_the_difference(finished, capsys):
    assert execute("run", finished, **{"training.epochs": 7}) == 1
    assert "training.epochs: 6 there, 7 here" in capsys.readouterr().err


def test_scores_of_files_and_folders(finished, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(lesions.render("mpox", i, size=48)).save(folder / f"{i}.png")
    (folder / "text.jpg").write_text("not an image")
    Image.fromarray(lesions.render("mpox", 0, size=31)).save(folder / "small.png")
    assert execute("score", finished, folder, "nowhere.png") == score.UNUSABLE_FILES
    said = capsys.readouterr().out
    assert said.count("unusable:") == 3
    assert "no such file" in said
    lines = (finished / "scored.csv").read_text().splitlines()
    assert len(lines) == 7
    rows = list(csv.DictReader(lines))
    assert {"file", "decision", "reason", "p_value", "ssim_hbd", "ssim_hbd_fold_1"} <= set(rows[0])
    detector = Detector.load(finished)
    scored = [row for row in rows if row["p_value"]]
    images = [load_image(row["file"], size=32) for row in scored]
    for row, found in zip(scored, detector.assess(images, alpha=0.1), strict=True):
        assert (row["decision"], row["reason"]) == (found.decision, " ".join(found.reasons))
        assert (
            float(row["p_value"]) == found.p_value
            and f"of {detector.calibration.count} mpox cases" in row["reason"]
        )
    assert [row["decision"] for row in rows if not row["p_value"]] == ["unusable"] * 3


def test_no_group_calibrates_what_judges_it(finished):
    """On a real run: cutoffs follow from the scores in scores.csv of groups that they do not judge."""
    saved = json.loads((finished / "calibration.json").read_text())
    tables = [
        [
            row
            for row in csv.DictReader((finished / f"fold_{fold}" / "scores.csv").read_text().splitlines())
            if row["method"] == "mim" and row["plain"] == "True"
        ]
        for fold in range(2)
    ]
    lowest = []
    for table in tables:
        groups = {}
        for row in table:
            if row["positive"] == "True":
                groups.setdefault(row["group"], []).append(float(row["ssim_hbd"]))
        lowest.append({group: min(scores) for group, scores in groups.items()})
    assert not lowest[0].keys() & lowest[1].keys()
    for fold, own in enumerate(lowest):
        assert saved["pooled"]["scores"][fold] == sorted(own.values())
        assert saved["alone"][fold]["scores"] == [sorted(own.values())]
        assert Detector.load(finished, fold=fold).calibration.scores == (tuple(sorted(own.values())),)
    judged = [
        {row["group"] for row in table if row["positive"] == "False" and row["decision"]} for table in tables
    ]
    every = {row["group"] for row in tables[0] if row["positive"] == "False"}
    assert not judged[0] & judged[1] and judged[0] | judged[1] == every


def test_an_older_calibration_says_how_to_renew_it(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "calibration.json").write_text('{"pooled": 0.5}')
    with pytest.raises(ValueError, match="evaluate the workdir again with --mode=evaluate"):
        Detector.load(copy)


def test_the_detector_is_one_function_however_it_is_called(finished):
    detector = Detector.load(finished)
    images = np.stack([lesions.render("eczema", i, size=32) for i in range(37)])
    scores = detector.score_samples(images)
    order = np.random.default_rng(0).permutation(37)
    np.testing.assert_array_equal(detector.score_samples(images[order]), scores[order])
    np.testing.assert_array_equal([detector.score_samples(image)[0] for image in images[:3]], scores[:3])
    np.testing.assert_array_equal(detector.score_samples(images[:9]), scores[:9])
    np.testing.assert_allclose(detector.score_samples(images / np.float32(255)), scores, atol=1e-6)
    fn, variables = detector.pure()
    np.testing.assert_allclose(fn(variables, images).ssim_hbd, scores, atol=1e-6)
    folds = [Detector.load(finished, fold=k).score_samples(images) for k in range(2)]
    np.testing.assert_allclose(np.mean(folds, axis=0), scores, atol=1e-12)
    np.testing.assert_array_equal(detector.anomaly_score(images), 1 - scores)
    assert set(detector.predict(images)) <= {1, -1}
    painted = detector.inpaint(images[:2])
    np.testing.assert_allclose(painted[:, :8], images[:2, :8] / 255, atol=1e-6)
    assert np.abs(painted[:, 8:24, 8:24] - images[:2, 8:24, 8:24] / 255).max() > 0.01


def test_an_export_of_a_run_scores_as_the_run(finished, tmp_path, capsys):
    copy = shutil.copytree(finished, tmp_path / "copy")
    assert execute("export", copy) == 0
    digest = capsys.readouterr().out.split("digest: ")[1].strip()
    scorer = load_exported(copy / "exported", digest=digest)
    assert not pickles(copy / "exported")
    assert (copy / "exported" / "README.md").read_text() == (finished / "model_card.md").read_text()
    images = np.stack([lesions.render("eczema", i, size=32) for i in range(3)])
    expected = Detector.load(finished).score_samples(images)
    np.testing.assert_allclose(scorer.score_samples(images), expected, atol=1e-6)


def test_several_seeds_are_runs_of_their_own_and_one_page(finished, tmp_path, monkeypatch):
    started = []

    def pretend(settings, workdir, *, training, evaluation, profile, programs):
        started.append((settings.seed, settings.seeds, settings.given["seed"], training, evaluation, profile))
        results = read_json(finished / "results.json") | {"seed": settings.seed}
        Path(workdir).mkdir(parents=True)
        write_json(Path(workdir) / "results.json", results, sealed=True)

    run = runs.run
    monkeypatch.setattr(runs, "run", pretend)
    settings = parse(read_json(finished / "config.json") | {"seeds": [3, 1, 3]})
    assert run(settings, str(tmp_path / "many"), profile=True) == 0
    assert started == [(seed, (), seed, True, True, True) for seed in (3, 1)]
    page = (tmp_path / "many" / "report.html").read_text()
    assert 'href="seed_3/report.html"' in page and 'href="seed_1/report.html"' in page
    spread = json.loads((tmp_path / "many" / "seeds.json").read_text())
    assert spread["auroc"]["augmented"]["mim"]["hbd"]["std"] == 0


def test_a_detector_says_what_it_cannot_take(finished, tmp_path):
    detector = Detector.load(finished)
    with pytest.raises(ValueError, match=r"\[N, 32, 32, 3\].*got \[2, 40, 32, 3\]"):
        detector.score_samples(np.zeros((2, 40, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8, or float"):
        detector.score_samples(np.zeros((32, 32, 3), np.int32))
    with pytest.raises(ValueError, match="folds 0 to 1, not 7"):
        Detector.load(finished, fold=7)
    with pytest.raises(ValueError, match=r"is .* the workdir of a run"):
        Detector.load(tmp_path)


def test_loading_a_run_is_silent_and_its_repr_fits_on_a_screen(finished):
    code = "import sys, mim_jax; print(mim_jax.load(sys.argv[1]), mim_jax.load(sys.argv[1], fold=1))"
    ((out, err),) = finish(start("-c", code, finished))
    assert err == ""
    assert out.count("Detector(network='context_encoder', folds=") == 2 and len(out) < 400


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    for file in (copy / "fold_1" / "checkpoints").rglob("*"):
        if file.is_file() and "generator" in file.parts and file.stat().st_size > 500:
            file.write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match=r"fold_1.* cannot be read"):
        Detector.load(copy)


def test_a_run_is_served(finished):
    pytest.importorskip("fastapi")
    photograph = BytesIO()
    Image.fromarray(lesions.render("mpox", 0, size=48)).save(photograph, "PNG")
    server = start("launch.py", "--mode=serve", f"--workdir={finished}", "--port=0")
    try:
        line = next(line for line in server.stderr if line.startswith("serving: "))
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        request = urllib.request.Request(
            line.split()[1] + "score",
            head + photograph.getvalue() + b"\r\n--x--\r\n",
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
        with urllib.request.urlopen(request, timeout=LIMIT) as reply:
            answer = json.load(reply)
        server.send_signal(signal.SIGINT)
        finish(server, expect=main.INTERRUPTED)
    finally:
        server.kill()
    detector = Detector.load(finished)
    image = decode_image(photograph.getvalue(), size=detector.image_size)
    (expected,) = detector.assess(image, alpha=detector.calibration.miss_rate)
    assert answer["score"] == expected.score and answer["decision"] == expected.decision
    assert answer["similarities"] == expected.similarities
    assert answer["reasons"] == list(expected.reasons)
