"""The same networks and the same training step in PyTorch: what this package's numbers and speed are compared
with.

Written from the layer tables of the context encoder, in PyTorch's own layout and modules, so that agreement
is evidence. NCHW; images in [-1, 1].
"""

from collections.abc import Mapping
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


# In the order in which the layers stand in the modules above.
GENERATOR_LAYERS = [
    "encoder_0",
    *(name for k in range(1, 5) for name in (f"encoder_{k}", f"encoder_norm_{k}")),
    "bottleneck",
    *(name for k in range(4) for name in (f"decoder_{k}", f"decoder_norm_{k}")),
    "to_rgb",
]
DISCRIMINATOR_LAYERS = [*(f"conv_{k}" for k in range(4)), "to_score"]


def with_parameters(module: nn.Module) -> list[Any]:
    """The layers of a network that hold parameters, in order."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    return [layer for layer in module.modules() if isinstance(layer, kinds)]


def load(module: nn.Module, names: list[str], params: Mapping[str, Any]) -> None:
    """Copies Flax parameters into the network."""
    layers = with_parameters(module)
    with torch.no_grad():
        for layer, name in zip(layers, names, strict=True):
            weight = params[name]["scale"] if isinstance(layer, nn.BatchNorm2d) else params[name]["kernel"]
            layer.weight.copy_(_to_torch(layer, np.asarray(weight)))
            layer.bias.copy_(torch.from_numpy(np.array(params[name]["bias"])))


def _to_torch(layer: nn.Module, weight: np.ndarray) -> torch.Tensor:
    """`[k, k, I, O]` -> `[O, I, k, k]`, or `[I, O, k, k]` where transposed."""
    if isinstance(layer, nn.Conv2d):
        weight = weight.transpose(3, 2, 0, 1)
    elif isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(2, 3, 0, 1)
    return torch.from_numpy(np.array(weight, order="C"))  # a copy: JAX's arrays are read-only


def to_flax(layer: nn.Module, weight: torch.Tensor) -> np.ndarray:
    """The way back, for weights, biases and their gradients."""
    array = weight.detach().numpy()
    if array.ndim == 1:
        return array
    if isinstance(layer, nn.Conv2d):
        return array.transpose(2, 3, 1, 0)
    if isinstance(layer, nn.ConvTranspose2d):
        return array.transpose(2, 3, 0, 1)
    return array


class Twin:
    """Both networks, their optimisers and one step.

    Generator first, then the discriminator on the same fakes.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *,
        learning_rate: float = 1e-3,
        pixel_weight: float = 0.999,
        adversarial_weight: float = 0.001,
    ):
        self.generator, self.discriminator = generator.train(), discriminator.train()
        self.optimizer_g = torch.optim.Adam(generator.parameters(), lr=learning_rate, betas=(0.9, 0.999))
        self.optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=learning_rate, betas=(0.9, 0.999))
        self.pixel_weight, self.adversarial_weight = pixel_weight, adversarial_weight

    def step(self, masked: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
        """One update of both networks; gradients stay in the parameters."""
        fake = self.generator(masked)
        pixel = nn.functional.l1_loss(fake, target)
        scores = self.discriminator(fake)
        adversarial = nn.functional.mse_loss(scores, torch.ones_like(scores))
        loss_g = self.pixel_weight * pixel + self.adversarial_weight * adversarial
        self.optimizer_g.zero_grad()
        loss_g.backward()

        self.optimizer_d.zero_grad()
        real, generated = self.discriminator(target), self.discriminator(fake.detach())
        loss_d = 0.5 * nn.functional.mse_loss(real, torch.ones_like(real)) + 0.5 * nn.functional.mse_loss(
            generated, torch.zeros_like(generated)
        )
        loss_d.backward()
        self.optimizer_g.step()
        self.optimizer_d.step()
        return {
            "loss_generator": loss_g.item(),
            "loss_pixel": pixel.item(),
            "loss_adversarial": adversarial.item(),
            "loss_discriminator": loss_d.item(),
            "d_real": real.mean().item(),
            "d_fake": generated.mean().item(),
        }
