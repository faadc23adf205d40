"""An export scores as its detector does, without its code, and refuses to when anything is amiss."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import mim_jax
from mim_jax import Detector, UnusableImage
from mim_jax.data import weight_files
from mim_jax.decide.decision import Calibration, Decision
from mim_jax.deploy import export, format
from mim_jax.inpaint.inference import abstract_variables
from mim_jax.inpaint.networks import make_generator
from mim_jax.measure.similarity import Measure

SIZE = 32
MODEL = {
    "generator": "context_encoder",
    "options": {"width": 4, "bottleneck": "pointwise", "bottleneck_channels": 8},
    "image_size": SIZE,
    "mask_size": SIZE // 2,
}
CALIBRATION = Calibration(
    metric="ssim_hbd",
    positive="mpox",
    rule="calibrated",
    miss_rate=0.1,
    # Where the scores are: the folds' halves of it apart, so that one taken for the other shows.
    scores=tuple(tuple(np.linspace(low, low + 0.01, 15).tolist()) for low in (0.715, 0.7225)),
    lower=0.72,
    upper=0.728,
    origin="invented",
    promise="none",
    band="none",
)
REMOVED = "a field to remove"
# Loads an export where importing anything else that this project needs is an error.
ALONE = """
import sys
for name in ("flax", "optax", "orbax", "ml_collections", "absl", "dm_pix", "PIL", "sklearn"):
    sys.modules[name] = None
import numpy as np
from mim_jax.deploy.export import load_exported
detector = load_exported(sys.argv[1], digest=sys.argv[2])
np.save(sys.argv[4], np.stack(list(detector.similarities(np.load(sys.argv[3])).values())))
"""


def make_detector():
    generator = make_generator(MODEL["generator"], MODEL["options"], dtype=jnp.float32)
    shapes, rng = abstract_variables(generator, SIZE), np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.normal(0, 0.1, leaf.shape)
        return jnp.asarray(1 + abs(values) if path[-1].key == "var" else values, jnp.float32)

    folds = [jax.tree_util.tree_map_with_path(draw, shapes) for _ in range(2)]
    return Detector(
        generator,
        folds,
        SIZE,
        SIZE // 2,
        0.7,
        "invented",
        Measure(region="image", bins=64),
        MODEL,
        CALIBRATION,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "scorer"
    detector = make_detector()
    return detector, path, export.export(detector, path)


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported[1], tmp_path / "copy")


def images(count):
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def rewrite(folder, name, content):
    """Exchanges a file and its hash, as damage never would."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / format.MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / format.MANIFEST).write_text(json.dumps(manifest))


def exchange(folder, name, **fields):
    """Exchanges fields of a JSON file, named as in `model__image_size`, or of its arrays by name."""
    if name in (format.WEIGHTS, format.GOLDEN):
        arrays = {**weight_files.load(folder / name), **fields}
        weight_files.save(folder / "new", {key: array for key, array in arrays.items() if array is not None})
        content = (folder / "new").read_bytes()
        (folder / "new").unlink()
        rewrite(folder, name, content)
        return
    content = json.loads((folder / name).read_text())
    for path, value in fields.items():
        *parents, last = path.split("__")
        node = content
        for parent in parents:
            node = node[parent]
        node[last] = value
        if value is REMOVED:
            del node[last]
    text = json.dumps(content)
    if name == format.MANIFEST:
        (folder / name).write_text(text)
    else:
        rewrite(folder, name, text.encode())


def refused(folder, message, *, loaders=(export.load_exported, export.load_detector)):
    """Each loader raises one ValueError of one line."""
    for load in loaders:
        with pytest.raises(ValueError, match=message) as caught:
            load(folder)
        assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("name", [format.CONFIG, format.WEIGHTS, format.SCORER, format.GOLDEN])
def test_a_changed_or_missing_file_is_named(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not the file that was exported"):
        export.load_exported(copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"lacks {name}"):
        export.load_exported(copy)


def test_an_exchanged_export_is_found_by_its_digest(exported, copy):
    exchange(copy, format.CONFIG, threshold=0.0)
    for load in (export.load_exported, export.load_detector):
        with pytest.raises(ValueError, match="this is another export"):
            load(copy, digest=exported[2])


def test_golden_images_find_other_weights(copy):
    weights = weight_files.load(copy / format.WEIGHTS)
    exchange(copy, format.WEIGHTS, **{name: array + 0.05 for name, array in weights.items()})
    refused(copy, "golden images differs by")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 0}, "has format 0 and this mim_jax reads 2"),
        ({"calling_convention": 1, "jax": "0.4.1"}, r"exported by jax 0.4.1 .*export it anew"),
        ({"platforms": ["tpu"]}, "runs on tpu, and JAX computes on cpu"),
        ({"files": {}}, "does not list the files"),
        ({"files": REMOVED}, r"manifest.json lacks files"),
        ({"files": []}, r"files is \[\], expected dict"),
        ({"calling_convention": REMOVED}, "lacks calling_convention"),
        ({"calling_convention": "9"}, "calling_convention is '9', expected int"),
        ({"jax": None}, "jax is None, expected str"),
        ({"platforms": {"cpu": 1}}, "platforms is .* expected list"),
        ({"platforms": [1]}, "platforms must be names"),
    ],
)
def test_an_outdated_or_foreign_export_says_so(copy, fields, message):
    exchange(copy, format.MANIFEST, **fields)
    refused(copy, message, loaders=[export.load_exported])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": REMOVED}, "config.json lacks model"),
        ({"model": []}, r"model is \[\], expected dict"),
        ({"model__image_size": REMOVED}, r"lacks model\.image_size"),
        ({"model__image_size": "32"}, r"model\.image_size is '32', expected int"),
        ({"model__image_size": True}, r"model\.image_size is True, expected int"),
        ({"model__image_size": 10**12}, r"holds images uint8 .* expected uint8 \[N, 1000000000000,"),
        ({"model__mask_size": 33}, "image_size=32, mask_size=33, .* which cannot be"),
        ({"model__margin": -1}, "margin=-1, .* which cannot be"),
        ({"model__generator": None}, r"model\.generator is None, expected str"),
        ({"model__options": REMOVED}, r"lacks model\.options"),
        ({"folds": 3}, "holds the folds 0, 1, expected 0 to 2"),
        ({"folds": 0}, "folds=0, which cannot be"),
        ({"folds": 10**12}, "holds the folds 0, 1, expected 0 to"),
        ({"measure": "ssim"}, "measure is 'ssim', expected dict"),
        ({"measure__metric": ["ssim"]}, r"measure\.metric is \['ssim'\], expected str"),
        ({"threshold": "0.5"}, "threshold is '0.5', expected float or int or NoneType"),
        ({"threshold": float("nan")}, "threshold must be finite, got nan"),
        ({"threshold": 10**400}, "threshold must be finite"),
        ({"origin": None}, "origin is None, expected str"),
        ({"calibration": REMOVED}, "lacks calibration"),
        ({"calibration": []}, r"calibration is \[\], expected dict or NoneType"),
        ({"calibration__rule": "best"}, "cannot be used .* got 'ssim_hbd' and 'best'"),
        ({"calibration__band": REMOVED}, "cannot be used .*a calibration has the fields"),
    ],
)
def test_an_odd_configuration_is_named(copy, fields, message):
    exchange(copy, format.CONFIG, **fields)
    refused(copy, message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__generator": "vae"}, r"config\.json cannot be used .*unknown generator 'vae'"),
        ({"model__options__width": "wide"}, r"config\.json cannot be used"),
        ({"model__options__dtype": "float32"}, r"config\.json cannot be used .*dtype"),
        ({"model__options__width": 8}, "fold 0 does not fit the network"),
        ({"model__mask_size": 12}, r"says mask_size=12, and its network paints \[1, 16, 16, 3\]"),
        ({"measure__sort": 1}, r"config\.json cannot be used .*sort"),
        ({"measure__holes": 3}, "cannot be used .*holes must be 1, 4, 5, 9, got 3"),
        ({"measure__holes": []}, "cannot be used"),
        ({"measure__bins": "64"}, "cannot be used .*bins"),
        ({"measure__bins": 32}, "hbd of its golden images differs by"),
    ],
)
def test_a_configuration_of_another_network_is_named(copy, fields, message):
    exchange(copy, format.CONFIG, **fields)
    refused(copy, message, loaders=[export.load_detector])


def test_an_unknown_metric_is_named(copy):
    exchange(copy, format.CONFIG, measure__metric="psnr")
    refused(copy, "scores by 'psnr', which is not one of ssim_hbd, ")


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"\xff", b"{"])
def test_a_configuration_that_is_no_json_is_named(copy, content):
    rewrite(copy, format.CONFIG, content)
    refused(copy, r"config\.json (is damaged|is not a JSON object)")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"similarities": np.zeros((5, 3), np.float32)}, r"similarities \(5, 3\), expected \(5, 8\)"),
        ({"similarities": np.zeros((4, 8), np.float32)}, r"similarities \(4, 8\), expected \(5, 8\)"),
        ({"similarities": np.full((5, 8), np.nan, np.float32)}, "golden images differs by nan"),
        ({"similarities": None}, "golden.safetensors holds images, expected images, similarities"),
        ({"images": images(8) / 255}, "images float64 .* expected uint8"),
        ({"images": images(8)[:, :16]}, r"images uint8 \(8, 16, 32, 3\), expected uint8"),
        ({"images": images(0)}, r"images uint8 \(0, 32, 32, 3\), expected uint8"),
    ],
)
def test_odd_golden_arrays_are_named(copy, fields, message):
    exchange(copy, format.GOLDEN, **fields)
    refused(copy, message)


@pytest.mark.parametrize(
    "name", ["weights", "x/params/a", "0/params", "00/params/a", "0/optimizer/a", "0/params//a"]
)
def test_odd_names_of_weights_are_named(copy, name):
    exchange(copy, format.WEIGHTS, **{name: np.zeros(1, np.float32)})
    refused(copy, f"holds '{name}', which names no weight of a fold")


def test_weights_in_each_others_way_and_lacking_folds_are_named(copy):
    weights = weight_files.load(copy / format.WEIGHTS)
    first = next(iter(weights))
    exchange(copy, format.WEIGHTS, **{f"{first}/more": np.zeros(1, np.float32)})
    refused(copy, "cannot be used")
    exchange(
        copy,
        format.WEIGHTS,
        **{name: None for name in weights if name.startswith("0/")},
        **{f"{first}/more": None},
    )
    refused(copy, "holds the folds 1, expected 0 to 1")


def test_a_program_that_jax_cannot_read_is_a_sentence(copy):
    rewrite(copy, format.SCORER, b"no program")
    refused(copy, r"scorer\.stablehlo cannot be used with jax", loaders=[export.load_exported])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": {}}, "lacks generator, options, image_size, mask_size"),
        ({"model": {**MODEL, "mask_size": 8}}, r"images and holes of \(32, 16\) pixels, .* says \(32, 8\)"),
        ({"variables": []}, "has no folds"),
        ({"threshold": float("nan")}, "threshold must be finite"),
        ({"threshold": np.float32("inf")}, "threshold must be finite"),
        ({"model": {**MODEL, "options": {"width": jnp.float32}}}, "cannot hold the detector's description"),
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
    with pytest.raises(ValueError, match="lies below a file"):
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
