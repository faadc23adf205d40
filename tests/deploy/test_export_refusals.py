"""A faulty export is refused with one line that names the fault."""

import numpy as np
import pytest

from mim_jax.data import weight_files
from mim_jax.deploy import export, format
from tests.deploy.exports import REMOVED, exchange, images, refused, rewrite

pytestmark = pytest.mark.usefixtures("compiled_quickly")


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
        ({"format": 0}, "has format 0, but this mim_jax reads 2"),
        ({"calling_convention": 1, "jax": "0.4.1"}, r"exported by jax 0.4.1 .*export it again"),
        ({"platforms": ["tpu"]}, "runs on tpu, but JAX computes on cpu"),
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
        ({"model__mask_size": 33}, "image_size=32, mask_size=33, .* which is impossible"),
        ({"model__margin": -1}, "margin=-1, .* which is impossible"),
        ({"model__generator": None}, r"model\.generator is None, expected str"),
        ({"model__options": REMOVED}, r"lacks model\.options"),
        ({"folds": 3}, "holds the folds 0, 1, expected 0 to 2"),
        ({"folds": 0}, "folds=0, which is impossible"),
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
        ({"model__mask_size": 12}, r"says mask_size=12, but its network fills in \[1, 16, 16, 3\]"),
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
    refused(copy, f"holds '{name}', which does not name a weight of a fold")


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
