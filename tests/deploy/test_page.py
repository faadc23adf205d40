"""The page's modules, run by Node.js, compute what Python computes: reduction, gate and decision."""

import itertools
import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mim_jax.deploy.app
from mim_jax.data import quality
from mim_jax.data.synthetic import lesions
from mim_jax.deploy.export import golden_images

pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[app]'")

from mim_jax.deploy.app import bundle

STATIC = Path(mim_jax.deploy.app.__file__).parent / "static"
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")

# The RGB bytes `input.rgb` of width and height `input.picture`, as a picture that the page reads.
PICTURE = """{
  width: input.picture[0],
  height: input.picture[1],
  read: (left, top, columns, rows) => Uint8ClampedArray.from({ length: 4 * columns * rows }, (_, i) => {
    const pixel = i >> 2, row = top + Math.floor(pixel / columns), column = left + (pixel % columns);
    return i % 4 === 3 ? 255 : input.rgb[3 * (row * input.picture[0] + column) + (i % 4)];
  }),
}"""


def run(script, data):
    """Value of a JavaScript expression that may use the page's modules and `input`, here `data`."""
    imports = "\n".join(
        f"import * as {name} from {json.dumps((STATIC / name).with_suffix('.js').as_uri())};"
        for name in ("resize", "gate", "decision")
    )
    code = f"{imports}\nimport {{ readFileSync }} from 'node:fs';\n"
    code += f"const input = JSON.parse(readFileSync(0));\nconsole.log(JSON.stringify({script}));"
    command = ["node", "--no-warnings", "--input-type=module", "-e", code]
    done = subprocess.run(command, input=json.dumps(data), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("width", "height", "size", "box"),
    [
        (301, 200, 64, (50.5, 0, 200)),  # the centre, as read by default
        (97, 97, 96, (0, 0, 97)),
        (64, 64, 64, (0, 0, 64)),
        (40, 50, 64, (0, 5, 40)),  # enlarged
        (500, 333, 32, (100.3, 20.7, 250.9)),  # a crop made by hand
    ],
)
def test_the_page_reduces_pictures_as_pillow_does(width, height, size, box):
    rng = np.random.default_rng(width)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 2] = np.where(image[: height // 2] > 127, 255, 0)  # overshoots have to be clipped
    left, top, side = box
    expected = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    data = {
        "rgb": image.ravel().tolist(),
        "picture": [width, height],
        "box": {"left": left, "top": top, "side": side},
        "size": size,
    }
    script = f"Array.from(resize.resize({PICTURE}, input.box, input.size, 7))"
    found = np.array(run(script, data), np.uint8).reshape(size, size, 3)
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_the_page_measures_and_refuses_as_the_gate_does():
    good = lesions.render("mpox", 0, size=quality.SIDE)
    text = np.full_like(good, 250)
    text[::7, :, :] = np.random.default_rng(0).integers(0, 2, (len(text[::7]), quality.SIDE, 1)) * 250
    blurred = (
        Image.fromarray(good).resize((6, 6)).resize((quality.SIDE, quality.SIDE), Image.Resampling.BICUBIC)
    )
    images = [good, good // 9, 200 + good // 5, np.asarray(blurred), good[..., ::-1], text]
    images = [*images, *golden_images(quality.SIDE)[:2], lesions.render("nv", 1, size=quality.SIDE)]
    data = {
        "images": [image.ravel().tolist() for image in images],
        "limits": {name: getattr(quality, name) for name in bundle.LIMITS},
    }
    script = (
        "input.images.map((rgb) => { const found = gate.measure(rgb, input.limits.SIDE, input.limits); "
        "return { found, faults: gate.findFaults(found, input.limits) }; })"
    )
    refused = set()
    for image, answer in zip(images, run(script, data), strict=True):
        expected = quality.measure(image)
        for name, value in answer["found"].items():
            assert math.isclose(value, getattr(expected, name), rel_tol=1e-9, abs_tol=1e-12), name
        assert answer["faults"] == list(quality.find_faults(image, quality.Gate()))
        refused |= set(answer["faults"])
    assert refused == {"screenshot", "underexposed", "overexposed", "blurred", "not_skin"}


def decided(score, calibration):
    """The documented decision rule, for one fold."""
    if calibration is None:
        return "cannot_tell", None
    scores = calibration["scores"][0]
    n = len(scores)
    p_value = (1 + sum(value <= score for value in scores)) / (n + 1) if n else None
    if calibration["rule"] == "calibrated":
        if math.floor(round(calibration["miss_rate"] * (n + 1), 9)) == 0:
            return "cannot_tell", p_value
        like = p_value > calibration["miss_rate"] + 1e-12
    else:
        if calibration["lower"] is None:
            return "cannot_tell", p_value
        like = score > calibration["lower"]
    if not like:
        return "not_mpox_like", p_value
    sure = calibration["upper"] is None or score > calibration["upper"]
    return "mpox_like" if sure else "cannot_tell", p_value


def test_the_page_decides_by_the_written_rule():
    rng = np.random.default_rng(0)
    cases = [[0.5, None]]
    for n, rule, upper in itertools.product((0, 5, 9, 99), ("calibrated", "certified"), (None, 0.8)):
        scores = np.sort(rng.random(n).round(2)).tolist()
        for lower, score in itertools.product((None, 0.3), (*scores[:12], 0.0, 0.3, 0.31, 0.8, 0.81, 1.0)):
            calibration = {"scores": [scores], "rule": rule, "lower": lower, "upper": upper, "miss_rate": 0.1}
            cases.append([score, calibration])
    script = "input.map(([score, calibration]) => decision.decide(score, calibration))"
    answers = run(script, cases)
    for (score, calibration), answer in zip(cases, answers, strict=True):
        assert (answer["decision"], answer["pValue"]) == decided(score, calibration), (score, calibration)
    assert {answer["decision"] for answer in answers} == {"mpox_like", "not_mpox_like", "cannot_tell"}
    assert run("decision.decide(NaN, input)", cases[-1][1])["decision"] == "unusable"
