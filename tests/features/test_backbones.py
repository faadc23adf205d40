"""Backbones give the features of the networks they are, and refuse other files."""

import functools

import jax
import numpy as np
import pytest
from against_torchvision import import_torchvision, lively

from mim_jax.classifiers import CLASSIFIERS, SwinB
from mim_jax.data import weight_files
from mim_jax.features.backbone import BACKBONES, load_backbone

pytestmark = pytest.mark.usefixtures("compiled_quickly")

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "weights.safetensors")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 224, 224, 3), np.float32)


def normalised(images):
    """A batch of PyTorch's: `[B, 3, S, S]`."""
    torch = pytest.importorskip("torch")
    scaled = (images - np.float32(MEAN)) / np.float32(DEVIATION)
    return torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2)


def assert_same_features(found, expected):
    """Equal to 1e-4 of the largest feature of each layer."""
    assert found.keys() == expected.keys()
    for layer, values in expected.items():
        assert np.std(values) > 0.01, layer  # else there is nothing to compare
        np.testing.assert_allclose(
            found[layer], values, rtol=0, atol=1e-4 * np.abs(values).max(), err_msg=layer
        )


def torchvisions(name):
    """A network of torchvision's with five classes, and its modules by our names; Swin is a small one."""
    models = import_torchvision().models
    if name == "resnet50":
        module = models.resnet50(num_classes=5)
        stages = {f"layer{number}": getattr(module, f"layer{number}") for number in range(1, 5)}
        layers = {f"{stage}_{i}": block for stage, blocks in stages.items() for i, block in enumerate(blocks)}
        return module, {"stem": module.maxpool} | layers
    if name == "mobilenet_v3_large":
        module = models.mobilenet_v3_large(num_classes=5)
        layers = {f"features_{number}": module.features[number] for number in range(1, 17)}
        return module, {"stem": module.features[0]} | layers
    transformer = models.swin_transformer.SwinTransformer
    module = transformer([4, 4], 32, [2, 1, 1, 1], [1, 2, 4, 8], [7, 7], num_classes=5)
    layers = {f"features_{s}_{i}": block for s in (1, 3, 5, 7) for i, block in enumerate(module.features[s])}
    return module, {"stem": module.features[0]} | layers


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large", "swin_b"])
def test_classifiers_as_torchvision(name, path, images, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(CLASSIFIERS, "swin_b", functools.partial(SwinB, width=32, depths=(2, 1, 1, 1)))
    torch.manual_seed(0)
    module, layers = torchvisions(name)
    lively(module).eval()
    weight_files.save(path, {key: tensor.numpy() for key, tensor in module.state_dict().items()})
    expected = {}
    for layer, part in layers.items():
        part.register_forward_hook(lambda _, __, y, layer=layer: expected.update({layer: y}))
    with torch.no_grad():
        module(normalised(images))
    channels_last = (0, 1, 2, 3) if name == "swin_b" else (0, 2, 3, 1)
    expected = {layer: y.permute(channels_last).numpy() for layer, y in expected.items()}
    backbone = load_backbone(name, path)
    assert backbone.image_size == 224
    assert_same_features(jax.jit(backbone.features)(images), expected)


def test_another_classifiers_file_is_refused(path):
    weight_files.save(path, {"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32)})
    with pytest.raises(ValueError, match="looks like weights of resnet50, not of swin_b"):
        load_backbone("swin_b", path)


@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - {"open_nsfw"}))
def test_a_file_must_be_named_and_be_there(name, path):
    with pytest.raises(
        ValueError, match=rf"{name} comes without weights: name .*--config\.features\.weights"
    ):
        load_backbone(name)
    with pytest.raises(ValueError, match=f"weights of {name} are not at .*weights.safetensors: name "):
        load_backbone(name, path)
