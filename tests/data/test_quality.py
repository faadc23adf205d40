"""The input gate: each fault and switch, measures against other implementations, images that pass."""

from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from configs import mim
from mim_jax.data import images, quality
from mim_jax.data.dataset import Dataset, from_lesions
from mim_jax.data.images import UnusableImage, decode_image, load_image
from mim_jax.data.quality import Gate, Measures, find_faults, measure
from mim_jax.train.config import parse
from mim_jax.train.images import load_dataset

OPEN = dict.fromkeys(Gate.__dataclass_fields__, False)
SKIN = (190, 140, 115)


def grain(color, size=128, amount=12, seed=0):
    """A surface of one colour with grain."""
    noise = np.random.default_rng(seed).normal(0, amount, (size, size, 1))
    return np.clip(np.rint(np.array(color) + noise), 0, 255).astype(np.uint8)


def smooth():
    """Skin with slowly changing shade and no detail."""
    y, x = np.mgrid[:128, :128] / 127
    return np.rint(np.array(SKIN) * (0.6 + 0.3 * y * x)[..., None]).astype(np.uint8)


def text():
    """Computer letters on skin-coloured paper."""
    page = Image.new("RGB", (128, 128), SKIN)
    draw = ImageDraw.Draw(page)
    for line in range(10):
        draw.text((2, 12 * line), "Lorem ipsum dolor sit", fill="black")
    return np.asarray(page)


def half_white(share):
    """Skin whose middle is white in `share` of its rows."""
    picture = grain(SKIN).copy()
    rows = round(64 * share)
    white = np.random.default_rng(1).integers(250, 256, (rows, 64, 1))
    picture[32 : 32 + rows, 32:96] = white
    return picture


FAULTY = {
    "screenshot": text,
    "underexposed": lambda: grain((30, 18, 14), amount=8),
    "overexposed": lambda: half_white(0.62),
    "blurred": smooth,
    "not_skin": lambda: grain((60, 120, 200)),
}


def file(pixels, format="PNG", **options):
    data = BytesIO()
    Image.fromarray(pixels).save(data, format, **options)
    return data.getvalue()


def refusal(data, **options):
    with pytest.raises(UnusableImage) as caught:
        decode_image(data, **{"size": 64, "gate": Gate()} | options)
    return caught.value.reason


@pytest.mark.parametrize("check", FAULTY)
def test_each_fault_is_found_alone_and_can_be_switched_off(check):
    picture = FAULTY[check]()
    assert list(find_faults(picture, Gate())) == [check]
    assert list(find_faults(picture, Gate(**OPEN | {check: True}))) == [check]
    assert not find_faults(picture, Gate(**{check: False}))
    said = refusal(file(picture))
    # The message names the measure, its value, the limit and the way out.
    assert said == find_faults(picture, Gate())[check] and "at " in said and any(map(str.isdigit, said))


@pytest.mark.parametrize("color", [(240, 205, 180), SKIN, (120, 80, 60), (75, 50, 40)])
def test_skin_of_any_tone_passes_and_its_light_does_not_count_as_sharpness(color):
    picture = grain(color, amount=6)
    assert not find_faults(picture, Gate())
    dimmed = np.rint(grain(color, amount=0) * 0.8 + 0.8 * (picture.astype(float) - color)).astype(np.uint8)
    assert measure(dimmed).sharpness == pytest.approx(measure(picture).sharpness, rel=0.05)


def test_limits_are_where_they_say():
    assert not find_faults(half_white(0.59), Gate())
    blue, skin = grain((60, 120, 200)), grain(SKIN)
    for rows, passes in ((18, False), (20, True)):  # 15 % of 128 rows are 19.2
        picture = np.concatenate([skin[:rows], blue[rows:]])
        assert ("not_skin" not in find_faults(picture, Gate())) == passes
    lights = np.full((128, 128, 3), (60, 60, 60), np.uint8)
    for rows, passes in ((6, False), (7, True)):  # 5 % are 6.4
        lights[:rows] = 61
        assert ("underexposed" not in find_faults(lights, Gate())) == passes


def test_measures_agree_with_other_implementations():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    picture[:30, :40] = 255  # flat, burnt
    found = measure(picture)
    luma = picture.astype(np.float64) @ [0.299, 0.587, 0.114]
    laplacian = cv2.Laplacian(luma, cv2.CV_64F, borderType=cv2.BORDER_REFLECT_101)
    assert found.sharpness == pytest.approx(laplacian.var() / (luma.var() + 1), rel=1e-12)
    ycc = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)[..., 1:]  # rounded to bytes
    expected = np.mean((ycc >= [131, 77]).all(-1) & (ycc <= [185, 140]).all(-1))
    assert found.skin == pytest.approx(expected, abs=0.01)
    assert found.lit == np.mean(luma > 60)
    assert found.burnt == np.mean(np.all(picture[24:72, 24:72] >= 250, axis=-1))
    same = [
        [
            (picture[i, j] == picture[i, j + 1]).all() and (picture[i, j] == picture[i + 1, j]).all()
            for j in range(95)
        ]
        for i in range(95)
    ]
    assert found.flat == np.mean(same) > 0.1


def test_what_is_measured_does_not_depend_on_the_size_of_the_file_or_the_network():
    large = np.asarray(Image.fromarray(grain(SKIN)).resize((512, 512), Image.Resampling.BICUBIC))
    assert measure(large) == measure(
        np.asarray(Image.fromarray(large).resize((128, 128), Image.Resampling.BICUBIC))
    )
    blurry = file(np.asarray(Image.fromarray(smooth()).resize((700, 500))))
    for size in (32, 128, 224):
        assert refusal(blurry, size=size) == refusal(blurry)
    good = file(large)
    np.testing.assert_array_equal(decode_image(good, size=48, gate=Gate()), decode_image(good, size=48))


@pytest.mark.parametrize(("size", "times"), [(224, 1), (128, 1), (64, 2)])
def test_an_image_is_decoded_once_and_scored_as_without_a_gate(size, times, monkeypatch):
    """Below 128 pixels a large JPEG is decoded too small to show faults, so the gate decodes it again."""
    decoded = []
    decode = images._decode
    monkeypatch.setattr(images, "_decode", lambda *given: decoded.append(given[1]) or decode(*given))
    large = np.asarray(Image.fromarray(grain(SKIN)).resize((1800, 1200), Image.Resampling.BICUBIC))
    for data, expected in ((file(large, "JPEG", quality=95), times), (file(large), 1)):
        decoded.clear()
        pixels = decode_image(data, size=size, gate=Gate())
        assert len(decoded) == expected
        np.testing.assert_array_equal(pixels, decode_image(data, size=size))


@pytest.mark.parametrize("check", [*FAULTY, ""])
def test_decisions_do_not_depend_on_how_far_a_large_jpeg_is_reduced_while_decoding(check):
    """Measures move by some percent between reductions; the decision does not."""
    clear = {
        "overexposed": half_white(0.75),
        "blurred": np.full((128, 128, 3), SKIN, np.uint8),
        "": grain(SKIN),
    }
    picture = clear[check] if check in clear else FAULTY[check]()
    data = file(np.asarray(Image.fromarray(picture).resize((1200, 1200), Image.Resampling.BICUBIC)), "JPEG")
    assert list(find_faults(decode_image(data, size=128), Gate())) == [check] * bool(check)
    for size in (32, 100, 128, 224, 448, 900):
        decode_image(data, size=size, gate=Gate(**{check: False} if check else {}))
        if check:
            assert refusal(data, size=size).split(":")[0] == refusal(data).split(":")[0]


def test_size_and_frames_are_refused_unless_switched_off():
    small = file(grain(SKIN, size=60))
    assert refusal(small, min_side=61) == "60x60 pixels; at least 61x61 are needed"
    assert decode_image(small, size=64, gate=Gate(too_small=False), min_side=61).shape == (64, 64, 3)
    assert "at least 32x32" in refusal(file(grain(SKIN, size=31)), gate=Gate(**OPEN))
    frames = [Image.fromarray(grain(SKIN, seed=seed)) for seed in range(2)]
    several = file(np.asarray(frames[0]), save_all=True, append_images=frames[1:])
    assert "multi-page" in refusal(several)
    first = decode_image(several, size=128, gate=Gate(several_frames=False))
    np.testing.assert_array_equal(first, np.asarray(frames[0]))


def test_several_faults_are_all_named_and_files_by_their_path(tmp_path):
    path = tmp_path / "blue.png"
    path.write_bytes(file(np.full((80, 80, 3), (0, 0, 40), np.uint8)))
    with pytest.raises(UnusableImage) as caught:
        load_image(path, size=64, gate=Gate())
    assert [part.split(":")[0] for part in caught.value.reason.split("; ") if ":" in part] == [
        "too dark",
        "blurred",
        "not like skin",
    ]
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("size", [64, 224])
def test_procedural_images_pass(size):
    drawn = from_lesions(size=size, positives=6, negatives=36, seed=0)
    assert not quality.screen(drawn, Gate(), "list").doubtful


def dataset():
    pictures = [grain(SKIN, size=64), grain(SKIN, size=64, seed=1), grain((60, 120, 200), size=64)]
    names = np.array(["mpox/1.png", "other/2.png", "mpox/3.png"])
    labels = np.array(["mpox", "other", "mpox"])
    return Dataset(np.stack(pictures), labels, names, names, "a test", "mpox", unusable=(("a", "b"),))


def test_data_are_listed_by_default_and_left_out_on_demand():
    data = dataset()
    listed = quality.screen(data, Gate(), "list")
    assert listed.digest() == data.digest() and listed.unusable == data.unusable
    ((name, why),) = listed.doubtful
    assert name == "mpox/3.png" and why.startswith("not like skin: 0%")
    refused = quality.screen(data, Gate(), "refuse")
    assert refused.names.tolist() == ["mpox/1.png", "other/2.png"]
    assert refused.unusable == (("a", "b"), (name, why)) and not refused.doubtful
    assert quality.screen(data, Gate(), "off") is data
    assert quality.screen(data, Gate(not_skin=False), "refuse").names.tolist() == data.names.tolist()
    with pytest.raises(ValueError, match=r"1 images do not pass .*mpox/3.png"):
        quality.screen(data, Gate(), "refuse", strict=True)
    with pytest.raises(ValueError, match=r"every image of 'mpox' .*mpox/3.png"):
        quality.screen(data.select(np.array([1, 2])), Gate(), "refuse")


def test_the_configuration_reaches_the_data(tmp_path):
    data = dataset()
    for name, pixels in zip(data.names, data.images, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    config = mim.get_config("quick").to_dict()
    config["data"]["root"] = str(tmp_path)

    def read(**gate):
        config["data"]["gate"] |= gate
        return parse(config)

    assert read().data.gate == Gate()
    assert [name for name, _ in load_dataset(read()).doubtful] == ["mpox/3.png"]
    assert len(load_dataset(read(training="refuse"))) == 2
    without = read(not_skin=False)
    assert without.data.gate == Gate(not_skin=False) and len(load_dataset(without)) == 3
    with pytest.raises(ValueError, match=r"config\.data\.gate\.training 'drop'"):
        read(training="drop")


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 5, 3), np.uint8), np.zeros((8, 8, 3)), np.zeros((3, 3, 3), np.uint8)]
)
def test_other_arrays_are_refused(wrong):
    with pytest.raises(ValueError, match="image must"):
        measure(wrong)


def test_measures_are_plain_numbers():
    assert all(type(value) is float for value in vars(Measures(**vars(measure(text())))).values())
