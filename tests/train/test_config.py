"""What a configuration means for the data: which source is read, what is settled, what is said."""

import numpy as np
import pytest

from configs.mim import get_config
from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Fold
from mim_jax.data.sources.load import load
from mim_jax.evaluate import test_set
from mim_jax.train import config as protocol


def invented(images, labels, groups):
    names = [f"msld/{label}/{i}.png" for i, label in enumerate(labels)]
    return Dataset(np.stack(images), *map(np.array, (labels, groups, names)), "msld", "mpox", grouped=True)


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def config(tmp_path):
    settings = get_config("quick")
    settings.data.image_size, settings.mask.size = 32, 16
    settings.data.data_dir = str(tmp_path / "prepared")
    return settings


def test_sources_are_read_as_the_configuration_says(config, monkeypatch, tmp_path):
    asked = {}

    def load_sources(folders, **options):
        asked.update(options, folders=folders)
        return invented([noise(0), noise(0), noise(1)], ["mpox", "mpox", "nv"], ["a", "b", "c"])

    monkeypatch.setattr(load, "load_sources", load_sources)
    config.data.sources.msld = str(tmp_path / "msld")
    config.data.per_class = 7
    dataset = protocol.load_data(config.to_dict())
    assert asked["folders"] == {"msld": str(tmp_path / "msld")} and asked["per_class"] == 7
    assert asked["data_dir"] == tmp_path / "prepared" and asked["size"] == 32
    # The two identical photographs of mpox are one group now, and the counts are not the paper's.
    assert dataset.groups.tolist() == ["a", "a", "c"] and len(dataset.duplicates) == 1
    assert any("mpox" in sentence and "220" in sentence for sentence in dataset.remarks)


def test_the_clinical_test_has_procedural_images_only_where_all_are(config, tmp_path):
    config.evaluation.procedural_clinical = 18
    drawn = protocol.load_clinical(config.to_dict())
    assert len(drawn) == 18 and "mpox" not in drawn.labels
    config.data.procedural_positives, config.data.procedural_negatives = 2, 18
    main = {image.tobytes() for image in protocol.load_data(config.to_dict()).images}
    assert not main & {image.tobytes() for image in drawn.images}
    config.data.root = str(tmp_path)
    assert protocol.load_clinical(config.to_dict()) is None


def test_negatives_of_a_positive_patient_are_not_tested():
    images = [noise(seed) for seed in range(5)]
    dataset = invented(images, ["mpox", "mpox", "nv", "nv", "bkl"], ["a", "b", "b", "c", "d"])
    assert dataset.shared_negatives.tolist() == [2]
    assert dataset.tested_negatives.tolist() == [3, 4]
    images = test_set.make_bank(dataset, mode="fixed", seed=0)
    part = test_set.tested(images, dataset, Fold(0, np.array([0]), np.array([1])))
    assert set(images.index[part].tolist()) == {1, 3, 4}
    assert np.sum(images.index[part] == 1) == 5
