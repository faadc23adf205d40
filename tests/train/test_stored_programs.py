"""Stored programs: the bits of a traced training, and traced anew if anything they are made from changes."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import CONFIG, Painter, build

from configs.classifiers import get_config as get_classifiers
from configs.mim import get_config as get_mim
from mim_jax.inpaint.networks import GENERATORS
from mim_jax.train import mim
from mim_jax.train.config import parse, recipe
from mim_jax.train.epochs import Program, init_state
from mim_jax.train.stored_programs import StoredPrograms
from mim_jax.train.workdir import flatten

pytestmark = pytest.mark.usefixtures("compiled_quickly")
EPOCHS = np.arange(2, dtype=np.int32)
KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), np.uint8)


def train(programs=None, *, config=CONFIG, recipe="recipe", images=IMAGES, batch_size=4, epochs=EPOCHS):
    arrays = jax.device_put({"examples": {"images": images}, "scalars": {"adversary": np.float32(1)}})
    static = {"batch_size": batch_size, "drop_last": False, "split": None}
    program = Program(config, programs=programs, recipe=recipe, key=KEY, **arrays, **static)
    return program(init_state(CONFIG, KEY), jnp.asarray(epochs))


@pytest.fixture(scope="module", autouse=True)
def everything_is_loaded(tmp_path_factory, compiled_quickly):
    """Let the modules load that a first tracing imports: they would change the digest of the code."""
    train(StoredPrograms(tmp_path_factory.mktemp("first")))


class Untraceable:
    """A task that notices being traced."""

    def step(self, *_):
        raise AssertionError("traced")


def is_stored(folder, code=(), **given):
    """Whether a new process would find this training, without tracing it."""
    try:
        train(StoredPrograms(folder, code), config=Untraceable(), **given)
    except AssertionError as error:
        assert str(error) == "traced"
        return False
    return True


def test_a_stored_training_equals_a_traced_one_and_is_not_traced_again(tmp_path):
    wanted = train()
    assert not is_stored(tmp_path)
    first, again = train(StoredPrograms(tmp_path)), train(StoredPrograms(tmp_path), config=Untraceable())
    for found in (first, again):
        jax.tree.map(np.testing.assert_array_equal, wanted, found)


@pytest.mark.parametrize(
    "changed",
    [
        {"recipe": "another"},
        {"batch_size": 5},
        {"images": IMAGES[:9]},
        {"images": IMAGES / np.float32(255)},
        {"epochs": EPOCHS[:1]},
    ],
    ids=["recipe", "batch size", "number of images", "dtype", "number of epochs"],
)
def test_another_training_is_traced_anew(tmp_path, changed):
    train(StoredPrograms(tmp_path))
    assert is_stored(tmp_path)
    assert not is_stored(tmp_path, **changed)


OTHERS = {
    "generator.name": "unet",
    "generator.bottleneck": "full",
    "loss.real_input": "masked_image",
    "optimizer.decay": "linear",
    "training.precision": "bfloat16",
    "classifier.name": "resnet50",
    "classifier.pretrained": "weights.safetensors",
}


@pytest.mark.parametrize(
    "config", [get_mim(), get_classifiers("mobilenet_v3_large")], ids=["mim", "classifier"]
)
def test_every_setting_of_a_training_is_in_its_recipe(config):
    given = flatten(config.to_dict())
    recipes = {recipe(parse(given_as(config)), steps=steps) for steps in (3, 4)}
    sections = ("mask", "generator", "discriminator", "loss", "classifier", "optimizer", "training")
    changed = ["data.image_size", *(name for name in given if name.split(".")[0] in sections)]
    for name in changed:
        value = given[name]
        if isinstance(value, bool):
            other = not value
        else:
            other = (
                OTHERS[name] if isinstance(value, str) else value + 1 if isinstance(value, int) else value / 2
            )
        recipes.add(recipe(parse(given_as(config, {name: other})), steps=3))
    assert len(recipes) == 2 + len(changed)


def given_as(config, fields=()):
    """The configuration as a plain dictionary, with other values of these fields."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(dict(fields))
    return copy.to_dict()


def test_only_trainings_of_our_own_networks_have_a_recipe(tmp_path, monkeypatch):
    monkeypatch.setitem(GENERATORS, "mine", Painter)
    assert all(one.recipe for one in mim.trainings(build(), tmp_path))
    assert not any(one.recipe for one in mim.trainings(build(**{"generator.name": "mine"}), tmp_path))


def test_changed_code_and_settings_are_traced_anew(tmp_path, monkeypatch):
    config, module = tmp_path / "mine.py", tmp_path / "loaded.py"
    for path in (config, module):
        path.write_text("weight = 1")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("loaded")
    code = [str(config)]
    for change in (
        lambda: config.write_text("weight = 10"),
        lambda: module.write_text("weight = 10"),
        lambda: os.utime(module, ns=(1, 1)),  # as long as before
        lambda: jax.config.update("jax_default_matmul_precision", "bfloat16"),
    ):
        train(StoredPrograms(tmp_path / "traced", code))
        assert is_stored(tmp_path / "traced", code)
        try:
            change()
            assert not is_stored(tmp_path / "traced", code)
        finally:
            jax.config.update("jax_default_matmul_precision", None)


def test_a_damaged_program_is_traced_anew_and_replaced(tmp_path):
    train(StoredPrograms(tmp_path))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        assert not is_stored(tmp_path)
        train(StoredPrograms(tmp_path))
        assert is_stored(tmp_path)


def test_a_program_that_cannot_be_stored_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    jax.tree.map(np.testing.assert_array_equal, train(), train(StoredPrograms(tmp_path / "file" / "traced")))
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    jax.tree.map(np.testing.assert_array_equal, train(), train(StoredPrograms(tmp_path / "traced")))
    assert list((tmp_path / "traced").iterdir()) == []
