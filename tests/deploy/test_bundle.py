"""The app's folder: complete or absent, every file with its hash, and mistakes named in one sentence."""

import base64
import dataclasses
import hashlib
import json
import subprocess
import tarfile

import numpy as np
import pytest

from mim_jax.deploy.app import runtime
from tests.deploy.small import SIZE, make_combined, make_detector

pytest.importorskip("jax2onnx", reason="jax2onnx is not installed: see docs/deploy.md")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install '.[app]'")

from mim_jax.deploy.app import bundle

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CALIBRATION = {"rule": "calibrated", "scores": [[0.5, 0.6]], "lower": None, "upper": None, "miss_rate": 0.1}


def fetch():
    return b"export const here = 1;", bytes(1000)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "app"
    return path, bundle.export_app(
        make_detector(), path, fold=3, calibration=CALIBRATION, notice="Drawn.", fetch=fetch
    )


def test_every_file_is_listed_with_its_hash(exported):
    path, summary = exported
    listing = (path / bundle.FILES).read_bytes()
    assert hashlib.sha256(listing).hexdigest() == summary.digest
    files = json.loads(listing)["files"]
    assert set(files) | {bundle.FILES} == {item.name for item in path.iterdir()}
    kept = json.loads((path / "version.js").read_text().removeprefix("self.APP = ").rstrip(";\n"))["files"]
    assert set(kept) == set(files) - {"sw.js", "version.js"}
    for name, digest in files.items():
        data = (path / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
        if name in kept:
            assert kept[name] == "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert summary.size == sum(item.stat().st_size for item in path.iterdir())


def test_the_settings_say_what_the_page_needs(exported):
    path, summary = exported
    app = json.loads((path / "app.json").read_text())
    assert (app["fold"], app["notice"], app["calibration"]) == (3, "Drawn.", CALIBRATION)
    assert (app["image_size"], app["mask_size"], app["offset"]) == (SIZE, SIZE // 2, [SIZE // 4] * 2)
    assert (app["weights"], app["golden"]["tolerances"]) == (summary.weights, [1e-3] * 5)
    images = np.frombuffer((path / "golden.bin").read_bytes(), np.uint8).reshape(-1, SIZE, SIZE, 3)
    expected = bundle.truth(make_detector(), images)
    np.testing.assert_allclose(app["golden"]["similarities"], expected, atol=1e-6)


def test_standardised_scores_have_their_own_tolerance(tmp_path):
    detector = make_combined()
    evaluated = {"positive": "mpox", "auroc": 0.9, "low": 0.8, "high": 0.95, "folds": 5, "unseparated": []}
    weights = bundle.export_app(detector, tmp_path / "app", evaluated=evaluated, fetch=fetch).weights
    app = json.loads((tmp_path / "app" / "app.json").read_text())
    tolerances = dict(zip(app["metrics"], app["golden"]["tolerances"], strict=True))
    assert tolerances["combined"] == tolerances["color"] == bundle.program.UNIT_TOLERANCE[weights]
    assert tolerances["ssim"] == bundle.program.TOLERANCE[weights]
    assert app["outputs"] == ["similarities", "inpainted", "map", "unlikeness"]
    assert (app["metric"], app["mim_size"], app["evaluated"]) == ("combined", SIZE, evaluated)
    features = bundle.describe(detector.features, np.zeros((1, SIZE, SIZE, 3), np.uint8), "int8")
    assert features["mim_size"] is None and features["outputs"] == ["similarities", "unlikeness"]


def test_the_page_is_told_the_accuracy_and_what_is_not_separated():
    count = {"n": 10, "mpox_like": 1, "cannot_tell": 4, "not_mpox_like": 5}
    worse = {"n": 10, "mpox_like": 2, "cannot_tell": 4, "not_mpox_like": 4}
    found = {"mean": 0.9, "low": 0.85, "high": 0.94, "folds": [{}] * 5}
    results = {
        "reference": "combined",
        "data": {"positive": "mpox"},
        "auroc": {"augmented": {"combined": {"combined": found}}},
        "decision": {"metric": "combined", "table": {"mpox": worse, "measles": worse, "eczema": count}},
    }
    assert bundle.accuracy(results) == {
        "positive": "mpox",
        "auroc": 0.9,
        "low": 0.85,
        "high": 0.94,
        "folds": 5,
        "unseparated": ["measles"],
    }
    assert bundle.accuracy({}) is None


def test_the_page_asks_for_nothing_elsewhere():
    for name, data in bundle.page_files().items():
        text = data.decode("latin-1")
        addresses = text.replace("http://www.w3.org/2000/svg", "")  # the name of SVG, not an address
        assert "http:" not in addresses and "https:" not in addresses and "//cdn" not in text, name
    page = bundle.page_files()["index.html"].decode()
    assert "default-src 'none'" in page and "unsafe-inline" not in page
    assert " style=" not in page and "onclick" not in page  # the policy would refuse them


def test_it_is_whole_or_absent(exported, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="exists: export into a new folder"):
        bundle.export_app(make_detector(), exported[0], fetch=fetch)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is below a file"):
        bundle.export_app(make_detector(), tmp_path / "file" / "app", fetch=fetch)

    def full(*_):
        raise OSError(28, "no space")

    monkeypatch.setattr(bundle, "write", full)
    with pytest.raises(OSError, match="no space"):
        bundle.export_app(make_detector(), tmp_path / "app", fetch=fetch)
    assert {item.name for item in tmp_path.iterdir()} == {"file"}


def test_a_program_that_errs_is_not_written(monkeypatch, tmp_path):
    run = bundle.program.run
    monkeypatch.setattr(bundle.program, "run", lambda *args: run(*args) + 0.01)
    with pytest.raises(ValueError, match=r"off by int8 0\.01.*at most 0\.0001"):
        bundle.export_app(make_detector(), tmp_path / "app", fetch=fetch)


def test_weights_that_move_a_score_are_left_for_larger_ones(monkeypatch, tmp_path):
    monkeypatch.setitem(bundle.program.TOLERANCE, "int8", 0.0)
    assert bundle.export_app(make_detector(), tmp_path / "app", fetch=fetch).weights == "mixed"


def test_npm_is_asked_for_with_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime.shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match="npm is not installed"):
        runtime.fetch()
    monkeypatch.setattr(runtime.shutil, "which", lambda _: "npm")

    def fail(*_, **__):
        raise subprocess.CalledProcessError(1, "npm", stderr=b"npm error network\n")

    monkeypatch.setattr(runtime.subprocess, "run", fail)
    with pytest.raises(ValueError, match=r"could not fetch onnxruntime-web 1\.30\.0 \(npm error network\)"):
        runtime.fetch()


def test_another_package_is_refused(monkeypatch, tmp_path):
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name in (runtime.SCRIPT, runtime.BINARY):
            (tmp_path / name).write_text(name)
            archive.add(tmp_path / name, f"package/dist/{name}")
    with pytest.raises(ValueError, match="it was changed in transit"):
        runtime.unpack(package)
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    monkeypatch.setattr(runtime, "INTEGRITY", digest)
    assert runtime.unpack(package) == (runtime.SCRIPT.encode(), runtime.BINARY.encode())


def test_icons_are_pictures_of_their_size():
    for size in (192, 512):
        data = bundle.page_files()[f"icon-{size}.png"]
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(data[16:20]) == size


def test_several_folds_are_refused(tmp_path):
    detector = make_detector()
    both = dataclasses.replace(detector, variables=[*detector.variables] * 2)
    with pytest.raises(ValueError, match="the app holds one fold"):
        bundle.export_app(both, tmp_path / "app", fetch=fetch)
