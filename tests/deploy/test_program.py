"""The ONNX program matches the detector: similarities, inpainting, map; also with weights in fewer bits."""

import dataclasses

import jax
import numpy as np
import pytest

from mim_jax.data.resize import reduce
from mim_jax.deploy import export
from mim_jax.evaluate import panels
from mim_jax.features.unlikeness import unlikeness
from tests.deploy.small import SIZE, make_combined, make_detector, make_features, striped

pytest.importorskip("jax2onnx", reason="jax2onnx is not installed: see docs/deploy.md")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install '.[app]'")

import onnx  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

from mim_jax.deploy.app import bundle, program, runtime, view  # noqa: E402 - they need ONNX

pytestmark = pytest.mark.usefixtures("compiled_quickly")

# A fiftieth of what the check of float32 weights allows, 1e-4.
ROUNDING = 2e-6


def images(count=4):
    return export.golden_images(SIZE)[:count]


@pytest.mark.parametrize("measure", [{}, {"holes": 4, "reduce": "min", "bins": 64, "region": "mask"}])
def test_onnx_and_the_detector_say_the_same(measure):
    detector = make_detector(**measure)
    expected = bundle.truth(detector, images())
    found = program.run(program.to_onnx(detector).SerializeToString(), images())
    # A pixel on the edge between two levels of the histogram may fall to the other side.
    assert np.abs(found - expected).max() <= 1e-4
    assert np.abs(found - expected)[:, [1, 3, 4]].max() <= ROUNDING
    assert np.ptp(expected, axis=0).min() > 1e-4


def test_what_the_page_shows_is_what_the_report_shows():
    detector = make_detector()
    session = onnxruntime.InferenceSession(program.to_onnx(detector).SerializeToString())
    for image in images(2):
        _, inpainted, windows = session.run(view.outputs(detector), {program.INPUT: image})
        expected = detector.inpaint(image)
        assert np.abs(inpainted / 255 - expected[0]).max() <= 0.51 / 255
        np.testing.assert_allclose(windows, panels.similarity_maps(image[None], expected)[0], atol=1e-5)
        assert windows.min() < 0.9


@pytest.mark.parametrize("generator", ["context_encoder", "unet"])
def test_weights_in_fewer_bits_stay_within_the_tolerance(generator):
    detector = make_detector(generator)
    model = program.to_onnx(detector)
    expected, sizes = bundle.truth(detector, images()), {}
    for kind in program.KINDS:
        data = program.shrink(model, kind).SerializeToString()
        sizes[kind] = len(runtime.packed(data))
        assert np.abs(program.run(data, images()) - expected).max() <= program.TOLERANCE[kind], kind
    assert sizes["int8"] < 0.75 * sizes["float16"] < 0.6 * sizes["float32"]
    with pytest.raises(ValueError, match="'int4': choose one of int8, mixed, float16, float32"):
        program.shrink(model, "int4")


def test_primitive_keeps_results_and_removes_control_flow():
    detector = make_detector()
    shown = view.viewer(detector)
    image = jax.ShapeDtypeStruct((SIZE, SIZE, 3), np.uint8)
    plain = jax.make_jaxpr(program.primitive(shown, image))(image)
    names = {equation.primitive.name for equation in plain.jaxpr.eqns}
    assert not names & {"cond", "platform_index", "jit", "scan", "while", "custom_jvp_call"}
    assert not any(
        getattr(v.aval, "dtype", None) == jax.numpy.bfloat16 for e in plain.jaxpr.eqns for v in e.outvars
    )
    for one, other in zip(
        jax.jit(program.primitive(shown, image))(images(1)[0]), jax.jit(shown)(images(1)[0]), strict=True
    ):
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), atol=1e-5)


def test_the_app_holds_one_fold():
    detector = make_detector()
    both = dataclasses.replace(detector, variables=[*detector.variables] * 2)
    with pytest.raises(ValueError, match="this detector has 2: load it with fold=0"):
        program.to_onnx(both)


KINDS = {
    "features": lambda: make_features(color=False, folds=2).of_fold(1),
    "color": lambda: make_features(folds=2).of_fold(1),
    "combined": lambda: make_combined(folds=2, size=2 * SIZE).of_fold(1),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_feature_detectors_are_written_whole(kind):
    """All scores and maps, with the training images of the fold alone."""
    detector = KINDS[kind]()
    size = detector.image_size
    photos = np.concatenate([striped(2, size, seed=7), export.golden_images(size)[:2]])
    model, expected = program.to_onnx(detector), bundle.truth(detector, photos)
    assert np.abs(program.run(model.SerializeToString(), photos) - expected).max() <= 1e-3
    assert np.ptp(expected[:, 0]) > 0.5
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = view.outputs(detector)
    shown = dict(zip(names, session.run(names, {program.INPUT: photos[0]}), strict=True))
    features = detector.features if kind == "combined" else detector
    np.testing.assert_allclose(shown["unlikeness"], unlikeness(features, photos[0])[0], atol=1e-4)
    if kind == "combined":
        reduced = reduce(photos[:1], SIZE)
        painted = detector.mim.inpaint(reduced)[0]
        # A pixel between two levels may be rounded to the other one when the image is reduced.
        assert np.abs(shown["inpainted"] / 255 - painted).mean() <= 0.3 / 255
    assert bundle.training_images(detector) == 20  # of forty that both folds share
    known = [t for t in model.graph.initializer if 20 in t.dims and np.prod(t.dims) > 100]
    assert len({t.raw_data for t in known}) == len(known) > 3  # no copies


def test_large_weights_are_int8_in_groups_and_training_images_float16():
    rng = np.random.default_rng(0)
    arrays = {"large": rng.normal(size=(256, 300)), "small": rng.normal(size=(64, 65))}
    arrays |= {"known": rng.normal(size=(21, 400)), "filter": np.full((64, 64), 1 / 64)}
    values = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]
    outputs = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, a.shape) for n, a in arrays.items()]
    graph = helper.make_graph([], "constants", [], outputs, values)
    opset = [helper.make_opsetid("", program.OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    small = program.shrink(model, "mixed", training=21)
    stored = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer}
    assert stored["large_stored"] == (8, 32, 300) and stored["large_factor"] == (8, 1, 300)
    session = onnxruntime.InferenceSession(small.SerializeToString())
    found = dict(zip(arrays, session.run(list(arrays), {}), strict=True))
    steps = np.abs(arrays["large"].reshape(8, 32, 300)).max(axis=1, keepdims=True) / 127
    away = np.abs(found["large"] - arrays["large"]).reshape(8, 32, 300)
    assert (away <= 0.51 * steps).all() and away.max() > 1e-3
    for name in ("small", "known"):
        np.testing.assert_array_equal(found[name], arrays[name].astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found["filter"], np.float32(1 / 64))
