"""A classifier from launch to report: splits as in Table 3, resumed, scored, compared.

A small network stands in: the real ones have their own tests and take minutes to compile.
"""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import classifiers, mim
from mim_jax.classifiers import CLASSIFIERS, ood_scores
from mim_jax.classifiers import train as method
from mim_jax.cli import main
from mim_jax.data.dataset import Dataset
from mim_jax.train import metric_writer
from mim_jax.train.config import parse

pytestmark = pytest.mark.usefixtures("compiled_quickly")


class Small(nn.Module):
    classes: int
    width: int = 4
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(self.width, (4, 4), strides=4)(images)
        x = nn.BatchNorm(use_running_average=not train)(x)
        features = nn.relu(x).mean((1, 2))
        return nn.Dense(self.classes)(nn.Dropout(0.2, deterministic=not train)(features)), features


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(CLASSIFIERS, "resnet50", Small)
    config = classifiers.get_config("resnet50")
    config.classifier.width = 4
    fields = {
        "data.image_size": 32,
        "data.folds": 2,
        "data.procedural_positives": 12,
        "data.procedural_negatives": 36,
        "training.epochs": 4,
        "training.batch_size": 4,
        "training.checkpoint_every": 2,
        "evaluation.resamples": 50,
        "evaluation.procedural_clinical": 18,
    }
    for name, value in fields.items():
        section, field = name.split(".")
        config[section][field] = value
    return config


def run(config, workdir, *, mode="run", expect=0):
    done = main.execute(mode, config=config.to_dict(), workdir=str(workdir), device="cpu", paths=())
    assert done == expect


def invented(count=60, *, seed=0):
    """A dataset with two images per group, three known classes and two unknown ones."""
    rng = np.random.default_rng(seed)
    labels = np.array(["mpox", "chickenpox", "measles", "hfmd", "nv", "eczema"])[np.arange(count) // 2 % 6]
    groups = np.array([f"g{i // 2}" for i in range(count)])
    names = np.array([f"{label}/{i}.png" for i, label in enumerate(labels)])
    images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Dataset(images, labels, groups, names, "invented", "mpox", grouped=True)


@pytest.mark.parametrize("merged", [True, False])
def test_the_splits_are_those_of_table_3(config, merged):
    config.classifier.merged = merged
    dataset = invented()
    dataset.groups[2] = dataset.groups[0]  # chickenpox of an mpox patient: neither trained on nor tested
    splits = method.split(parse(config.to_dict()), dataset)
    known = np.flatnonzero(np.isin(dataset.labels, ["chickenpox", "measles", "hfmd"]))
    for split in splits:
        trained = set(split.train.tolist())
        assert 2 not in trained and 2 not in split.seen
        positives = set(dataset.positives.tolist())
        assert trained & positives == positives - set(split.test.tolist()) and len(split.test)
        assert set(split.seen) == trained & set(known)
        assert not set(dataset.groups[split.train]) & set(dataset.groups[split.test])
        order = {"mpox": 0} | {
            name: 1 if merged else 1 + place for place, name in enumerate(("chickenpox", "measles", "hfmd"))
        }
        assert split.labels.tolist() == [order[label] for label in dataset.labels[split.train]]
    # Each known image whose group holds no mpox is tested by exactly one fold.
    tested = np.concatenate([np.setdiff1d(known, split.train) for split in splits])
    assert sorted(tested[tested != 2].tolist()) == sorted(known[known != 2].tolist())


def test_from_launch_to_report_and_resumed_as_if_never_stopped(config, tmp_path, monkeypatch):
    run(config, tmp_path / "whole")
    events = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in events] == [1, 2, 3, 4] * 2
    results = json.loads((tmp_path / "whole/results.json").read_text())
    page = (tmp_path / "whole/report.html").read_text()
    assert "say nothing about mpox" in page and "ResNet50" in page
    for row in results["splits"]:
        table = (tmp_path / f"whole/fold_{row['fold']}/scores.csv").read_text()
        rows = list(csv.DictReader(table.splitlines()))
        assert len(rows) == row["augmented"] + row["known"] + row["unknown"] + row["seen"]
        assert row["augmented"] == 5 * row["test"]
        assert sum(line["seen"] == "True" for line in rows) == row["seen"] > 0
        assert all(0 <= float(line["probability"]) <= 1 for line in rows)
        assert set(ood_scores.SCORES) <= set(rows[0])
    assert results["clinical"]["images"]["negatives"] == 18

    # Stopped after the first checkpoint of the first fold, the run continues from it.
    class Stop(metric_writer.Recorder):
        def epoch(self, role, fold, epoch, step, metrics):
            super().epoch(role, fold, epoch, step, metrics)
            if epoch == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(metric_writer, "Recorder", Stop)
        run(config, tmp_path / "stopped", expect=main.INTERRUPTED)
    assert not (tmp_path / "stopped/fold_1").exists()
    run(config, tmp_path / "stopped")
    again = json.loads((tmp_path / "stopped/results.json").read_text())
    assert results.pop("wall_time") and again.pop("wall_time")
    assert again == results


def test_mistakes_are_one_sentence(config, tmp_path, capsys):
    def says(sentence, **fields):
        changed = config.copy_and_resolve_references()
        for name, value in fields.items():
            section, field = name.split("__")
            changed[section][field] = value
        run(changed, tmp_path / "run", expect=1)
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert sentence in said and said.startswith("mim_jax: ")
        assert not (tmp_path / "run/checkpoints").exists()

    says("names monkeypox, of which procedural lesions has no image", data__known=("monkeypox", "hfmd"))
    says("name one or more classes other than 'mpox'", data__known=("mpox",))
    says("unknown classifier 'resnet51': choose one of", classifier__name="resnet51")
    says("there is no file", classifier__pretrained=str(tmp_path / "none.safetensors"))
    run(config, tmp_path / "run", mode="compare", expect=1)
    assert "--mode=compare needs workdirs" in capsys.readouterr().err


def test_training_is_configured_as_mim_is():
    """The paper: "consistent with what was used for MIM"."""
    ours, theirs = classifiers.get_config("swin_b"), mim.get_config()
    assert ours.optimizer == theirs.optimizer
    for field, value in ours.training.items():
        assert theirs.training[field] == value
    for variant in classifiers.VARIANTS:
        method.check(parse(classifiers.get_config(variant).to_dict()))
    with pytest.raises(ValueError, match=r"no variant '': choose one of 'resnet50'"):
        classifiers.get_config()
