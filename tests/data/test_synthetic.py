"""The procedural images: reproducible scenes, the paper's class structure, and groups for splitting."""

from collections import defaultdict

import numpy as np
import pytest
from scipy import ndimage

from mim_jax.data.synthetic import fields, lesions

LABELS = tuple(lesions.PAPER_COUNTS)


def test_classes_and_counts_are_the_papers():
    assert sum(lesions.CLASS_GROUPS.values(), ()) == LABELS
    assert [len(classes) for classes in lesions.CLASS_GROUPS.values()] == [1, 3, 8, 7]
    assert lesions.PAPER_COUNTS["mpox"] == 220
    assert sum(lesions.PAPER_COUNTS.values()) == 220 + 1690
    assert sum(lesions.PAPER_COUNTS[label] for label in lesions.CLASS_GROUPS["pox_like"]) == 190


@pytest.mark.parametrize("negatives", [18, 19, 37, 130, 500, 1690])
def test_quick_counts_spread_the_negatives_in_proportion(negatives):
    counts = lesions.quick_counts(12, negatives)
    assert tuple(counts) == LABELS
    assert counts.pop("mpox") == 12
    assert sum(counts.values()) == negatives
    for label, count in counts.items():
        share = 1 + (negatives - 18) * lesions.PAPER_COUNTS[label] / 1690
        assert count in (int(share), int(share) + 1)


def test_full_counts_are_close_to_the_papers():
    counts = lesions.quick_counts(220, 1690)
    assert all(abs(counts[label] - wanted) <= 1 for label, wanted in lesions.PAPER_COUNTS.items())


def test_an_image_depends_on_seed_label_and_index_alone():
    images, labels, groups, names = lesions.lesion_images({"nv": 2, "mpox": 4, "hfmd": 0}, size=40, seed=3)
    assert images.shape == (6, 40, 40, 3)
    assert images.dtype == np.uint8
    assert labels == ["nv"] * 2 + ["mpox"] * 4
    assert names == [
        "nv/0000.png", "nv/0001.png", "mpox/0000.png", "mpox/0001.png", "mpox/0002.png", "mpox/0003.png",
    ]  # fmt: skip
    fewer = lesions.lesion_images({"mpox": 2, "nv": 1}, size=40, seed=3)
    np.testing.assert_array_equal(images[[2, 3, 0]], fewer[0])
    assert [groups[i] for i in (2, 3, 0)] == fewer[2]
    for image, name in zip(images, names, strict=True):
        label, index = name.removesuffix(".png").split("/")
        np.testing.assert_array_equal(image, lesions.render(label, int(index), size=40, seed=3))


def test_every_seed_class_and_index_is_another_picture():
    pictures = [lesions.render(label, i, size=32) for label in LABELS for i in range(3)]
    pictures += [lesions.render("mpox", 0, size=32, seed=seed) for seed in (1, 2)]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_groups_are_patients_of_one_to_three_images_within_a_class():
    _, labels, groups, names = lesions.lesion_images({"mpox": 170, "measles": 34}, size=16, seed=5)
    members = defaultdict(list)
    for label, group, name in zip(labels, groups, names, strict=True):
        assert group.startswith(f"{label}/")
        members[group].append(name)
    sizes = [len(images) for images in members.values()]
    assert set(sizes) == {1, 2, 3}
    assert len(sizes) == 204 / 1.7
    mpox = [group for group in groups if group.startswith("mpox/")]
    assert mpox == sorted(mpox)


def test_images_of_a_patient_are_alike_in_colour_yet_different_shots():
    images, _, groups, _ = lesions.lesion_images({"mpox": 119}, size=16, seed=1)
    colour = images.reshape(len(images), -1, 3).mean(1)
    members = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    several = [rows for rows in members.values() if len(rows) > 1]
    within = np.mean([colour[rows].var(0).sum() for rows in several])
    assert within < 0.3 * colour.var(0).sum()
    assert all((images[rows[0]] != images[rows[1]]).mean() > 0.5 for rows in several)


def test_classes_do_not_share_patients():
    brightness = [lesions.lesion_images({label: 34}, size=16)[0].mean((1, 2, 3)) for label in ("mpox", "hpv")]
    assert abs(np.corrcoef(brightness)[0, 1]) < 0.6


@pytest.mark.parametrize("label", LABELS)
def test_the_scene_is_the_same_at_every_size(label):
    for index in range(2):
        small = lesions.render(label, index, size=64, seed=11).astype(float)
        large = lesions.render(label, index, size=128, seed=11).astype(float)
        halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.corrcoef(small.ravel(), halved.ravel())[0, 1] > 0.9
        assert abs(small.mean() - large.mean()) < 4


@pytest.mark.parametrize("label", LABELS)
def test_pictures_have_detail_and_are_not_burnt_out(label):
    for index in range(6):
        image = lesions.render(label, index, size=48, seed=7)
        assert image.astype(float).std((0, 1)).min() > 3
        assert (image.max(-1) >= 254).mean() < 0.1
        # Only the area outside a dermatoscope's field may be black.
        assert (image.max(-1) <= 4).mean() < (0.3 if label in lesions.CLASS_GROUPS["dermoscopy"] else 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lesions.render("smallpox", 0, size=64), "unknown lesion class 'smallpox'.*mpox, chickenpox"),
        (lambda: lesions.lesion_images({"MPOX": 1}, size=64), "unknown lesion class 'MPOX'"),
        (lambda: lesions.render("mpox", 0, size=8), "size is 8"),
        (lambda: lesions.render("mpox", -1, size=64), "index is -1"),
        (lambda: lesions.render("mpox", 0, size=64, seed=-2), "seed is -2"),
        (lambda: lesions.quick_counts(10, 17), "10 positives and 17 negatives"),
        (lambda: lesions.quick_counts(0, 18), "0 positives"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("cells", [4, 32, 128])
def test_noise_has_unit_variance_where_the_pixels_carry_it(cells):
    rng = np.random.default_rng(0)
    draws = np.stack([fields.noise(rng, cells, 256) for _ in range(20)])
    assert draws.std() == pytest.approx(1, abs=0.15)


def test_noise_may_be_finer_across_than_down():
    draw = fields.noise(np.random.default_rng(0), 4, 64, across=32)
    assert np.abs(np.diff(draw, axis=1)).mean() > 3 * np.abs(np.diff(draw, axis=0)).mean()


def test_noise_drawn_finer_than_the_pixels_is_their_average():
    fine = fields.noise(np.random.default_rng(1), 96, 192)
    coarse = fields.noise(np.random.default_rng(1), 96, 48)
    np.testing.assert_allclose(coarse, fine.reshape(48, 4, 48, 4).mean((1, 3)), atol=0.06)


def test_blur_is_a_gaussian():
    planes = np.random.default_rng(2).random((3, 50, 50), np.float32)
    expected = ndimage.gaussian_filter(planes, (0, 1.5, 1.5), mode="nearest", radius=(0, 4, 4))
    np.testing.assert_allclose(fields.blurred(planes, 0.03), expected, atol=1e-6)


@pytest.mark.parametrize("size", [40, 200])
def test_strokes_cover_their_area_at_every_size(size):
    straight = np.array([[[0.2, 0.2], [0.35, 0.4], [0.5, 0.6]]])
    coverage = fields.strokes(size, straight, np.array([0.02]))
    assert coverage.mean() == pytest.approx(0.5 * 0.02, rel=0.03)
    assert coverage.max() <= 1
    rows, columns = np.nonzero(coverage > 0.2)
    np.testing.assert_allclose(
        (rows + 0.5) / size - 0.2, 0.75 * ((columns + 0.5) / size - 0.2), atol=1.5 / size + 0.02
    )
