"""Near-duplicates are merged into one group or stop the run; those already in one group are left alone."""

import numpy as np
import pytest
from PIL import Image

from mim_jax.data import duplicates
from mim_jax.data.dataset import Dataset


def photograph(seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))


def dataset(images, labels, groups):
    names = [f"{label}/{i}.png" for i, label in enumerate(labels)]
    return Dataset(np.stack(images), *map(np.array, (labels, groups, names)), "invented", "mpox")


def brighter(image):
    return np.clip(image.astype(int) + 9, 0, 255).astype(np.uint8)


def test_links_are_followed_from_group_to_group_and_across_classes():
    first, second, third = (photograph(seed) for seed in range(3))
    images = [first, brighter(first), second, brighter(second), third]
    data = dataset(images, ["mpox", "mpox", "mpox", "eczema", "eczema"], ["b", "a", "a", "c", "d"])
    settled = duplicates.settle(data, "group")
    # 0 ~ 1 joins b with a, 2 ~ 3 joins a with c: all three are one.
    assert settled.groups.tolist() == ["a", "a", "a", "a", "d"]
    assert settled.duplicates == (("mpox/0.png", "mpox/1.png"), ("mpox/2.png", "eczema/3.png"))
    assert duplicates.settle(settled, "group") is settled
    assert duplicates.settle(settled, "error") is settled


def test_error_and_ignore():
    data = dataset([photograph(0), brighter(photograph(0))], ["mpox", "mpox"], ["a", "b"])
    with pytest.raises(ValueError, match=r"1 sets of near-duplicates .*mpox/0.png ~ mpox/1.png"):
        duplicates.settle(data, "error")
    assert duplicates.settle(data, "ignore") is data
