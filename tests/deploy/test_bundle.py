"""The app's folder: whole or absent, every file vouched for, and mistakes told in one sentence."""

import base64
import dataclasses
import hashlib
import json
import subprocess
import tarfile

import numpy as np
import pytest

from mim_jax.deploy.app import runtime
from tests.deploy.small import SIZE, make_detector

pytest.importorskip("jax2onnx", reason="jax2onnx is not installed: see docs/deploy.md")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install '.[app]'")

from mim_jax.deploy.app import bundle

CALIBRATION = {"rule": "calibrated", "scores": [[0.5, 0.6]], "lower": None, "upper": None, "miss_rate": 0.1}


def fetch():
    return b"export const here = 1;", bytes(1000)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "app"
    return path, bundle.export_app(
        make_detector(), path, fold=3, calibration=CALIBRATION, notice="Drawn.", fetch=fetch
    )


def test_every_file_is_vouched_for(exported):
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
    assert (app["weights"], app["golden"]["tolerance"]) == (summary.weights, 1e-3)
    images = np.frombuffer((path / "golden.bin").read_bytes(), np.uint8).reshape(-1, SIZE, SIZE, 3)
    expected = bundle.truth(make_detector(), images)
    np.testing.assert_allclose(app["golden"]["similarities"], expected, atol=1e-6)


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
    with pytest.raises(ValueError, match="lies below a file"):
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
    assert bundle.export_app(make_detector(), tmp_path / "app", fetch=fetch).weights == "float16"


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
    with pytest.raises(ValueError, match="it was changed on its way"):
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
