"""Updates and epochs of them: determinism, use of keys, equations as printed, flips and margins."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from small_training import CONFIG

from mim_jax import mask
from mim_jax.inpaint import gan, inference
from mim_jax.train import epochs, optimizer
from mim_jax.train.settings import OptimizerSettings

pytestmark = pytest.mark.usefixtures("compiled_quickly")
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
KEY = jax.random.key(3)
INIT = jax.jit(gan.init_state, static_argnums=1)
STEP = jax.jit(gan.adversarial_step, static_argnums=0)


def step(config, state, images, key, adversary=1.0):
    """One program serves both weights of the adversary."""
    return STEP(config, state, jnp.asarray(images), key, jnp.float32(adversary))


def run(first, count, state):
    return epochs.run_epochs(
        CONFIG,
        state,
        jnp.arange(first, first + count),
        examples={"images": jnp.asarray(IMAGES)},
        scalars={},
        key=KEY,
        batch_size=4,
        drop_last=False,
    )


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_epochs_are_steps_in_the_shuffled_order():
    """Ten images by four: 4 + 4 + 2, the short batch kept; metrics weighted by its size."""
    state = INIT(jax.random.key(0), CONFIG)
    after, metrics = run(0, 1, jax.tree.map(jnp.copy, state))  # the state is donated
    order = np.asarray(epochs.epoch_orders(KEY, 10, jnp.arange(1))[0])
    assert sorted(order) == list(range(10))
    total = 0.0
    for index in (order[:4], order[4:8], order[8:]):
        state, one = step(CONFIG, state, IMAGES[index], jax.random.fold_in(KEY, 1))
        total += float(one["loss_pixel"]) * len(index)
    assert int(after.step) == 3
    assert float(metrics["loss_pixel"][0]) == pytest.approx(total / 10, rel=1e-4)
    # Not bit for bit: the programs are compiled separately, and Adam magnifies rounding of zero gradients.
    np.testing.assert_allclose(
        after.batch_stats["BatchNorm_0"]["mean"], state.batch_stats["BatchNorm_0"]["mean"], atol=1e-4
    )


def test_the_same_epochs_give_the_same_bits_and_each_has_its_own_order():
    one, two = (run(1, 1, run(0, 1, INIT(jax.random.key(0), CONFIG))[0])[0] for _ in range(2))
    assert_equal(one, two)
    orders = np.asarray(epochs.epoch_orders(KEY, 10, jnp.arange(2)))
    assert not np.array_equal(orders[0], orders[1])


def test_no_key_is_used_twice():
    # The check runs while tracing, on a new function, because a traced one would not be traced again.
    with jax.debug_key_reuse(True):
        state = jax.eval_shape(lambda key: gan.init_state(key, CONFIG), KEY)

        def two(state, key):
            given = {"examples": {"images": jnp.asarray(IMAGES)}, "scalars": {}, "key": key}
            return epochs.run_epochs.__wrapped__(
                CONFIG, state, jnp.arange(2), batch_size=4, drop_last=False, **given
            )

        jax.jit(two).trace(state, KEY)


def test_a_generator_without_statistics_trains_too():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, masked, *, train):
            return jnp.tanh(nn.Conv(3, (2, 2), strides=2)(masked))

    config = dataclasses.replace(CONFIG, generator=Plain())
    state = INIT(KEY, config)
    after, metrics = step(config, state, IMAGES[:4], KEY)
    assert np.isfinite(float(metrics["loss_pixel"]))
    assert jnp.any(after.generator_params["Conv_0"]["kernel"] != state.generator_params["Conv_0"]["kernel"])


def test_every_part_of_the_state_moves():
    state = INIT(jax.random.key(0), CONFIG)
    after, _ = step(CONFIG, state, IMAGES[:4], KEY)
    for name in ("generator_params", "batch_stats", "discriminator_params"):
        before, now = getattr(state, name), getattr(after, name)
        changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, now)
        assert all(jax.tree.leaves(changed)), name


def test_a_weight_of_zero_cuts_the_generator_off_from_the_discriminator():
    config = dataclasses.replace(CONFIG, adversarial_weight=0.0)
    state = INIT(jax.random.key(0), CONFIG)
    other = state.replace(discriminator_params=jax.tree.map(lambda p: p + 0.1, state.discriminator_params))
    one, _ = step(config, state, IMAGES[:4], KEY)
    two, _ = step(config, other, IMAGES[:4], KEY)
    assert_equal(one.generator_params, two.generator_params)


def test_the_printed_equations_make_no_adversary():
    """With Eq. 5 and 8-9 as printed both networks aim at D(fake) = 0, and soon reach it.

    With target 1 they do not.
    """
    last = {}
    for name, changes in {
        "literal": {
            "pixel_weight": 0.01,
            "adversarial_weight": 0.99,
            "generator_target": 0.0,
            "real_input": "masked_image",
        },
        "default": {},
    }.items():
        config = dataclasses.replace(CONFIG, **changes)
        state = INIT(jax.random.key(0), config)
        for _ in range(300):
            state, metrics = step(config, state, IMAGES[:4], KEY)
        last[name] = float(metrics["loss_adversarial"])
    assert last["literal"] < 0.05
    assert last["default"] > 0.3


@pytest.mark.parametrize("decay", sorted(optimizer.DECAYS))
def test_schedules_start_at_the_rate_and_never_rise(decay):
    rates = OptimizerSettings(learning_rate=1e-3, b1=0.5, b2=0.999, decay=decay)
    _, schedule = optimizer.make_optimizer(rates, steps=100)
    rates = np.array([float(schedule(step)) for step in range(101)])
    assert rates[0] == pytest.approx(1e-3)
    assert np.all(np.diff(rates) <= 1e-12)
    assert rates[100] < 1.1e-5 or decay == "constant"


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"'patches'.*patch, masked_image"):
        dataclasses.replace(CONFIG, real_input="patches")
    with pytest.raises(ValueError, match=r"paints 16 pixels.*mask_size=16"):
        gan.init_state(KEY, dataclasses.replace(CONFIG, mask_size=8))


def test_without_adversary_the_discriminator_leaves_no_trace_in_the_generator():
    state = INIT(KEY, CONFIG)
    other = state.replace(discriminator_params=jax.tree.map(lambda p: 2 * p, state.discriminator_params))

    def generator(start, adversary):
        after, _ = step(CONFIG, start, IMAGES[:4], KEY, adversary)
        return jax.tree.leaves(after.generator_params)

    for a, b in zip(generator(state, 0.0), generator(other, 0.0), strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(generator(state, 1.0), generator(other, 1.0), strict=True)
    assert any(np.any(a != b) for a, b in pairs)


def test_flips_mirror_images_and_a_margin_hides_more(monkeypatch):
    """Checks the masked images and targets that reach the update."""
    monkeypatch.setattr(gan, "update_on", lambda config, state, masked, target, adversary: (masked, target))
    images = jnp.asarray(IMAGES)

    def drawn(**fields):
        config = dataclasses.replace(CONFIG, **fields)
        return map(np.asarray, gan.adversarial_step(config, SimpleNamespace(step=7), images, KEY))

    masked, target = drawn()
    wide, same = drawn(margin=3)
    np.testing.assert_array_equal(same, target)
    hidden, more = (np.all(x == 1, axis=-1).sum(axis=(1, 2)) for x in (masked, wide))
    assert np.all(hidden >= 16**2) and np.all(more > hidden) and np.all(more <= 22**2 + hidden - 16**2)
    offsets = np.asarray(mask.random_offsets(jax.random.fold_in(KEY, 7), 10, size=32, mask_size=16))
    real, seen = np.asarray(inference.to_network_range(images)), set()
    for image, patch, (row, column) in zip(
        real, next(reversed(list(drawn(flips=True)))), offsets, strict=True
    ):
        turned = {
            (up, left): image[:: -1 if up else 1, :: -1 if left else 1]
            for up in (False, True)
            for left in (False, True)
        }
        found = [
            how
            for how, view in turned.items()
            if np.array_equal(view[row : row + 16, column : column + 16], patch)
        ]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) > 1
