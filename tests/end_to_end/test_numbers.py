"""Extreme values: a run succeeds or says why not, and no image silently gets a wrong score."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from launching import finish, start
from PIL import Image
from small_training import CONFIG, SHORT, configuration, small_networks

from mim_jax import composite_similarities
from mim_jax.cli import main
from mim_jax.decide.decision import Decision
from mim_jax.deploy.export import export
from mim_jax.inpaint import gan
from mim_jax.inpaint.networks import make_generator
from tests.deploy.small import SIZE, make_detector


def white(place):
    return np.full((64, 64, 3), 255, np.uint8)


# Changed fields, function that makes the images, expected message; "" = the run succeeds, with its report.
LIMITS = {
    "rate_zero": ({"optimizer.learning_rate": 0.0}, None, ""),
    "rate_ten": ({"optimizer.learning_rate": 10.0}, None, ""),
    "rate_below_zero": (
        {"optimizer.learning_rate": -1.0},
        None,
        "learning_rate must be a finite number >= 0",
    ),
    "rate_no_number": (
        {"optimizer.learning_rate": float("nan")},
        None,
        "learning_rate must be a finite number >= 0",
    ),
    "rate_infinite": ({"optimizer.learning_rate": float("inf")}, None, "lower --config.optimizer"),
    "memory_of_one": ({"optimizer.b1": 1.0}, None, "b1 must be between"),
    "weight_infinite": ({"loss.pixel_weight": float("inf")}, None, "pixel_weight must be between"),
    "white": ({}, white, "form 1 groups, too few for 2 folds"),
    "white_apart": ({"data.duplicates": "ignore"}, white, ""),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_run_at_a_limit_ends_well_or_says_why(name, tmp_path, capsys, compiled_quickly):
    fields, make, expected = LIMITS[name]
    if make:
        for label in ("mpox", "other"):
            (tmp_path / "images" / label).mkdir(parents=True)
            for place in range(10):
                Image.fromarray(make(place)).save(tmp_path / "images" / label / f"{place}.png")
        fields = {**fields, "data.root": str(tmp_path / "images")}
    with small_networks():
        config = configuration(**{**SHORT, **fields})
        workdir = tmp_path / "run"
        status = main.execute("run", config=config, workdir=str(workdir), device="auto", paths=[])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mim_jax: ")]
    if expected:
        assert status == 1 and len(said) == 1 and expected in said[0], said
    else:
        assert status == 0 and not said
        text = (workdir / "results.json").read_text()
        assert "NaN" not in text and "Infinity" not in text
        assert 0 <= json.loads(text)["auroc"]["augmented"]["mim"]["ssim_hbd"]["mean"] <= 1


def test_nan_weights_decide_nothing(tmp_path):
    sound = make_detector()
    spoilt = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), sound.variables)
    broken = dataclasses.replace(sound, variables=spoilt)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    assert np.isnan(broken.score_samples(images)).all()
    with pytest.raises(ValueError, match=r"3 of 3 images have no finite score \(first image 0\)"):
        broken.predict(images)
    for assessment in broken.assess(images):
        assert assessment.decision is Decision.UNUSABLE and "weights contain NaN" in assessment.reasons[0]
    with pytest.raises(ValueError, match="finite"):
        export(broken, tmp_path / "export")


def test_steps_and_scores_of_constant_images_are_finite():
    """Constant images have no variance and empty bins, and show the network nothing."""
    config = dataclasses.replace(CONFIG, flips=True)
    key = jax.random.key(0)
    plain = jnp.stack([jnp.full((32, 32, 3), level, jnp.uint8) for level in (0, 0, 128, 255)])
    with jax.debug_nans(True):
        state = jax.jit(gan.init_state, static_argnums=1)(key, config)
        step = jax.jit(gan.adversarial_step, static_argnums=0)
        state, metrics = step(config, state, plain, key)
        same = jax.jit(composite_similarities)(plain, plain[:, 8:24, 8:24], (8, 8))
        other = jax.jit(composite_similarities)(plain, 255 - plain[:, 8:24, 8:24], (8, 8))
        # Distances contain square roots, whose slope at 0 is infinite.
        slopes = jax.grad(
            lambda x: sum(jnp.sum(value) for value in composite_similarities(x, x[:, 8:24, 8:24], (8, 8)))
        )(plain.astype(jnp.float32) / 255)
    for values in (*metrics.values(), *same, *other, slopes):
        assert np.isfinite(np.asarray(values)).all()
    for values in same:
        np.testing.assert_allclose(values, 1, atol=1e-6)


def test_scores_are_the_same_bits_in_any_order_batch_and_form():
    scorer = make_detector()
    images = np.random.default_rng(1).integers(0, 256, (43, SIZE, SIZE, 3), dtype=np.uint8)
    expected = scorer.score_samples(images)
    order = np.random.default_rng(2).permutation(len(images))
    np.testing.assert_array_equal(scorer.score_samples(images[order]), expected[order])
    for size in (1, 5, 8, 9, 31):  # incomplete batches are padded
        parts = [scorer.score_samples(images[k : k + size]) for k in range(0, len(images), size)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    np.testing.assert_array_equal(scorer.score_samples(iter(images)), expected)


def test_half_precision_keeps_scores_within_a_hundredth():
    """The documented bound for bfloat16 networks with float32 weights."""
    single = make_detector()
    options = single.model["options"]
    half = dataclasses.replace(
        single, generator=make_generator("context_encoder", options, dtype=jnp.bfloat16)
    )
    images = np.random.default_rng(3).integers(0, 256, (16, SIZE, SIZE, 3), dtype=np.uint8)
    for name, values in single.similarities(images).items():
        gap = np.abs(half.similarities(images)[name] - values).max()
        assert 0 < gap < 0.01, name


STREAM = """
from pathlib import Path
import numpy as np
from tests.deploy.small import SIZE, make_detector
from mim_jax.data.batches import batch_size

scorer = make_detector()
image = np.random.default_rng(4).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
for _ in range(10):
    scorer.score_samples(image for _ in range(200 * batch_size()))
    print(int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of Linux")
def test_no_memory_is_kept_over_two_thousand_batches():
    """If a process kept the images of 1,000 batches, 94 MiB, its last readings would exceed its first.

    Three readings each, because resident memory swings by tens of MiB with glibc's arenas.
    """
    ((said, _),) = finish(start("-c", STREAM))
    held = [float(line) for line in said.split()]
    assert min(held[-3:]) - max(held[:3]) < 30, f"{held} MiB"
