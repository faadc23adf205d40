"""An export scores as its detector does, with JAX and NumPy alone, and refuses to when anything is amiss."""

import hashlib
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mim_jax import Detector, artefact, export, tensors
from mim_jax.detector import Measure, abstract_variables
from mim_jax.models import make_generator

SIZE = 32
MODEL = {
    "generator": "context_encoder",
    "options": {"width": 4, "bottleneck": "pointwise", "bottleneck_channels": 8},
    "image_size": SIZE,
    "mask_size": SIZE // 2,
}
# Loads an export where importing anything else that this project needs is an error.
ALONE = """
import sys
for name in ("flax", "optax", "orbax", "ml_collections", "absl", "dm_pix", "PIL", "sklearn", "safetensors"):
    sys.modules[name] = None
import numpy as np
from mim_jax.export import load_exported
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
        generator, folds, SIZE, SIZE // 2, 0.7, "invented", Measure(region="image", bins=64), MODEL
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
    manifest = json.loads((folder / artefact.MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / artefact.MANIFEST).write_text(json.dumps(manifest))


def test_scores_are_the_detectors_with_jax_and_numpy_alone(exported, tmp_path):
    detector, path, digest = exported
    np.save(tmp_path / "images.npy", images(11))
    arguments = [path, digest, tmp_path / "images.npy", tmp_path / "scores.npy"]
    subprocess.run([sys.executable, "-c", ALONE, *map(str, arguments)], check=True)
    expected = np.stack([folds.mean(axis=0) for folds in detector.similarities(images(11)).values()])
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=1e-6)


def test_it_is_a_novelty_detector_and_a_function_for_other_programs(exported):
    detector, path, _ = exported
    loaded = export.load_exported(path)
    np.testing.assert_allclose(loaded.score_samples(images(3)), detector.score_samples(images(3)), atol=1e-6)
    np.testing.assert_array_equal(loaded.predict(images(3)), detector.predict(images(3)))
    fn, variables = loaded.pure()
    inside = jax.jit(lambda v, x: 2 * fn(v, x).ssim)(variables, images(5))
    np.testing.assert_allclose(inside / 2, loaded.similarities(images(5))["ssim"], atol=1e-6)
    with pytest.raises(ValueError, match="takes uint8 images, not float64"):
        loaded.score_samples(images(1) / 255)


def test_the_network_comes_back_from_the_weights(exported):
    detector, path, _ = exported
    again = Detector.from_export(path)
    np.testing.assert_array_equal(again.score_samples(images(3)), detector.score_samples(images(3)))
    assert (again.threshold, again.threshold_origin, again.measure) == (0.7, "invented", detector.measure)


def test_both_platforms_are_in_the_program(exported):
    program = jax.export.deserialize(bytearray((exported[1] / artefact.SCORER).read_bytes()))
    assert program.platforms == ("cpu", "cuda")


@pytest.mark.parametrize("name", [artefact.CONFIG, artefact.WEIGHTS, artefact.SCORER, artefact.GOLDEN])
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
    config = json.loads((copy / artefact.CONFIG).read_text())
    rewrite(copy, artefact.CONFIG, json.dumps({**config, "threshold": 0.0}).encode())
    with pytest.raises(ValueError, match="this is another export"):
        export.load_exported(copy, digest=exported[2])


def test_golden_images_find_other_weights(copy):
    weights = tensors.load(copy / artefact.WEIGHTS)
    tensors.save(copy / "new", {name: array + 0.05 for name, array in weights.items()})
    content = (copy / "new").read_bytes()
    (copy / "new").unlink()
    rewrite(copy, artefact.WEIGHTS, content)
    with pytest.raises(ValueError, match="golden images differs by"):
        export.load_exported(copy)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 0}, "has format 0 and this mim_jax reads 1"),
        ({"calling_convention": 1, "jax": "0.4.1"}, r"exported by jax 0.4.1 .*export it anew"),
        ({"platforms": ["tpu"]}, "runs on tpu, and JAX computes on cpu"),
        ({"files": {}}, "does not list the files"),
    ],
)
def test_an_outdated_or_foreign_export_says_so(copy, fields, message):
    manifest = json.loads((copy / artefact.MANIFEST).read_text())
    (copy / artefact.MANIFEST).write_text(json.dumps({**manifest, **fields}))
    with pytest.raises(ValueError, match=message):
        export.load_exported(copy)


def test_a_program_that_jax_cannot_read_is_a_sentence(copy):
    rewrite(copy, artefact.SCORER, b"no program")
    with pytest.raises(ValueError, match="cannot read"):
        export.load_exported(copy)


def test_weights_of_another_network_are_named(copy):
    config = json.loads((copy / artefact.CONFIG).read_text())
    config["model"]["options"]["width"] = 8
    rewrite(copy, artefact.CONFIG, json.dumps(config).encode())
    with pytest.raises(ValueError, match="fold 0 does not fit the network"):
        Detector.from_export(copy)


def test_slips_are_sentences(exported, tmp_path):
    detector, path, _ = exported
    with pytest.raises(ValueError, match="exists: export into a new folder"):
        export.export(detector, path)
    with pytest.raises(ValueError, match=r"is no export, it has no manifest\.json"):
        export.load_exported(tmp_path)
    (tmp_path / artefact.MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        export.load_exported(tmp_path)
    assert not [item for item in path.parent.iterdir() if item.name.startswith(".")]
