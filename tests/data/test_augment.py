import colorsys

import numpy as np
import pytest

from mim_jax.data.augment import augment_test


def images(count=3, size=12):
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    pixels[0, 0, 0], pixels[0, 0, 1], pixels[0, 0, 2] = 0, 255, 77  # Black, white and grey have no hue.
    return pixels


def saturate(image, factor):
    """The saturation of HSV times the factor, clipped at 1, pixel by pixel."""
    result = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255))
        result[place] = colorsys.hsv_to_rgb(hue, min(1.0, saturation * factor), value)
    return result * 255


def test_fixed_copies():
    originals = images()
    augmented, origin, copy = augment_test(originals)
    assert augmented.shape == (15, 12, 12, 3) and augmented.dtype == np.uint8
    np.testing.assert_array_equal(origin, np.repeat([0, 1, 2], 5))
    np.testing.assert_array_equal(copy, [0, 1, 2, 3, 4] * 3)
    for i, image in enumerate(originals):
        same, mirrored, upside_down, pale, vivid = augmented[5 * i : 5 * i + 5]
        np.testing.assert_array_equal(same, image)
        np.testing.assert_array_equal(mirrored, image[:, ::-1])
        np.testing.assert_array_equal(upside_down, image[::-1])
        # Rounded to the nearest level; float32 may tip a tie.
        assert np.max(np.abs(pale - saturate(image, 0.7))) <= 0.5 + 1e-3
        assert np.max(np.abs(vivid - saturate(image, 1.3))) <= 0.5 + 1e-3
    assert not np.array_equal(augmented[3], augmented[4])


def test_random_copies_are_seeded_by_image_and_explained_by_flips_and_saturation():
    originals = images(count=4)
    augmented, origin, copy = augment_test(originals, mode="random", seed=7)
    np.testing.assert_array_equal(copy, [1, 2, 3, 4, 5] * 4)
    np.testing.assert_array_equal(augmented, augment_test(originals, mode="random", seed=7)[0])
    assert not np.array_equal(augmented, augment_test(originals, mode="random", seed=8)[0])
    np.testing.assert_array_equal(augmented[:10], augment_test(originals[:2], mode="random", seed=7)[0])
    flips = set()
    for image, result in zip(originals[origin], augmented, strict=True):
        # The value of HSV, max(R, G, B), does not change with saturation: it shows the flip.
        value = image.max(-1)
        kinds = {"none": value, "h": value[:, ::-1], "v": value[::-1], "hv": value[::-1, ::-1]}
        (kind,) = [name for name, flipped in kinds.items() if np.array_equal(flipped, result.max(-1))]
        flips.add(kind)
    assert flips == {"none", "h", "v", "hv"}


def test_bad_arguments():
    with pytest.raises(ValueError, match="uint8"):
        augment_test(images() / 255.0)
    with pytest.raises(ValueError, match=r"\[12, 12, 3\]"):
        augment_test(images()[0])
    assert augment_test(images()[:0])[0].shape == (0, 12, 12, 3)
