"""The detector: several holes, margins, streams, decisions, and the images that it accepts."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from mim_jax import Detector, UnusableImage, composite_similarities, load_image, mask
from mim_jax.data.quality import Gate
from mim_jax.decide.conformal import cross_p_values
from mim_jax.decide.decision import Calibration, Decision
from mim_jax.deploy.bulk.rows import score_files
from mim_jax.inpaint.inference import network_fill
from mim_jax.measure.similarity import Measure

pytestmark = pytest.mark.usefixtures("compiled_quickly")

SIZE, HOLE = 24, 12


class Painter(nn.Module):
    """Paint the mean of the input, so that every visible pixel matters."""

    @nn.compact
    def __call__(self, masked, train):
        shade = self.param("shade", nn.initializers.constant(0.3), (3,))
        return jnp.broadcast_to(
            jnp.mean(masked, axis=(1, 2), keepdims=True) + shade.reshape(1, 1, 1, 3),
            (len(masked), HOLE, HOLE, 3),
        )


def detector(**fields):
    variables = [{"params": {"shade": jnp.full(3, shade)}} for shade in (0.1, -0.2)]
    return Detector(Painter(), variables, SIZE, HOLE, **fields)


def images(count):
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("reduce", ["mean", "min"])
def test_several_holes_are_the_holes_one_by_one(reduce):
    measure = Measure(holes=5, reduce=reduce)
    model = detector(measure=measure, threshold=0.0)
    batch, expected = images(8), []
    for variables in model.variables:
        by_hole = []
        for offset in mask.grid_offsets(SIZE, HOLE, 5):
            patches = network_fill(model.generator, variables, batch, offset, mask_size=HOLE)
            by_hole.append(np.array(composite_similarities(batch, patches, offset).ssim_hbd))
        expected.append(getattr(np, reduce)(by_hole, axis=0))
    found = model.similarities(batch)["ssim_hbd"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    fn, variables = model.pure()
    np.testing.assert_allclose(jax.jit(fn)(variables, batch).ssim_hbd, np.mean(expected, axis=0), atol=1e-6)
    assert np.ptp(found[0]) > 0


def test_four_holes_tile_the_image_and_one_is_the_centre():
    covered = sum(
        np.asarray(mask.box_mask(offset, size=SIZE, mask_size=HOLE))
        for offset in mask.grid_offsets(SIZE, HOLE, 4)
    )
    np.testing.assert_array_equal(covered, 1)
    assert mask.grid_offsets(224, 112, 1) == (mask.center_offset(224, 112),)
    assert set(mask.grid_offsets(SIZE, HOLE, 4)) | {(6, 6)} == set(mask.grid_offsets(SIZE, HOLE, 5))
    with pytest.raises(ValueError, match="holes must be 1, 4, 5, 9, got 3"):
        mask.grid_offsets(SIZE, HOLE, 3)


def test_a_margin_hides_what_touches_the_hole():
    model = detector(model={"margin": 3})
    batch = images(2)
    changed = batch.copy()
    changed[:, 3:6, 3:21] = 0  # above the hole, inside the margin
    seen = detector().inpaint(changed)[:, 6:18, 6:18]
    assert np.any(seen != detector().inpaint(batch)[:, 6:18, 6:18])
    np.testing.assert_array_equal(model.inpaint(changed)[:, 6:18, 6:18], model.inpaint(batch)[:, 6:18, 6:18])


def test_a_stream_scores_as_an_array(tmp_path):
    model, batch = detector(), images(41)
    expected = model.score_samples(batch)
    np.save(tmp_path / "images.npy", batch)
    np.testing.assert_array_equal(model.score_samples(image for image in batch), expected)
    np.testing.assert_array_equal(
        model.score_samples(np.load(tmp_path / "images.npy", mmap_mode="r")), expected
    )
    assert model.score_samples(iter(())).shape == (0,)
    assert model.similarities(batch)["mae"].shape == (2, 41)


def test_decisions_need_a_threshold():
    batch = images(5)
    with pytest.raises(ValueError, match="no threshold"):
        detector().predict(batch)
    middle = float(np.median(detector().score_samples(batch)))
    model = dataclasses.replace(detector(), threshold=middle)
    assert np.sum(model.predict(batch) == 1) == 2 and set(model.predict(batch)) == {1, -1}
    np.testing.assert_allclose(model.anomaly_score(batch), 1 - model.score_samples(batch))


def test_assess_uses_every_fold_and_keeps_errors_in_their_place():
    batch = images(40)
    by_fold = detector().similarities(batch)["ssim_hbd"]
    known = tuple(tuple(np.sort(own[:20]).tolist()) for own in by_fold)
    described = {"origin": "here", "promise": "some", "band": "none"}
    calibration = Calibration("ssim_hbd", "mpox", "calibrated", 0.1, known, 0.5, None, **described)
    model = detector(calibration=calibration)
    found = model.assess(batch, alpha=0.3)
    np.testing.assert_allclose([one.p_value for one in found], cross_p_values(known, list(by_fold)))
    assert {one.decision for one in found} == {Decision.MPOX_LIKE, Decision.NOT_MPOX_LIKE}
    mixed = model.assess([UnusableImage("torn"), batch[0], ValueError("lost"), batch[1]], alpha=0.3)
    assert [one.reasons for one in mixed] == [("torn",), found[0].reasons, ("lost",), found[1].reasons]
    assert mixed[1].score is not None and mixed[0].score is None
    assert [one.decision for one in model.assess([ValueError("a")])] == [Decision.UNUSABLE]
    assert model.assess([]) == [] and len(model.assess(batch[0])) == 1
    assert {one.decision for one in detector().assess(batch[:3])} == {Decision.CANNOT_TELL}
    warned = detector(calibration=calibration, notice="Drawn.").assess([batch[0], ValueError("a")], alpha=0.3)
    assert [one.reasons for one in warned] == [(*found[0].reasons, "Drawn."), ("a",)]


def test_read_applies_the_same_gate_as_scoring(tmp_path):
    skin = np.random.default_rng(0).integers([150, 90, 70], [230, 150, 130], (140, 140, 3), dtype=np.uint8)
    pictures = {"skin": skin, "black": np.zeros_like(skin), "small": skin[:40, :31]}
    paths = [tmp_path / f"{name}.png" for name in pictures]
    for path, pixels in zip(paths, pictures.values(), strict=True):
        Image.fromarray(pixels).save(path)
    paths.append(tmp_path / "absent.png")
    model = detector()
    assessed = model.assess(map(model.read, paths))
    assert [one.decision is Decision.UNUSABLE for one in assessed] == [False, True, True, True]
    assert "too dark" in assessed[1].reasons[0] and "31" in assessed[2].reasons[0]
    assert assessed[3].reasons == ("no such file",)
    assert model.assess(model.read(paths[1])) == assessed[1:2]
    np.testing.assert_array_equal(model.read(paths[0]), load_image(paths[0], size=SIZE))
    # Scoring files passes the same gate: same reasons, same scores.
    with ThreadPoolExecutor(1) as pool:
        given = [(str(path), "", None) for path in paths]
        scored = list(score_files(model, given, gate=Gate(), pool=pool))
    assert [one.assessment for one in scored] == assessed
    every_check_off = Gate(*[False] * len(dataclasses.fields(Gate)))
    assert isinstance(model.read(paths[1], gate=every_check_off), np.ndarray)
    # A hole larger than the smallest accepted picture raises that minimum.
    large = Detector(Painter(), model.variables, image_size=224, mask_size=180)
    assert "at least 180x180" in large.read(paths[0]).reason


@pytest.mark.parametrize("holes", [1, 5])
def test_scores_under_x64(holes):
    model, batch = detector(measure=Measure(holes=holes)), images(3)
    expected, painted = model.score_samples(batch), model.inpaint(batch)
    with jax.enable_x64(True):
        np.testing.assert_allclose(model.score_samples(batch), expected, atol=1e-6)
        np.testing.assert_allclose(model.inpaint(batch), painted, atol=1e-6)


def test_any_number_of_images_is_compiled_once():
    traces = []

    class Counted(Painter):
        @nn.compact
        def __call__(self, masked, train):
            traces.append(masked.shape)
            return jnp.full(
                (len(masked), HOLE, HOLE, 3), self.param("shade", nn.initializers.zeros, (3,)).mean()
            )

    model = dataclasses.replace(detector(), generator=Counted())
    for count in (1, 2, 7, 8, 9, 31, 32, 33, 64, 65, 71):
        assert model.score_samples(images(count)).shape == (count,)
    assert len(traces) == 1


IMAGENET = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


@pytest.mark.parametrize(
    ("scaled", "way"),
    [
        (lambda x: 255 * x, "divide by 255"),
        (lambda x: 2 * x - 1, r"use \(x \+ 1\) / 2"),
        (lambda x: (x - IMAGENET[0]) / IMAGENET[1], "undo the normalisation"),
    ],
)
def test_floats_of_another_range_are_refused_by_every_method(scaled, way):
    model, small = detector(threshold=0.5), images(9).astype(np.float32) / 255
    methods = ("score_samples", "anomaly_score", "decision_function", "predict", "assess", "similarities")
    for name in (*methods, "hole_similarities", "inpaint"):
        method = getattr(model, name)
        for wrong in (scaled(small), jnp.asarray(scaled(small)), list(scaled(small)), scaled(small)[0]):
            if name == "inpaint" and isinstance(wrong, jax.Array):
                continue  # values on the device are checked only where something is copied off it anyway
            with pytest.raises(ValueError, match=rf"got values from .*: {way}"):
                method(wrong)
        method(small)
    np.testing.assert_allclose(model.score_samples(small), model.score_samples(images(9)), atol=1e-6)


def test_a_pillow_image_is_accepted_and_other_types_are_named():
    model, batch = detector(), images(2)
    photo = Image.fromarray(batch[0])
    np.testing.assert_array_equal(model.score_samples(photo), model.score_samples(batch[0]))
    np.testing.assert_array_equal(model.score_samples([photo, batch[1]]), model.score_samples(batch))
    with pytest.raises(ValueError, match=r"images must be .* got \[12, 12, 3\]"):
        model.score_samples(photo.resize((12, 12)))
    for wrong in (None, 3, object(), "a.jpg", Path("a.jpg")):
        for score in (model.score_samples, model.assess):
            with pytest.raises(ValueError, match=rf"must be an array, got {type(wrong).__name__}"):
                score(wrong)


def test_the_pure_function_is_mapped():
    fn, variables = detector().pure()
    batch = images(4)
    mapped = jax.jit(jax.vmap(fn, in_axes=(None, 0)))(variables, batch[:, None])
    np.testing.assert_allclose(np.array(mapped)[..., 0], np.array(fn(variables, batch)), atol=1e-6)


def test_unfit_images_and_folds_are_named():
    model = detector()
    with pytest.raises(ValueError, match="must be an array, got iterator"):
        model.inpaint(iter(images(2)))
    np.testing.assert_array_equal(model.inpaint(list(images(2))), model.inpaint(images(2)))
    with pytest.raises(ValueError, match=r"\[N, 24, 24, 3\] or one .* got \[2, 12, 12, 3\]"):
        model.inpaint(images(2)[:, :12, :12])
    for fold in (-1, 2):
        with pytest.raises(ValueError, match=f"folds 0 to 1, not {fold}"):
            model.inpaint(images(1), fold=fold)
    assert model.inpaint(images(1)[0], fold=1).shape == (1, SIZE, SIZE, 3)
    fn, variables = model.pure()
    for shape in ((2, 26, 26, 3), (SIZE, SIZE, 3)):
        with pytest.raises(ValueError, match=r"images must be \[B, 24, 24, 3\], got"):
            jax.eval_shape(fn, variables, jax.ShapeDtypeStruct(shape, jnp.uint8))


def test_bfloat16_images_score_as_their_values():
    batch = jnp.asarray(images(3), jnp.bfloat16) / 255
    as_float32 = np.asarray(batch, np.float32)
    np.testing.assert_allclose(
        detector().score_samples(batch), detector().score_samples(as_float32), atol=1e-6
    )


def test_hole_similarities_have_a_row_per_hole():
    found = detector(measure=Measure(holes=4)).hole_similarities(images(3))
    assert found["ssim"].shape == (4, 2, 3)


def test_a_hole_filled_once_for_several_measures_scores_as_for_each_alone():
    whole, hole = measures = (Measure(), Measure(region="mask"))
    found = detector().measured(images(3), measures)
    assert not np.array_equal(found[0]["ssim"], found[1]["ssim"])
    for measure, scores in zip((whole, hole), found, strict=True):
        alone = detector(measure=measure).similarities(images(3))
        for name, values in alone.items():
            np.testing.assert_array_equal(scores[name], values)
