"""The same networks and the same training step in PyTorch: the reference for numbers and speed.

Written independently from the layer tables of the context encoder, in PyTorch's own layout and modules, so
that agreement is evidence. NCHW; images in [-1, 1].
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


class Generator(nn.Module):
    """Masked images `[B, 3, S, S]` -> patches `[B, 3, S/2, S/2]`."""

    def __init__(self, width: int = 64, bottleneck_channels: int = 4000):
        super().__init__()
        w = width
        layers: list[nn.Module] = []
        before = 3
        for index, features in enumerate((w, w, 2 * w, 4 * w, 8 * w)):
            layers.append(nn.Conv2d(before, features, 4, 2, 1))
            if index:
                layers.append(nn.BatchNorm2d(features))
            layers.append(nn.LeakyReLU(0.2))
            before = features
        layers.append(nn.Conv2d(before, bottleneck_channels, 1))
        before = bottleneck_channels
        for features in (8 * w, 4 * w, 2 * w, w):
            layers += [nn.ConvTranspose2d(before, features, 4, 2, 1), nn.BatchNorm2d(features), nn.ReLU()]
            before = features
        layers += [nn.Conv2d(before, 3, 3, 1, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, masked: torch.Tensor) -> torch.Tensor:
        return self.layers(masked)


class Discriminator(nn.Module):
    """Patches `[B, 3, M, M]` -> scores `[B, 1, M/8, M/8]`."""

    def __init__(self, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        plan = ((width, 2), (2 * width, 2), (4 * width, 2), (8 * width, 1))
        for index, (features, stride) in enumerate(plan):
            layers.append(nn.Conv2d(before, features, 3, stride, 1))
            if index:
                layers.append(nn.InstanceNorm2d(features))
            layers.append(nn.LeakyReLU(0.2))
            before = features
        layers.append(nn.Conv2d(before, 1, 3, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        return self.layers(patch)


# In the order of the layers in the modules above.
GENERATOR_LAYERS = [
    "encoder_0",
    *(name for k in range(1, 5) for name in (f"encoder_{k}", f"encoder_norm_{k}")),
    "bottleneck",
    *(name for k in range(4) for name in (f"decoder_{k}", f"decoder_norm_{k}")),
    "to_rgb",
]
DISCRIMINATOR_LAYERS = [*(f"conv_{k}" for k in range(4)), "to_score"]


def with_parameters(module: nn.Module) -> list[Any]:
    """Return the layers of a network that have parameters, in order."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def load(module: nn.Module, names: list[str], params: Mapping[str, Any]) -> None:
    """Copy Flax parameters into the network."""
    layers = with_parameters(module)
    with torch.no_grad():
        for layer, name in zip(layers, names, strict=True):
            weight = params[name]["scale"] if isinstance(layer, nn.BatchNorm2d) else params[name]["kernel"]
            layer.weight.copy_(_to_torch(layer, np.asarray(weight)))
            layer.bias.copy_(torch.from_numpy(np.array(params[name]["bias"])))


def _to_torch(layer: nn.Module, weight: np.ndarray) -> torch.Tensor:
    """Convert `[k, k, I, O]` to `[O, I, k, k]`, or to `[I, O, k, k]` for a transposed convolution."""
    if isinstance(layer, nn.Conv2d):
        weight = weight.transpose(3, 2, 0, 1)
    elif isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(2, 3, 0, 1)
    return torch.from_numpy(np.array(weight, order="C"))  # a copy: JAX's arrays are read-only


def to_flax(layer: nn.Module, weight: torch.Tensor) -> np.ndarray:
    """Convert PyTorch weights, biases or their gradients to Flax's layout."""
    array = weight.detach().numpy()
    if array.ndim == 1:
        return array
    if isinstance(layer, nn.Conv2d):
        return array.transpose(2, 3, 1, 0)
    if isinstance(layer, nn.ConvTranspose2d):
        return array.transpose(2, 3, 0, 1)
    return array


def make_batch(
    images: torch.Tensor, order: torch.Tensor, offsets: torch.Tensor, *, mask_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make masked images `[B, 3, S, S]` and hidden patches `[B, 3, M, M]` in [-1, 1], on the images' device.

    Args:
      images: uint8 `[N, 3, S, S]`.
      order: int `[B]`, indices of the images in the batch.
      offsets: int `[B, 2]`, row and column of each hole.
      mask_size: side of the hole in pixels.
    """
    real = images[order].float() * (2 / 255) - 1
    index = torch.arange(real.shape[-1], device=images.device)
    inside = (index >= offsets[..., None]) & (index < offsets[..., None] + mask_size)
    hole = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
    rows, columns = (offsets[:, axis, None] + index[:mask_size] for axis in (0, 1))
    image = torch.arange(len(order), device=images.device)[:, None, None, None]
    channel = torch.arange(3, device=images.device)[None, :, None, None]
    target = real[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
    return torch.where(hole, 1.0, real), target


class Twin:
    """Both networks, their optimisers and one training step.

    A step updates the generator, and the discriminator on the same fakes.

    Attributes:
      fused: whether Adam runs as one kernel.
      dtype: torch.bfloat16 runs the networks under autocast, with losses in float32.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *,
        learning_rate: float = 1e-3,
        pixel_weight: float = 0.999,
        adversarial_weight: float = 0.001,
        fused: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        self.generator, self.discriminator = generator.train(), discriminator.train()
        # None instead of False allows eager Adam to update all tensors at once.
        rates: dict[str, Any] = {"lr": learning_rate, "betas": (0.9, 0.999), "fused": fused or None}
        self.optimizer_g = torch.optim.Adam(generator.parameters(), **rates)
        self.optimizer_d = torch.optim.Adam(discriminator.parameters(), **rates)
        self.pixel_weight, self.adversarial_weight = pixel_weight, adversarial_weight
        self.dtype = dtype

    def _run(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return network(x).float()

    def step(self, masked: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        """Run `update` and wait for the numbers."""
        return {name: value.item() for name, value in self.update(masked, target).items()}

    def update(self, masked: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Update both networks once, without waiting; gradients stay in the parameters."""
        # The generator's loss needs no gradients of the discriminator's weights.
        self.discriminator.requires_grad_(False)
        fake = self._run(self.generator, masked)
        pixel = nn.functional.l1_loss(fake, target)
        scores = self._run(self.discriminator, fake)
        adversarial = nn.functional.mse_loss(scores, torch.ones_like(scores))
        loss_g = self.pixel_weight * pixel + self.adversarial_weight * adversarial
        self.optimizer_g.zero_grad()
        loss_g.backward()

        self.discriminator.requires_grad_(True)
        self.optimizer_d.zero_grad()
        real, generated = (self._run(self.discriminator, x) for x in (target, fake.detach()))
        loss_d = 0.5 * nn.functional.mse_loss(real, torch.ones_like(real)) + 0.5 * nn.functional.mse_loss(
            generated, torch.zeros_like(generated)
        )
        loss_d.backward()
        self.optimizer_g.step()
        self.optimizer_d.step()
        return {
            "loss_generator": loss_g.detach(),
            "loss_pixel": pixel.detach(),
            "loss_adversarial": adversarial.detach(),
            "loss_discriminator": loss_d.detach(),
            "d_real": real.detach().mean(),
            "d_fake": generated.detach().mean(),
        }


class TwinTrainer:
    """Runs the twin on images on the device, with given orders and holes; see `benchmarks.training`.

    Attributes:
      name: name of the device and the framework.
    """

    def __init__(self, inputs: Any, *, learning_rate: float, tuned: bool):
        gpu = inputs.device == "gpu"
        if gpu and not torch.cuda.is_available():
            raise ValueError("--device=gpu, but PyTorch finds no GPU; use --device=cpu")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = tuned
        self._device = torch.device("cuda" if gpu else "cpu")
        kind = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} threads"
        self.name = f"{kind}, torch {torch.__version__}"
        self._layout = torch.channels_last if tuned else torch.contiguous_format
        config = inputs.config
        self._mask_size = config["mask"]["size"]
        self._dtype = torch.bfloat16 if config["training"]["precision"] == "bfloat16" else torch.float32
        generator = Generator(config["generator"]["width"], config["generator"]["bottleneck_channels"])
        discriminator = Discriminator(config["discriminator"]["width"])
        load(generator, GENERATOR_LAYERS, inputs.generator)
        load(discriminator, DISCRIMINATOR_LAYERS, inputs.discriminator)
        for network in (generator, discriminator):
            network.to(self._device, memory_format=self._layout)  # type: ignore[call-overload]
        self._twin = Twin(
            generator,
            discriminator,
            learning_rate=learning_rate,
            pixel_weight=config["loss"]["pixel_weight"],
            adversarial_weight=config["loss"]["adversarial_weight"],
            fused=tuned,
            dtype=self._dtype,
        )
        self._make_batch: Callable[..., tuple[torch.Tensor, torch.Tensor]] = make_batch
        self._graphs = tuned and gpu  # CUDA graphs of torch.compile must be told where a step begins
        if tuned:
            for network in (generator, discriminator):
                network.compile(mode=inputs.compile_mode)
            self._make_batch = torch.compile(make_batch, mode=inputs.compile_mode)
        images = torch.tensor(inputs.images).permute(0, 3, 1, 2).to(self._device)
        self._images = images.contiguous(memory_format=self._layout)
        self._orders = torch.tensor(inputs.orders, device=self._device)
        self._offsets = torch.tensor(inputs.offsets, device=self._device)

    def update(self, start: int, count: int) -> np.ndarray:
        """Run updates start .. start + count - 1 and return the pixel loss of each."""
        found = []
        for n in range(start, start + count):
            if self._graphs:
                torch.compiler.cudagraph_mark_step_begin()
            batch = self._make_batch(
                self._images, self._orders[n], self._offsets[n], mask_size=self._mask_size
            )
            masked, target = (x.contiguous(memory_format=self._layout) for x in batch)
            found.append(self._twin.update(masked, target)["loss_pixel"].clone())
        return torch.stack(found).cpu().numpy()

    def product(self, side: int) -> None:
        """Multiply two square matrices in the training dtype, and wait."""
        a = torch.ones((side, side), dtype=self._dtype, device=self._device)
        (a @ a)[0, 0].item()

    def peak(self) -> float:
        """Peak memory of the GPU in bytes."""
        return float(torch.cuda.max_memory_allocated())
