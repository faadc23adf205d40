"""What a configuration means for the data: sources, groups, splits, and the facts that are reported."""

import numpy as np
import pytest
from PIL import Image

from configs.mim import get_config
from mim_jax.data.dataset import Dataset
from mim_jax.data.folds import Split
from mim_jax.data.sources import load
from mim_jax.evaluate import metadata, test_set
from mim_jax.train import config as configuration
from mim_jax.train import mim
from mim_jax.train.images import load_clinical, load_dataset


def invented(images, labels, groups):
    names = [f"msld/{label}/{i}.png" for i, label in enumerate(labels)]
    return Dataset(np.stack(images), *map(np.array, (labels, groups, names)), "msld", "mpox", grouped=True)


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def config(tmp_path):
    found = get_config("quick")
    found.data.image_size, found.mask.size = 32, 16
    found.data.data_dir = str(tmp_path / "prepared")
    return found


def parse(config):
    return configuration.parse(config.to_dict())


def test_sources_are_read_as_the_configuration_says(config, monkeypatch, tmp_path):
    asked = {}

    def load_sources(folders, **options):
        asked.update(options, folders=folders)
        return invented([noise(0), noise(0), noise(1)], ["mpox", "mpox", "nv"], ["a", "b", "c"])

    monkeypatch.setattr(load, "load_sources", load_sources)
    config.data.sources.msld = str(tmp_path / "msld")
    config.data.per_class = 7
    dataset = load_dataset(parse(config))
    assert asked["folders"] == {"msld": str(tmp_path / "msld")} and asked["per_class"] == 7
    assert asked["data_dir"] == tmp_path / "prepared" and asked["size"] == 32
    # The two identical photographs of mpox are one group now, and the counts are not the paper's.
    assert dataset.groups.tolist() == ["a", "a", "c"] and len(dataset.duplicates) == 1
    assert any("mpox" in sentence and "220" in sentence for sentence in dataset.remarks)


def test_the_clinical_test_has_procedural_images_only_where_all_are(config, tmp_path):
    config.evaluation.procedural_clinical = 18
    drawn = load_clinical(parse(config))
    assert len(drawn) == 18 and "mpox" not in drawn.labels
    config.data.procedural_positives, config.data.procedural_negatives = 2, 18
    main = {image.tobytes() for image in load_dataset(parse(config)).images}
    assert not main & {image.tobytes() for image in drawn.images}
    config.data.root = str(tmp_path)
    assert load_clinical(parse(config)) is None


def test_negatives_of_a_positive_patient_are_not_tested():
    images = [noise(seed) for seed in range(5)]
    dataset = invented(images, ["mpox", "mpox", "nv", "nv", "bkl"], ["a", "b", "b", "c", "d"])
    assert dataset.shared_negatives.tolist() == [2]
    assert dataset.tested_negatives.tolist() == [3, 4]
    none = np.array([], int)
    split = Split(0, np.array([0]), np.zeros(1, np.int32), none, np.array([1]), none)
    images = test_set.make_test_set(dataset, [split], mode="fixed", seed=0)
    (part,) = images.parts
    assert set(images.index[part].tolist()) == {1, 3, 4}
    assert np.sum(images.index[part] == 1) == 5


@pytest.mark.parametrize("held_out", [0.0, 0.5])
def test_each_positive_is_tested_once_and_what_is_held_out_never_trained_on(config, held_out):
    config.data.folds, config.data.procedural_positives, config.data.procedural_negatives = 3, 12, 18
    config.training.batch_size, config.data.held_out = 4, held_out
    experiment = configuration.build(parse(config), mim, clinical=False)
    positives = set(experiment.dataset.positives.tolist())
    for split in experiment.splits:
        parts = [set(part.tolist()) for part in (split.train, split.held_out, split.test)]
        assert set.union(*parts) == positives and sum(map(len, parts)) == len(positives)
        assert bool(parts[1]) == bool(held_out) and not split.labels.any()
    assert sorted(i for split in experiment.splits for i in split.test.tolist()) == sorted(positives)


def test_every_field_reaches_the_settings_and_unknown_or_missing_ones_are_named(config):
    """A field that nothing reads is an error, as is a missing one."""
    some = {"data": "folds", "mask": "margin", "loss": "real_weight", "optimizer": "b1", "training": "epochs"}
    for section, name in {**some, "evaluation": "resamples", "decision": "rule"}.items():
        given = config.to_dict()
        value = given[section].pop(name)
        with pytest.raises(ValueError, match=rf"the configuration lacks .*{name}"):
            configuration.parse(given)
        given[section] |= {name: value, "surplus": 1}
        with pytest.raises(ValueError, match=rf"does not have config\.{section}\.surplus"):
            configuration.parse(given)
    settings = parse(config)
    assert (
        configuration.with_seed(settings, 7).given["seed"] == 7 == configuration.with_seed(settings, 7).seed
    )
    assert settings.mim.mask.size == 16 and settings.data.min_side == 32


def test_pictures_that_the_gate_flags_are_among_the_facts_of_a_run(config, tmp_path):
    rng = np.random.default_rng(0)
    names = [f"data/{name}" for name in ("mpox/1", "mpox/2", "mpox/black", "other/1")]
    names += ["clinic/ward/1", "clinic/ward/black"]
    for name in names:
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        black = name.endswith("black")
        pixels = np.zeros((40, 40, 3)) if black else rng.integers([150, 90, 70], [230, 150, 130], (40, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    (tmp_path / "data/mpox/notes.txt").touch()
    config.data.root, config.data.folds = str(tmp_path / "data"), 2
    config.training.batch_size = 1
    config.evaluation.clinical = str(tmp_path / "clinic")
    experiment = configuration.build(parse(config), mim)
    facts = metadata.describe_run("MIM", experiment)["data"]
    assert [name for name, why in facts["doubtful"] if "too dark" in why] == ["mpox/black.png"]
    assert facts["passed_over"] == [["mpox/notes.txt", "no image suffix"]] and facts["unusable"] == []
    clinical = metadata.describe_clinical(experiment.clinical)
    assert [name for name, why in clinical["doubtful"] if "too dark" in why] == ["clinical/ward/black.png"]
    assert clinical["unusable"] == [] and len(experiment.clinical) == 2
    # Clinical images are never refused, because every one counts, and not checked if the gate is off.
    config.data.gate.training = "refuse"
    assert len(load_clinical(parse(config)).doubtful) == 1
    config.data.gate.training = "off"
    assert load_clinical(parse(config)).doubtful == ()
