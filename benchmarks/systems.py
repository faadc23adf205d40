"""The systems whose training is timed, and their common inputs."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from configs import mim
from mim_jax import mask
from mim_jax.data.synthetic import lesions
from mim_jax.inpaint import convolution, gan
from mim_jax.inpaint.convolution import precision
from mim_jax.train.config import compute_dtype, parse
from mim_jax.train.epochs import epoch_orders, init_state, run_epochs
from mim_jax.train.heap import keep_freed_memory
from mim_jax.train.mim import make_gan

DISTINCT = 32  # number of different images; a larger batch repeats them
PRODUCT = {"cpu": 2048, "gpu": 8192}  # side of the square matrices whose product gives the peak speed
DISPATCH = {"cpu": 1, "gpu": 10}  # updates per dispatch, as in `mim_jax.train.trainer`
SIZES = {"full": "", "quick": "quick"}  # variants of configs/mim.py
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Inputs:
    """The inputs that every system gets.

    Attributes:
      config: configuration of the run; see configs/mim.py.
      device: "cpu" or "gpu".
      images: uint8 `[B, S, S, 3]`; the training set is one batch.
      generator: initial parameters of the generator.
      batch_stats: initial statistics of the generator's norms.
      discriminator: initial parameters of the discriminator.
      orders: int32 `[T, B]`, the order of the images in each update.
      offsets: int32 `[T, B, 2]`, row and column of each hole.
      dispatch: number of updates per call of the device's program.
      compile_mode: mode of torch.compile.
    """

    config: dict[str, Any]
    device: str
    images: np.ndarray
    generator: Any
    batch_stats: Any
    discriminator: Any
    orders: np.ndarray
    offsets: np.ndarray
    dispatch: int
    compile_mode: str = "default"


def make_config(
    size: str, *, batch: int | None = None, dtype: str = "float32", **fields: int
) -> dict[str, Any]:
    """Make the configuration to be timed: that of `size`, with a constant learning rate.

    Args:
      size: "full" or "quick".
      batch: batch size in images; None = the configuration's default.
      dtype: "float32" or "bfloat16".
      **fields: other values of "image_size" (the hole is half of it) and "width" (of both networks).
    """
    config = mim.get_config(SIZES[size]).to_dict()
    config["optimizer"] |= {"learning_rate": LEARNING_RATE, "decay": "constant"}
    config["training"] |= {"precision": dtype, "batch_size": batch or config["training"]["batch_size"]}
    if "image_size" in fields:
        config["data"]["image_size"], config["mask"]["size"] = fields["image_size"], fields["image_size"] // 2
    if "width" in fields:
        config["generator"]["width"] = config["discriminator"]["width"] = fields["width"]
    return config


def make_inputs(
    config: dict[str, Any], *, device: str, updates: int, compile_mode: str = "default"
) -> Inputs:
    """Make images, initial weights, and the orders and holes that the key gives for `updates` updates."""
    size, batch = config["data"]["image_size"], config["training"]["batch_size"]
    task = make_gan(parse(config), steps=updates)
    drawn, *_ = lesions.lesion_images({"mpox": min(batch, DISTINCT)}, size=size, seed=config["seed"])
    state = init_state(task, _key(config))

    @jax.jit
    def plan(key: jax.Array, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Drawn as in `run_epochs` and `adversarial_step`, for epochs of one update.
        hole_key = jax.random.fold_in(key, 1)
        offsets = jax.vmap(
            lambda n: mask.random_offsets(
                jax.random.fold_in(hole_key, n), batch, size=size, mask_size=task.mask_size
            )
        )(numbers)
        return epoch_orders(key, batch, numbers), offsets

    orders, offsets = plan(_key(config), jnp.arange(updates))
    return Inputs(
        config=config,
        device=device,
        images=np.resize(drawn, (batch, size, size, 3)),
        generator=jax.tree.map(np.asarray, state.generator_params),
        batch_stats=jax.tree.map(np.asarray, state.batch_stats),
        discriminator=jax.tree.map(np.asarray, state.discriminator_params),
        orders=np.asarray(orders),
        offsets=np.asarray(offsets),
        dispatch=DISPATCH[device],
        compile_mode=compile_mode,
    )


def _key(config: Mapping[str, Any]) -> jax.Array:
    return jax.random.fold_in(jax.random.key(config["seed"]), 0)  # key of the first fold


def training_flops(config: Mapping[str, Any]) -> float:
    """Count multiplications and additions of one training step on one image, for the published layers.

    A layer costs its forward product, one product for the gradient of its weights, and one for the gradient
    of its input. The first layer of a network does not need the last one if its input is an image. The
    discriminator judges the fake patch once for the generator, without gradients of its own weights, and then
    both patches for its own update. Norms and activations are not counted.
    """
    model, size = config["generator"], config["data"]["image_size"]
    if (model["name"], model["bottleneck"]) != ("context_encoder", "pointwise"):
        raise ValueError(f"the layers of {model['name']} ({model['bottleneck']}) are not listed here")
    w, channels, critic = model["width"], model["bottleneck_channels"], config["discriminator"]["width"]
    # (positions a side, taps a side, features in, features out); a transposed layer counts input positions.
    generator = [
        (size // 2, 4, 3, w),
        (size // 4, 4, w, w),
        (size // 8, 4, w, 2 * w),
        (size // 16, 4, 2 * w, 4 * w),
        (size // 32, 4, 4 * w, 8 * w),
        (size // 32, 1, 8 * w, channels),
        (size // 32, 4, channels, 8 * w),
        (size // 16, 4, 8 * w, 4 * w),
        (size // 8, 4, 4 * w, 2 * w),
        (size // 4, 4, 2 * w, w),
        (size // 2, 3, w, 3),
    ]
    discriminator = [
        (size // 4, 3, 3, critic),
        (size // 8, 3, critic, 2 * critic),
        (size // 16, 3, 2 * critic, 4 * critic),
        (size // 16, 3, 4 * critic, 8 * critic),
        (size // 16, 3, 8 * critic, 1),
    ]
    g, d = (
        [2.0 * (side * taps) ** 2 * i * o for side, taps, i, o in net] for net in (generator, discriminator)
    )
    for_generator = 3 * sum(g) - g[0] + 2 * sum(d)
    return for_generator + 2 * (3 * sum(d) - d[0])


class System(Protocol):
    """A system that trains MIM."""

    name: str  # readable name of the device and the framework

    def update(self, start: int, count: int) -> np.ndarray:
        """Run updates start .. start + count - 1 and return the pixel loss of each."""

    def product(self, side: int) -> None:
        """Multiply two square matrices in the training dtype."""

    def peak(self) -> float:
        """Peak memory of the accelerator in bytes."""


class JaxSystem:
    """This package, set up as by launch.py, or without one of its `REWRITES`."""

    def __init__(self, inputs: Inputs, *, without: str = ""):
        if inputs.device == "cpu":
            jax.config.update("jax_platforms", "cpu")
            if without != "kept_memory":
                keep_freed_memory()
        elif jax.default_backend() != "gpu":
            raise ValueError("--device=gpu, but JAX finds no GPU; use --device=cpu")
        self.name = f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
        config = inputs.config
        if without == "composition":
            config = {**config, "generator": {**config["generator"], "compose": False}}
        elif without == "matrix_forms":
            convolution.conv = functools.partial(_plain, convolution._conv_lax)
            convolution.conv_transpose = functools.partial(_plain, convolution._conv_transpose_lax)
        elif without == "plain_gradient":
            setattr(convolution, "product", _derived)  # noqa: B010 (its type is custom_vjp)
        self._dispatch, self._dtype = inputs.dispatch, compute_dtype(parse(config))
        task = make_gan(parse(config), steps=len(inputs.orders))
        self._run = functools.partial(
            run_epochs,
            task,
            examples={"images": jnp.asarray(inputs.images)},
            scalars={"adversary": jnp.float32(1)},
            key=_key(config),
            batch_size=len(inputs.images),
            drop_last=False,
        )
        # Copies, because the program donates its inputs.
        generator, batch_stats, discriminator = jax.tree.map(
            jnp.array, (inputs.generator, inputs.batch_stats, inputs.discriminator)
        )
        self._state = gan.AdversarialState(
            step=jnp.zeros((), jnp.int32),
            generator_params=generator,
            batch_stats=batch_stats,
            generator_opt=task.optimizer.init(generator),
            discriminator_params=discriminator,
            discriminator_opt=task.optimizer.init(discriminator),
        )

    def update(self, start: int, count: int) -> np.ndarray:
        found = []
        for n in range(start, start + count, self._dispatch):
            # The training set is one batch, so that each epoch is one update with its own metrics.
            numbers = jnp.arange(n, n + self._dispatch)
            self._state, metrics = self._run(self._state, numbers)
            found.append(np.asarray(metrics["loss_pixel"]))
        return np.concatenate(found)

    def product(self, side: int) -> None:
        highest = self._dtype == jnp.float32
        jax.block_until_ready(_product(jnp.ones((side, side), self._dtype), highest=highest))

    def copy(self, count: int) -> int:
        """Fill an array of `count` float32 and rewrite it four times; return the bytes moved."""
        block = jnp.ones(count, jnp.float32)
        for _ in range(4):
            block = _next(block)
        jax.block_until_ready(block)
        return 4 * count * (1 + 2 * 4)

    def peak(self) -> float:
        return float((jax.devices()[0].memory_stats() or {})["peak_bytes_in_use"])


@jax.jit(static_argnames="highest")
def _product(a: jax.Array, *, highest: bool) -> jax.Array:
    return jnp.dot(a, a, precision=jax.lax.Precision.HIGHEST if highest else None)


@jax.jit
def _next(block: jax.Array) -> jax.Array:
    return block + 1


def _twin(inputs: Inputs, *, tuned: bool) -> System:
    from benchmarks.torch_twin import TwinTrainer  # imported here because PyTorch may not be installed

    return TwinTrainer(inputs, learning_rate=LEARNING_RATE, tuned=tuned)


def _plain(
    form: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, *, stride: int, padding: int
) -> jax.Array:
    return form(x, kernel, stride, padding)


def _derived(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.dot(x, kernel, precision=precision(x.dtype))


# Optimisations that change numbers only by rounding; a row without one shows its effect.
REWRITES = ("matrix_forms", "composition", "plain_gradient", "kept_memory")
SYSTEMS: dict[str, Callable[[Inputs], System]] = {
    "mim_jax": JaxSystem,
    "torch_eager": functools.partial(_twin, tuned=False),
    "torch_tuned": functools.partial(_twin, tuned=True),
    **{f"without_{name}": functools.partial(JaxSystem, without=name) for name in REWRITES},
}
