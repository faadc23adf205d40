"""One adversarial update: a pure function on explicit state. Nothing here touches a file.

The generator is updated first, then the discriminator on the same fakes, as in the context encoder. The
masks of update n come from one key folded with n, and the order of epoch e from another folded with e, so
that a resumed run repeats the uninterrupted one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from mim_jax import mask
from mim_jax.inpaint import initial, losses
from mim_jax.inpaint.inference import abstract_patch, to_network_range
from mim_jax.measure.images import flip_at_random

REAL_INPUTS = ("patch", "masked_image")
Metrics = dict[str, jax.Array]


class AdversarialState(struct.PyTreeNode):
    """Training state: both networks, their statistics and their optimiser states."""

    # The network that scores images: its name in checkpoints, and collection -> field of this class.
    SCORING: ClassVar = ("generator", {"params": "generator_params", "batch_stats": "batch_stats"})

    step: jax.Array  # int32 [], updates made
    generator_params: Any
    batch_stats: Any
    generator_opt: optax.OptState
    discriminator_params: Any
    discriminator_opt: optax.OptState


@dataclass(frozen=True)
class GanConfig:
    """Networks, optimiser, losses and sizes of a training, hashable as a static argument of `jit`.

    It is a `mim_jax.train.epochs.Task`.
    """

    generator: nn.Module
    discriminator: nn.Module
    optimizer: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]
    image_size: int
    mask_size: int
    margin: int  # pixels around the hole that are hidden too
    flips: bool  # mirror training images left to right and upside down, each at random
    pixel_weight: float  # Eq. 7, alpha_G
    adversarial_weight: float  # Eq. 7, beta_G
    generator_target: float  # Eq. 5: 1 makes training adversarial, the printed 0 does not
    real_weight: float  # Eq. 10, alpha_D
    fake_weight: float  # Eq. 10, beta_D
    real_input: str  # Eq. 9: "patch" (its text) or "masked_image" (its formula)

    def __post_init__(self) -> None:
        mask.check_sizes(self.image_size, self.mask_size, self.margin)
        if self.real_input not in REAL_INPUTS:
            raise ValueError(
                f"unknown real_input {self.real_input!r}: choose one of {', '.join(REAL_INPUTS)}"
            )

    def init(self, key: jax.Array) -> AdversarialState:
        return init_state(key, self)

    def step(
        self, state: AdversarialState, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[AdversarialState, Metrics]:
        """Update on `batch["images"]`, with weight `batch["adversary"]` if given."""
        return adversarial_step(self, state, batch["images"], key, batch.get("adversary", 1.0))


def check_patch(config: GanConfig) -> None:
    """Raise ValueError unless the generator's patches have size `config.mask_size`."""
    side = abstract_patch(config.generator, config.image_size)[1]
    if side != config.mask_size:
        raise ValueError(
            f"this generator paints {side} pixels a side for images of {config.image_size}, but "
            f"mask_size is {config.mask_size}: set mask_size={side} (--config.mask.size)"
        )


def init_state(key: jax.Array, config: GanConfig) -> AdversarialState:
    """Draw fresh networks and optimiser states; errors as in `check_patch`."""
    check_patch(config)
    generator_key, discriminator_key = jax.random.split(key)
    images, patches = (jnp.zeros((1, side, side, 3)) for side in (config.image_size, config.mask_size))

    def init() -> tuple[Any, Any]:
        variables = config.generator.init(generator_key, images, train=True)
        return variables, config.discriminator.init(discriminator_key, patches)["params"]

    # As one program, from which XLA removes the networks' outputs.
    variables, discriminator_params = jax.jit(lambda: initial.together(init))()
    return AdversarialState(
        step=jnp.zeros((), jnp.int32),
        generator_params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        generator_opt=config.optimizer.init(variables["params"]),
        discriminator_params=discriminator_params,
        discriminator_opt=config.optimizer.init(discriminator_params),
    )


def adversarial_step(
    config: GanConfig,
    state: AdversarialState,
    images: jax.Array,
    key: jax.Array,
    adversary: jax.Array | float = 1.0,
) -> tuple[AdversarialState, Metrics]:
    """Update both networks once, on one batch.

    Args:
      config: networks, optimiser, losses.
      state: state before the update.
      images: uint8 or float32 in [0, 1], `[B, S, S, 3]`.
      key: the run's key; folded with the step here, so pass the same key for every update.
      adversary: 1, or 0 to train the generator as an autoencoder, ignoring the adversary; a number, not a
        boolean, so that one compiled program covers both.

    Returns:
      The state after the update and scalar float32 metrics: losses, the mean of D(real) and D(fake), and the
        learning rate.
    """
    real = to_network_range(images)
    step_key = jax.random.fold_in(key, state.step)
    if config.flips:
        real = flip_at_random(jax.random.fold_in(step_key, 0), real)
    size = config.mask_size
    offsets = mask.random_offsets(step_key, real.shape[0], size=config.image_size, mask_size=size)
    masked = jax.vmap(lambda image, at: mask.hide(image, at, mask_size=size, margin=config.margin))(
        real, offsets
    )
    target = jax.vmap(lambda image, at: mask.cut(image, at, mask_size=size))(real, offsets)
    return update_on(config, state, masked, target, adversary)


def update_on(
    config: GanConfig,
    state: AdversarialState,
    masked: jax.Array,
    target: jax.Array,
    adversary: jax.Array | float = 1.0,
) -> tuple[AdversarialState, Metrics]:
    """Update both networks on masked images `[B, S, S, 3]` and hidden patches `[B, M, M, 3]` in [-1, 1]."""
    adversarial_weight = config.adversarial_weight * adversary

    def discriminate(params: Any, x: jax.Array) -> Any:
        return config.discriminator.apply({"params": params}, x)

    def loss_of_generator(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array, jax.Array, jax.Array]]:
        fake, changed = config.generator.apply(
            {"params": params, "batch_stats": state.batch_stats}, masked, train=True, mutable=["batch_stats"]
        )
        pixel = jnp.mean(losses.mean_absolute_error(fake, target))
        scores = discriminate(state.discriminator_params, fake)
        adversarial = jnp.mean(losses.mean_squared_error(scores, config.generator_target))
        total = losses.generator_loss(
            pixel, adversarial, pixel_weight=config.pixel_weight, adversarial_weight=adversarial_weight
        )
        return total, (changed.get("batch_stats", {}), fake, pixel, adversarial)

    (loss_g, (batch_stats, fake, pixel, adversarial)), grads_g = jax.value_and_grad(
        loss_of_generator, has_aux=True
    )(state.generator_params)

    def loss_of_discriminator(params: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        if config.real_input == "patch":
            # One pass for both: InstanceNorm does not mix samples.
            both = discriminate(params, jnp.concatenate((target, fake)))
            real_scores, fake_scores = jnp.split(both, 2)
        else:
            real_scores, fake_scores = discriminate(params, masked), discriminate(params, fake)
        loss = losses.discriminator_loss(
            real_scores, fake_scores, real_weight=config.real_weight, fake_weight=config.fake_weight
        )
        return jnp.mean(loss), (jnp.mean(real_scores), jnp.mean(fake_scores))

    (loss_d, (d_real, d_fake)), grads_d = jax.value_and_grad(loss_of_discriminator, has_aux=True)(
        state.discriminator_params
    )

    updates_g, opt_g = config.optimizer.update(grads_g, state.generator_opt, state.generator_params)
    updates_d, opt_d = config.optimizer.update(grads_d, state.discriminator_opt, state.discriminator_params)
    metrics = {
        "loss_generator": loss_g,
        "loss_pixel": pixel,
        "loss_adversarial": adversarial,
        "loss_discriminator": loss_d,
        "d_real": d_real,
        "d_fake": d_fake,
        "learning_rate": jnp.asarray(config.schedule(state.step), jnp.float32),
    }
    state = AdversarialState(
        step=state.step + 1,
        generator_params=optax.apply_updates(state.generator_params, updates_g),
        batch_stats=batch_stats,
        generator_opt=opt_g,
        discriminator_params=optax.apply_updates(state.discriminator_params, updates_d),
        discriminator_opt=opt_d,
    )
    return state, metrics
