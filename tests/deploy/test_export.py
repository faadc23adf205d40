"""An export scores as its detector does, without the detector's code."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import mim_jax
from mim_jax import UnusableImage
from mim_jax.decide.decision import Decision
from mim_jax.deploy import export, format
from tests.deploy.exports import CALIBRATION, MODEL, SIZE, images, make_detector

# Loads an export in a process where importing the project's other dependencies is an error.
ALONE = """
import sys
for name in ("flax", "optax", "orbax", "ml_collections", "absl", "dm_pix", "PIL", "sklearn"):
    sys.modules[name] = None
import numpy as np
from mim_jax.deploy.export import load_exported
detector = load_exported(sys.argv[1], digest=sys.argv[2])
np.save(sys.argv[4], np.stack(list(detector.similarities(np.load(sys.argv[3])).values())))
"""


def test_scores_are_the_detectors_with_jax_and_numpy_alone(exported, tmp_path):
    detector, path, digest = exported
    np.save(tmp_path / "images.npy", images(11))
    arguments = [path, digest, tmp_path / "images.npy", tmp_path / "scores.npy"]
    subprocess.run([sys.executable, "-c", ALONE, *map(str, arguments)], check=True)
    expected = np.stack(list(detector.similarities(images(11)).values()))
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=1e-6)


def test_it_is_a_novelty_detector_and_a_function_for_other_programs(exported):
    detector, path, _ = exported
    loaded = export.load_exported(path)
    np.testing.assert_allclose(loaded.score_samples(images(3)), detector.score_samples(images(3)), atol=1e-6)
    np.testing.assert_array_equal(loaded.predict(images(3)), detector.predict(images(3)))
    fn, variables = loaded.pure()
    inside = jax.jit(lambda v, x: 2 * fn(v, x).ssim)(variables, images(5))
    np.testing.assert_allclose(inside / 2, loaded.similarities(images(5))["ssim"].mean(axis=0), atol=1e-6)
    with pytest.raises(ValueError, match="takes uint8 images, not float64"):
        loaded.score_samples(images(1) / 255)
    with pytest.raises(ValueError, match="takes uint8 images, not float32"):
        jax.eval_shape(fn, variables, jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32))
    with pytest.raises(ValueError, match=r"must be \[B, 32, 32, 3\], got \[2, 40, 40, 3\]"):
        jax.eval_shape(fn, variables, jax.ShapeDtypeStruct((2, 40, 40, 3), jnp.uint8))


def test_the_network_comes_back_from_the_weights(exported):
    detector, path, digest = exported
    again = export.load_detector(path, digest=digest)
    np.testing.assert_array_equal(again.score_samples(images(3)), detector.score_samples(images(3)))
    assert (again.threshold, again.threshold_origin, again.measure) == (0.7, "invented", detector.measure)


def test_load_takes_an_export_and_refuses_what_belongs_to_the_other_kind(exported, tmp_path):
    detector, path, digest = exported
    again = mim_jax.load(path, digest=digest)
    np.testing.assert_array_equal(again.score_samples(images(3)), detector.score_samples(images(3)))
    with pytest.raises(ValueError, match="this is another export"):
        mim_jax.load(path, digest="0" * 64)
    with pytest.raises(ValueError, match=r"is an export, .* leave out fold=0"):
        mim_jax.load(path, fold=0)
    with pytest.raises(ValueError, match=r"has no manifest.json, so it is not an export"):
        mim_jax.load(tmp_path, digest=digest)
    with pytest.raises(ValueError, match=r"is .* the workdir of a run"):
        mim_jax.load(tmp_path)


def test_loading_is_silent_and_a_repr_fits_on_a_screen(exported):
    code = """
import sys
import mim_jax
print(repr(mim_jax.load(sys.argv[1])), repr(mim_jax.load_exported(sys.argv[1])), sep="\\n")
"""
    command = [sys.executable, "-c", code, str(exported[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    facts = (
        "network='context_encoder', folds=2, image_size=32, mask_size=16, metric='ssim_hbd', threshold=0.7"
    )
    assert done.stdout == f"Detector({facts})\nExportedDetector({facts})\n"


def test_it_assesses_as_its_detector_does(exported, tmp_path):
    detector, path, _ = exported
    torn = UnusableImage("the file is torn", "a.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    for loaded in (export.load_exported(path), export.load_detector(path)):
        assert loaded.calibration == CALIBRATION
        assert "too dark" in loaded.read(tmp_path / "black.png").reason
        found = loaded.assess(iter([*images(2), torn, *images(40)]), alpha=0.2)
        expected = detector.assess(images(40), alpha=0.2)
        assert [one.decision for one in found[3:]] == [one.decision for one in expected]
        assert [one.p_value for one in found[3:]] == [one.p_value for one in expected]
        assert len({one.decision for one in expected}) == 3
        assert found[2].decision is Decision.UNUSABLE and found[2].reasons == ("the file is torn",)
        scores = [one.score for one in (*found[:2], *found[3:])]
        np.testing.assert_allclose(scores, [*scores[2:4], *detector.score_samples(images(40))], atol=1e-6)
        assert {name: round(value, 5) for name, value in found[5].similarities.items()} == {
            name: round(value, 5) for name, value in expected[2].similarities.items()
        }


def test_both_platforms_are_in_the_program(exported):
    program = jax.export.deserialize(bytearray((exported[1] / format.SCORER).read_bytes()))
    assert program.platforms == ("cpu", "cuda")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": {}}, "lacks generator, options, image_size, mask_size"),
        ({"model": {**MODEL, "mask_size": 8}}, r"image and mask sizes are \(32, 16\), .* says \(32, 8\)"),
        ({"variables": []}, "has no folds"),
        ({"threshold": float("nan")}, "threshold must be finite"),
        ({"threshold": np.float32("inf")}, "threshold must be finite"),
        ({"model": {**MODEL, "options": {"width": jnp.float32}}}, "cannot store the detector's description"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        export.export(dataclasses.replace(make_detector(), **fields), tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    model = {**MODEL, "options": {**MODEL["options"], "width": np.int64(4)}, "image_size": np.int32(SIZE)}
    detector = dataclasses.replace(make_detector(), threshold=np.float32(0.25), model=model)
    export.export(detector, tmp_path / "new")
    config = json.loads((tmp_path / "new" / format.CONFIG).read_text())
    assert (config["threshold"], config["model"]) == (0.25, MODEL)


def test_a_place_taken_is_named(exported, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is below a file"):
        export.export(exported[0], tmp_path / "file" / "new")
    taken = tmp_path / "taken"

    write = format.write

    def write_late(*arguments, **options):
        (taken / "by somebody else").mkdir(parents=True)
        return write(*arguments, **options)

    monkeypatch.setattr(format, "write", write_late)
    with pytest.raises(ValueError, match="taken exists: export into a new folder"):
        export.export(exported[0], taken)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


def test_slips_are_sentences(exported, tmp_path):
    detector, path, _ = exported
    with pytest.raises(ValueError, match="exists: export into a new folder"):
        export.export(detector, path)
    with pytest.raises(ValueError, match=r"is not an export, it has no manifest\.json"):
        export.load_exported(tmp_path)
    (tmp_path / format.MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        export.load_exported(tmp_path)
    assert not [item for item in path.parent.iterdir() if item.name.startswith(".")]
