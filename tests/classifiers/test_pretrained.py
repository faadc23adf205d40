"""Weight files in torchvision's and timm's naming are loaded completely, or refused with a reason."""

import functools
import pickle
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from against_torchvision import import_torchvision, lively

from mim_jax.classifiers import CLASSIFIERS, MobileNetV3Large, pretrained
from mim_jax.classifiers.pretrained import load_pretrained
from mim_jax.classifiers.swin import SwinB
from mim_jax.data import weight_files

pytestmark = pytest.mark.usefixtures("compiled_quickly")

CLASSES, DEPTHS = 5, (2, 1, 1, 1)


@functools.cache
def shapes_of_swin(classes, shapes=pretrained._shapes):
    return shapes("swin_b", classes)


@pytest.fixture
def swin(monkeypatch):
    """Register a small Swin as swin_b; return all its arrays in torchvision's naming."""
    constructor = functools.partial(SwinB, width=32, depths=DEPTHS)
    monkeypatch.setitem(CLASSIFIERS, "swin_b", constructor)
    # Traced once for all tests.
    monkeypatch.setattr(
        pretrained, "_shapes", lambda _, classes: jax.tree.map(lambda leaf: leaf, shapes_of_swin(classes))
    )
    rng = np.random.default_rng(0)
    arrays = {}
    shapes = pretrained._shapes("swin_b", CLASSES)["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        *layer, last = (part.key for part in path)
        layer = [part if part.startswith("relative") else part.replace("_", ".") for part in layer]
        turned = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[leaf.ndim] if last == "kernel" else range(leaf.ndim)
        values = rng.standard_normal([leaf.shape[axis] for axis in turned], np.float32)
        arrays[".".join([*layer, {"kernel": "weight", "scale": "weight"}.get(last, last)])] = values
    return arrays


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def saved(path, arrays):
    weight_files.save(path, arrays)
    return path


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def of_torch(module):
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def check_against_torch(name, variables, module):
    """Check structure, shapes and dtypes against `init`, and every value against torchvision's tensor."""
    shapes = pretrained._shapes(name, CLASSES)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == jax.tree.map(
        lambda leaf: (leaf.shape, jnp.float32), shapes
    )
    state = {key.replace(".", "_"): tensor.numpy() for key, tensor in module.state_dict().items()}
    suffixes = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        _, *layer, last = (part.key for part in path)
        expected = state["_".join([*layer, suffixes.get(last, last)])]
        if last == "kernel":
            expected = expected.transpose(2, 3, 1, 0) if expected.ndim == 4 else expected.T
        np.testing.assert_array_equal(leaf, expected)


def test_resnet50_from_torchvision(path):
    torchvision = import_torchvision()
    module = torchvision.models.resnet50(num_classes=CLASSES, zero_init_residual=True)
    check_against_torch(
        "resnet50", load_pretrained("resnet50", saved(path, of_torch(module)), classes=5), module
    )


def test_swin_from_torchvision(path, swin):
    import_torchvision()
    from torchvision.models.swin_transformer import SwinTransformer

    module = SwinTransformer([4, 4], 32, list(DEPTHS), [1, 2, 4, 8], [7, 7], num_classes=CLASSES)
    check_against_torch("swin_b", load_pretrained("swin_b", saved(path, of_torch(module)), classes=5), module)


def timm_names_of_mobilenet():
    """Yield timm's names in the order of torchvision's state."""

    def unit(convolution, norm):
        return [f"{convolution}.weight", *(f"{norm}.{last}" for last in LASTS)]

    yield from unit("conv_stem", "bn1")
    yield from unit("blocks.0.0.conv_dw", "blocks.0.0.bn1") + unit("blocks.0.0.conv_pw", "blocks.0.0.bn2")
    for stage, (blocks, excited) in enumerate([(2, 0), (3, 1), (4, 0), (2, 1), (3, 1)], 1):
        for block in (f"blocks.{stage}.{number}" for number in range(blocks)):
            yield from unit(f"{block}.conv_pw", f"{block}.bn1") + unit(f"{block}.conv_dw", f"{block}.bn2")
            for layer in ("conv_reduce", "conv_expand") if excited else ():
                yield from (f"{block}.se.{layer}.weight", f"{block}.se.{layer}.bias")
            yield from unit(f"{block}.conv_pwl", f"{block}.bn3")
    yield from unit("blocks.6.0.conv", "blocks.6.0.bn1")
    yield from (f"{layer}.{last}" for layer in ("conv_head", "classifier") for last in ("weight", "bias"))


LASTS = ("weight", "bias", "running_mean", "running_var")


def test_mobilenet_from_torchvision_and_from_timm_gives_the_numbers_of_each(path):
    """timm's network is torchvision's with BatchNorm eps 1e-5, and a 1x1 convolution as first dense layer."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = lively(import_torchvision().models.mobilenet_v3_large(num_classes=CLASSES)).eval()
    for name in ("classifier.0", "classifier.3"):  # initialised so small that errors would not show
        module.get_submodule(name).weight.data.normal_(0.0, 0.1)
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:  # variances for which eps matters, with scales that keep the numbers small
        norm.running_var[::3] *= 1e-3
        norm.weight.data[::3] *= 0.03
    arrays = of_torch(module)
    ours = load_pretrained("mobilenet_v3_large", saved(path, arrays), classes=CLASSES)
    check_against_torch("mobilenet_v3_large", ours, module)
    kept = [array for name, array in arrays.items() if not name.endswith("num_batches_tracked")]
    timm = dict(zip(timm_names_of_mobilenet(), kept, strict=True))
    timm["conv_head.weight"] = timm["conv_head.weight"][:, :, None, None]
    from_timm = load_pretrained("mobilenet_v3_large", saved(path, timm), classes=CLASSES)

    images = np.random.default_rng(0).standard_normal((2, 64, 64, 3), np.float32)
    network = MobileNetV3Large(CLASSES)
    logits = jax.jit(
        lambda variables: network.apply(variables, images, train=False)[0],
        compiler_options={"xla_backend_optimization_level": 0},  # compiles in half the time
    )

    def check(variables):
        with torch.no_grad():
            expected = module(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        np.testing.assert_allclose(logits(variables), expected, atol=1e-4 * np.abs(expected).max())
        return expected

    one = check(ours)
    for norm in norms:
        norm.eps = 1e-5
    other = check(from_timm)
    assert np.abs(one - other).max() > 0.01 * np.abs(one).max()


@pytest.mark.parametrize("merged_behind", [True, False])
def test_swin_from_old_and_new_timm_naming(path, swin, merged_behind):
    expected = load_pretrained("swin_b", saved(path, swin), classes=CLASSES)
    timm = {"layers.0.blocks.1.attn_mask": np.zeros((4, 49, 49), np.float32)}
    for name, array in swin.items():
        name = name.replace("features.0.0.", "patch_embed.proj.").replace(
            "features.0.2.", "patch_embed.norm."
        )
        name = name.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
        name = re.sub(r"^features\.[1357]\.", lambda m: f"layers.{int(m[0][9]) // 2}.blocks.", name)
        name = re.sub(
            r"^features\.[246]\.", lambda m: f"layers.{int(m[0][9]) // 2 - merged_behind}.downsample.", name
        )
        timm[name if merged_behind else name.replace("head.", "head.fc.")] = array
    assert_same(load_pretrained("swin_b", saved(path, timm), classes=CLASSES), expected)


def test_another_number_of_classes_draws_the_last_layer_alone(path, swin):
    swin["features.1.0.attn.relative_position_index"] = np.zeros(49 * 49, np.int64)
    whole = load_pretrained("swin_b", saved(path, swin), classes=CLASSES)
    with pytest.raises(ValueError, match="has 5 classes, not 2: give a key"):
        load_pretrained("swin_b", path, classes=2)
    key = jax.random.key(7)
    other = load_pretrained("swin_b", path, classes=2, key=key)
    network = SwinB(2, width=32, depths=DEPTHS)
    drawn = jax.jit(lambda key: network.init(key, jnp.zeros((1, 64, 64, 3)), train=False)["params"]["head"])
    assert_same(other["params"].pop("head"), drawn(key))
    whole["params"].pop("head")
    assert_same(other, whole)


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_files_load_as_float32(path, swin, half):
    rounded = {name: array.astype(half) for name, array in swin.items()}
    found = load_pretrained("swin_b", saved(path, rounded), classes=CLASSES)
    expected = {name: array.astype(np.float32) for name, array in rounded.items()}
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    assert_same(found, load_pretrained("swin_b", saved(path, expected), classes=CLASSES))


def test_every_tensor_that_does_not_fit_is_counted_and_ten_are_named(path, swin):
    swin["norm.weight"] = swin["norm.weight"][:-1]
    swin["norm.bias"] = swin["norm.bias"].astype(np.int32)
    del swin["features.2.norm.bias"]
    swin["features.9.weight"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="does not fit swin_b, 4 tensors are wrong") as raised:
        load_pretrained("swin_b", saved(path, swin), classes=CLASSES)
    for part in (
        "norm.weight has shape (255,), not (256,)",
        "norm.bias holds int32",
        "features_2/norm/bias is missing",
        "features.9.weight is not known",
    ):
        assert part in str(raised.value)
    for number in range(20):
        swin[f"extra.{number}"] = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match=r"24 tensors are wrong: .*; and 14 more") as raised:
        load_pretrained("swin_b", saved(path, swin), classes=CLASSES)
    assert str(raised.value).count(";") == 11


def test_wrapped_names_are_unwrapped_and_other_prefixes_are_shown(path, swin):
    expected = load_pretrained("swin_b", saved(path, swin), classes=CLASSES)
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        wrapped = {prefix + name: array for name, array in swin.items()}
        assert_same(load_pretrained("swin_b", saved(path, wrapped), classes=CLASSES), expected)
    other = {f"encoder.{name}": array for name, array in swin.items()}
    with pytest.raises(ValueError, match=r"tensors are wrong: .* is missing; .*encoder\..* is not known"):
        load_pretrained("swin_b", saved(path, other), classes=CLASSES)


def test_a_backbone_gets_a_last_layer(path, swin):
    whole = load_pretrained("swin_b", saved(path, swin), classes=CLASSES)
    backbone = {name: array for name, array in swin.items() if not name.startswith("head.")}
    with pytest.raises(ValueError, match="has no last layer head: give a key"):
        load_pretrained("swin_b", saved(path, backbone), classes=CLASSES)
    found = load_pretrained("swin_b", path, classes=2, key=jax.random.key(7))
    assert found["params"].pop("head")["kernel"].shape[1] == 2
    whole["params"].pop("head")
    assert_same(found, whole)
    del swin["head.bias"]  # half a layer means a damaged file
    with pytest.raises(ValueError, match="1 tensor is wrong: head/bias is missing"):
        load_pretrained("swin_b", saved(path, swin), classes=CLASSES)


def test_nan_infinite_and_negative_variances_are_refused(path, swin):
    for value in (np.nan, np.inf):
        broken = {**swin, "norm.weight": np.full_like(swin["norm.weight"], value)}
        with pytest.raises(ValueError, match=r"norm\.weight holds NaN or infinite numbers"):
            load_pretrained("swin_b", saved(path, broken), classes=CLASSES)
    shapes = {"batch_stats": {"bn": {"var": jax.ShapeDtypeStruct((2,), np.float32)}}}
    with pytest.raises(ValueError, match=r"bn\.running_var holds negative variances"):
        pretrained._fill(shapes, {"bn.running_var": ("bn.running_var", np.float32([1, -1e-9]))}, "")


def test_one_tensor_under_two_names_is_refused(path, swin):
    swin["patch_embed.proj.weight"] = swin["features.0.0.weight"]
    with pytest.raises(ValueError, match=r"1 tensor is wrong: patch_embed\.proj\.weight is not known"):
        load_pretrained("swin_b", saved(path, swin), classes=CLASSES)


def test_two_names_of_one_tensor_are_both_kept_to_be_refused():
    arrays = {"conv_stem.weight": np.zeros(1), "features.0.0.weight": np.ones(1)}
    renamed = pretrained._as_torchvision("mobilenet_v3_large", arrays)
    assert renamed["features.0.0.weight"][0] == "conv_stem.weight" and len(renamed) == 2


@pytest.mark.parametrize(
    ("entries", "likeness"),
    [
        (["layer1.0.conv1.weight"], "resnet50"),
        (["features.1.0.attn.relative_position_bias_table"], "swin_b"),
        (["conv_stem.weight", "conv_head.weight"], "mobilenet_v3_large"),
        (["features.1.block.0.0.weight"], "mobilenet_v3_large"),
    ],
)
def test_a_file_of_another_network_is_named(path, entries, likeness):
    saved(path, {name: np.zeros(1, np.float32) for name in entries})
    name = "resnet50" if likeness == "swin_b" else "swin_b"
    with pytest.raises(ValueError, match=f"looks like weights of {likeness}, not of {name}"):
        load_pretrained(name, path)


def test_what_is_no_file_of_weights_is_refused(path, tmp_path, swin):
    with pytest.raises(ValueError, match="there is no file"):
        load_pretrained("swin_b", tmp_path / "nowhere.safetensors")
    for name, content in {
        "zip.safetensors": b"PK\x03\x04" + bytes(20),
        "old.safetensors": pickle.dumps([1, 2, 3], protocol=2),
        "weights.pth": bytes(3),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is a pickle.*convert it.*save_file"):
            load_pretrained("swin_b", tmp_path / name)
    whole = saved(path, swin).read_bytes()
    for cut in (4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"is damaged .*: fetch it again"):
            load_pretrained("swin_b", path)


def test_unknown_networks_and_numbers_of_classes_are_refused(path):
    with pytest.raises(ValueError, match=r"unknown classifier 'vit': .*mobilenet_v3_large, resnet50, swin_b"):
        load_pretrained("vit", path)
    with pytest.raises(ValueError, match="classes=0"):
        load_pretrained("swin_b", path, classes=0)
