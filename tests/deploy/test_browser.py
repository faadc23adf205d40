"""The page in a browser: it checks itself, scores as Python does, decides, refuses, and works offline."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mim_jax.data import quality
from mim_jax.data.images import load_image
from mim_jax.data.synthetic import lesions
from mim_jax.deploy import export
from mim_jax.deploy.app import runtime
from mim_jax.measure.similarity import METRICS
from tests.deploy import chromium
from tests.deploy.small import SIZE, make_combined, make_detector, make_features

pytest.importorskip("jax2onnx", reason="jax2onnx is not installed: see docs/deploy.md")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install '.[app]'")
pytestmark = [
    pytest.mark.skipif(chromium.find() is None, reason="no Chromium: see docs/deploy.md"),
    pytest.mark.usefixtures("compiled_quickly"),
]

from mim_jax.deploy.app import bundle, program  # noqa: E402 - they need ONNX

CALIBRATION = {
    "metric": "ssim_hbd",
    "positive": "mpox",
    "rule": "certified",
    "miss_rate": 0.1,
    "scores": [[0.1, 0.2, 0.3]],
    "lower": 0.0,
    "upper": None,
    "origin": "Invented origin.",
    "promise": "Invented promise.",
    "band": "Invented band.",
}


@pytest.fixture(scope="module")
def fetched():
    try:
        return runtime.fetch()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def app(tmp_path_factory, fetched):
    path = tmp_path_factory.mktemp("run") / "app"
    bundle.export_app(make_detector(), path, calibration=CALIBRATION, fetch=lambda: fetched)
    return path


@pytest.fixture
def copy(app, tmp_path):
    return shutil.copytree(app, tmp_path / "copy")


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "spot.png"
    Image.fromarray(lesions.render("mpox", 0, size=150)).crop((0, 10, 150, 131)).save(path)
    return path


@contextlib.contextmanager
def opened(folder):
    with chromium.served(folder) as address, chromium.Browser() as browser:
        browser.open(address)
        browser.wait_for("document.body.dataset.golden || document.body.dataset.step === 'refused'")
        yield browser, address


def check(browser, path):
    browser.evaluate("document.querySelector('#result .again').click()")  # back to the start
    browser.choose("#choose", path)
    step = browser.wait_for("['crop', 'result'].find((step) => document.body.dataset.step === step)")
    if step == "crop":
        browser.evaluate("document.getElementById('check').click()")
    browser.wait_for("document.body.dataset.step === 'result'")
    return browser.evaluate("document.getElementById('result').dataset.decision")


def change(folder, **fields):
    """Change settings; the service worker then refuses to cache them, and the page works without it."""
    settings = json.loads((folder / "app.json").read_text())
    (folder / "app.json").write_text(json.dumps(settings | fields))


def test_page_onnxruntime_stablehlo_and_the_detector_say_the_same(app, photograph, tmp_path):
    detector = make_detector()
    images = export.golden_images(SIZE)[: bundle.GOLDEN_IMAGES]
    expected = bundle.truth(detector, images)
    export.export(detector, tmp_path / "exported")
    compiled = export.load_exported(tmp_path / "exported").similarities(images)
    compiled = np.stack([compiled[metric] for metric in METRICS], axis=-1)
    with opened(app) as (browser, address):
        golden = np.array(json.loads(browser.evaluate("document.body.dataset.golden")))
        assert check(browser, photograph) == "mpox_like"
        cells = "Array.from(document.querySelectorAll('#numbers td'), (cell) => cell.textContent)"
        shown = [float(text.replace("\u2212", "-")) for text in browser.evaluate(cells)]
        assert browser.messages == []
        assert {url.split("/")[2] for url in browser.requests if url.startswith("http")} == {
            address.split("/")[2]
        }
        asked = browser.evaluate("document.getElementById('numbers').textContent")
    python = program.run(program.to_onnx(detector).SerializeToString(), images)
    for scores in (golden, compiled, python):
        assert np.abs(scores - expected).max() <= 1e-3
    # The whole way, from the file's bytes: read, turned, cut, reduced, scored.
    picture = load_image(photograph, size=SIZE)[None]
    np.testing.assert_allclose(shown, bundle.truth(detector, picture)[0], atol=1e-3 + 5e-5)
    assert "Invented origin." in asked and "Invented band." in asked


@chromium.with_axe
def test_the_page_is_accessible(app, photograph):
    with opened(app) as (browser, _):
        assert browser.findings() == {}
        assert check(browser, photograph) == "mpox_like"
        browser.evaluate("document.querySelector('details').open = true")
        assert browser.findings() == {}


@pytest.mark.parametrize(
    ("make", "panels"),
    [
        (lambda: make_features(color=False), ["original", "unlikeness"]),
        (make_combined, ["original", "masked", "inpainted", "map", "unlikeness"]),
    ],
    ids=["features", "combined"],
)
def test_page_of_a_detector_on_frozen_features(make, panels, fetched, photograph, tmp_path):
    detector = make()
    calibration = CALIBRATION | {"metric": detector.metric, "scores": [[-1.0, 0.5, 2.0]], "lower": -99.0}
    bundle.export_app(detector, tmp_path / "app", calibration=calibration, fetch=lambda: fetched)
    with opened(tmp_path / "app") as (browser, _):
        assert check(browser, photograph) == "mpox_like"
        cells = "Array.from(document.querySelectorAll('#numbers td'), (cell) => cell.textContent)"
        shown = [float(text.replace("\u2212", "-")) for text in browser.evaluate(cells)]
        drawn = "Array.from(document.querySelectorAll('.panels figure:not([hidden]) canvas'), (c) => c.id)"
        assert browser.evaluate(drawn) == panels
        words = browser.evaluate("document.querySelector('main').textContent")
        colors = (
            "new Set(document.getElementById('unlikeness').getContext('2d').getImageData(0, 0, 64, 64).data)"
        )
        assert browser.evaluate(f"{colors}.size") > 10  # a map, not a plain square
        assert browser.messages == []
    picture = load_image(photograph, size=SIZE)[None]
    tolerance = program.UNIT_TOLERANCE[json.loads((tmp_path / "app" / "app.json").read_text())["weights"]]
    np.testing.assert_allclose(shown, bundle.truth(detector, picture)[0], atol=tolerance + 5e-5)
    assert "as near to the nearest training pictures" in words
    assert ("identical" in words) == ("inpainted" in panels)


def test_it_works_without_a_network_once_it_was_opened(app, photograph):
    with chromium.served(app) as address, chromium.Browser() as browser:
        browser.open(address)
        browser.wait_for("navigator.serviceWorker.controller && document.body.dataset.golden")
        browser.send(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )
        hidden = app.with_name("away")
        app.rename(hidden)  # and the server has nothing to send either
        try:
            browser.open(address)
            browser.wait_for("document.body.dataset.golden")
            assert check(browser, photograph) == "mpox_like"
        finally:
            hidden.rename(app)


def test_a_page_that_errs_refuses_to_run(copy):
    similarities = json.loads((copy / "app.json").read_text())["golden"]["similarities"]
    similarities[1][2] += 0.0021
    change(copy, golden={"tolerances": [1e-3] * 5, "similarities": similarities})
    with opened(copy) as (browser, _):
        assert browser.evaluate("document.body.dataset.step") == "refused"
        words = browser.evaluate("document.getElementById('refused-words').textContent")
        assert "off by 0.00" in words
        assert browser.evaluate("document.getElementById('start').hidden")


@pytest.mark.parametrize(
    ("fields", "decision"),
    [
        ({"lower": 0.99}, "not_mpox_like"),
        ({"upper": 0.99}, "cannot_tell"),
        ({"rule": "calibrated"}, "cannot_tell"),  # three scores are too few
    ],
)
def test_every_decision(copy, photograph, fields, decision):
    change(copy, calibration=CALIBRATION | fields)
    with opened(copy) as (browser, _):
        assert check(browser, photograph) == decision


def test_pictures_that_cannot_be_judged_are_refused_with_a_reason(app, tmp_path):
    good = lesions.render("mpox", 0, size=256)
    pictures = {"dark": good // 9, "drawn": np.full_like(good, 255)}
    with opened(app) as (browser, _):
        for name, image in pictures.items():
            path = tmp_path / f"{name}.png"
            Image.fromarray(image).save(path)
            assert check(browser, path) == "unusable"
            faults = quality.find_faults(load_image(path, size=quality.SIDE), quality.Gate())
            words = browser.evaluate("document.querySelectorAll('#words p').length")
            assert words == len(faults) + 1, name
        (tmp_path / "text.jpg").write_text("no picture")
        assert check(browser, tmp_path / "text.jpg") == "unusable"
        Image.fromarray(good).save(tmp_path / "moves.gif")
        assert check(browser, tmp_path / "moves.gif") == "unusable"


def test_a_photograph_is_turned_upright(app, photograph, tmp_path):
    upright = Image.open(photograph)
    turned, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # to be turned back clockwise
    turned.save(tmp_path / "turned.jpg", quality=98, subsampling=0, exif=exif)
    cells = "Array.from(document.querySelectorAll('#numbers td'), (cell) => cell.textContent)"
    with opened(app) as (browser, _):
        check(browser, tmp_path / "turned.jpg")
        shown = [float(text.replace("\u2212", "-")) for text in browser.evaluate(cells)]
    picture = load_image(tmp_path / "turned.jpg", size=SIZE)[None]
    expected = bundle.truth(make_detector(), picture)[0]
    np.testing.assert_allclose(shown, expected, atol=2e-3)  # two decoders of JPEG
