import numpy as np
from PIL import Image
from scipy.fft import dct

from mim_jax.data import inspection
from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import make_folds
from mim_jax.data.inspection import (
    format_inspection,
    inspect,
    near_duplicate_clusters,
    perceptual_hashes,
)


def scene(seed, size=64):
    """A smooth random picture with structure like a photograph's."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def altered(image):
    """The same picture, reduced, enlarged again and a little brighter."""
    small = Image.fromarray(image).resize((40, 40)).resize((64, 64))
    return np.clip(np.asarray(small).astype(int) + 6, 0, 255).astype(np.uint8)


def dataset(images, labels, groups=None, **options):
    names = np.array([f"{label}/{i}.jpg" for i, label in enumerate(labels)])
    return Dataset(
        images=np.stack(images),
        labels=np.array(labels),
        groups=names if groups is None else np.array(groups),
        names=names,
        source="a test",
        positive="mpox",
        grouped=groups is not None,
        **options,
    )


def findings(data):
    return {finding.kind: finding for finding in inspect(data, folds=None).findings}


def test_hash_agrees_with_its_definition_image_by_image():
    images = np.stack([scene(seed) for seed in range(5)])
    hashes, flat = perceptual_hashes(images)
    assert not flat.any()
    for image, found in zip(images, hashes, strict=True):
        grey = np.asarray(
            Image.fromarray(image).convert("L").resize((32, 32), Image.Resampling.LANCZOS), float
        )
        low = dct(dct(grey, axis=0), axis=1)[:8, :8].ravel()[1:]
        assert f"{found:063b}"[::-1] == "".join("1" if value > np.median(low) else "0" for value in low)


def test_counts_by_class_and_fold():
    labels = ["measles", *["mpox"] * 9, "measles", "other"]
    groups = ["m", *"aabbccdef", "m", "o"]
    data = dataset([scene(i) for i in range(12)], labels, groups)
    folds = make_folds(data.groups[data.positives], folds=3, seed=0)
    found = inspect(data, folds=folds)
    assert list(found.images.items()) == [("mpox", 9), ("measles", 2), ("other", 1)]
    assert found.groups == {"mpox": 6, "measles": 1, "other": 1}
    assert [(row[0], row[1], row[3]) for row in found.folds] == [(0, 6, 3), (1, 6, 3), (2, 6, 3)]
    assert [row[2] + row[4] for row in found.folds] == [6] * 3
    assert found.findings == ()
    text = format_inspection(found)
    assert "No problems found." in text and "trained on" in text
    assert "12 images, 64x64 pixels, from a test" in text


def test_duplicates_are_sorted_by_what_they_spoil():
    images = [scene(i) for i in range(8)]
    data = dataset(
        [
            *images,
            images[0],
            altered(images[1]),
            images[2],
            altered(images[3]),
            images[4],
            altered(images[5]),
        ],
        # 0 = 8 and 1 ~ 9: two groups of mpox; 2 = 10 and 3 ~ 11: two classes; 4 = 12 and 5 ~ 13: one.
        ["mpox", "mpox", "measles", "mpox", *["other"] * 4, *["mpox"] * 3, "measles", "other", "other"],
        [str(i) for i in range(14)],
    )
    found = {kind: finding.items for kind, finding in findings(data).items()}
    assert found == {
        "exact_across_classes": ("measles/2.jpg = mpox/10.jpg",),
        "exact_across_groups": ("mpox/0.jpg = mpox/8.jpg",),
        "exact_within_class": ("other/4.jpg = other/12.jpg",),
        "near_across_classes": ("mpox/3.jpg ~ measles/11.jpg",),
        "near_across_groups": ("mpox/1.jpg ~ mpox/9.jpg",),
        "near_within_class": ("other/5.jpg ~ other/13.jpg",),
    }
    assert "mpox/0.jpg = mpox/8.jpg\n  What to do: give them one group" in format_inspection(
        inspect(data, folds=None)
    )


def test_images_of_one_group_may_look_alike_but_not_be_the_same():
    image = scene(0)
    found = findings(
        dataset([image, altered(image), image, scene(1)], ["mpox"] * 3 + ["other"], list("aaab"))
    )
    assert set(found) == {"exact_within_class"}
    assert found["exact_within_class"].items == ("mpox/0.jpg = mpox/2.jpg",)


def test_flat_images_are_only_compared_for_identity(monkeypatch):
    monkeypatch.setattr(inspection, "HASH_DISTANCE", 63)
    wall = np.full((64, 64, 3), 120, dtype=np.uint8)
    other_wall = wall + np.random.default_rng(0).integers(0, 3, wall.shape, dtype=np.uint8)
    data = dataset([wall, other_wall, wall, scene(1)], ["mpox", "mpox", "mpox", "other"], list("abcd"))
    assert set(findings(data)) == {"exact_across_groups"}
    assert "3 images with almost no contrast" in format_inspection(inspect(data, folds=None))


def test_clusters_are_transitive():
    first = scene(0)
    images = np.stack(
        [first, scene(1), altered(first), scene(2), altered(altered(first)), np.zeros_like(first)]
    )
    clusters = near_duplicate_clusters(np.concatenate([images, images[5:]]))
    assert clusters[0] == clusters[2] == clusters[4]
    assert clusters[5] == clusters[6]
    assert len(set(clusters.tolist())) == 4


def test_pairs_are_found_across_the_chunks_of_the_comparison(monkeypatch):
    monkeypatch.setattr(inspection, "HASH_DISTANCE", 0)
    images = np.stack([scene(seed, size=32) for seed in range(600)])
    images[590] = images[3]
    clusters = near_duplicate_clusters(images)
    assert clusters[590] == clusters[3] and len(set(clusters.tolist())) == 599


def test_groups_files_and_missing_classes():
    data = dataset(
        [scene(0), scene(1), scene(2)],
        ["mpox", "mpox", "measles"],
        ["p", "p", "p"],
        unusable=(("mpox/x.jpg", "an empty file (0 bytes)"),),
        group_problems=(("mpox/y.jpg", "in the manifest, but not among the images"),),
        passed_over=(("mpox/z.txt", "no image suffix"),),
    )
    found = {kind: finding.items for kind, finding in findings(data).items()}
    assert found == {
        "groups_across_classes": ("p: 1 measles, 2 mpox",),
        "group_problems": ("mpox/y.jpg: in the manifest, but not among the images",),
        "unusable": ("mpox/x.jpg: an empty file (0 bytes)",),
        "passed_over": ("mpox/z.txt: no image suffix",),
    }
    alone = findings(dataset([scene(0)], ["mpox"]))
    assert set(alone) == {"ungrouped", "no_negatives"}


def test_long_findings_are_cut_in_print_only():
    unusable = tuple((f"mpox/{i}.jpg", "an empty file (0 bytes)") for i in range(14))
    data = dataset([scene(0), scene(1)], ["mpox", "other"], ["a", "b"], unusable=unusable)
    found = inspect(data, folds=None)
    assert len(found.findings[0].items) == 14
    text = format_inspection(found)
    assert "Unusable files: 14" in text and "mpox/9.jpg" in text and "mpox/10.jpg" not in text
    assert "... and 4 more" in text


def test_pictures_that_the_gate_would_refuse_are_listed():
    data = dataset([scene(0), scene(1)], ["mpox", "other"], doubtful=(("mpox/0.jpg", "blurred: so"),))
    assert findings(data)["doubtful"].items == ("mpox/0.jpg: blurred: so",)
    assert "doubtful" not in findings(dataset([scene(0), scene(1)], ["mpox", "other"]))
