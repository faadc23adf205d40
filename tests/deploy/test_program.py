"""The ONNX program is the detector: same similarities, inpainting and map, from weights in fewer bits."""

import dataclasses

import jax
import numpy as np
import pytest

from mim_jax.deploy import export
from mim_jax.evaluate import panels
from tests.deploy.small import SIZE, make_detector

pytest.importorskip("jax2onnx", reason="jax2onnx is not installed: see docs/deploy.md")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install '.[app]'")

from mim_jax.deploy.app import bundle, program, runtime  # noqa: E402 - they need ONNX

pytestmark = pytest.mark.usefixtures("compiled_quickly")

# A thousandth of what the seal of float32 weights allows.
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
        _, inpainted, windows = session.run(program.OUTPUTS, {program.INPUT: image})
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
    with pytest.raises(ValueError, match="'int4': choose one of int8, float16, float32"):
        program.shrink(model, "int4")


def test_primitive_keeps_numbers_and_has_no_choice_left():
    detector = make_detector()
    view = program.viewer(program.folded(detector))
    image = jax.ShapeDtypeStruct((SIZE, SIZE, 3), np.uint8)
    plain = jax.make_jaxpr(program.primitive(view, image))(image)
    names = {equation.primitive.name for equation in plain.jaxpr.eqns}
    assert not names & {"cond", "platform_index", "jit", "scan", "while", "custom_jvp_call"}
    assert not any(
        getattr(v.aval, "dtype", None) == jax.numpy.bfloat16 for e in plain.jaxpr.eqns for v in e.outvars
    )
    for one, other in zip(
        jax.jit(program.primitive(view, image))(images(1)[0]), jax.jit(view)(images(1)[0]), strict=True
    ):
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), atol=1e-5)


def test_the_app_holds_one_fold():
    detector = make_detector()
    both = dataclasses.replace(detector, variables=[*detector.variables] * 2)
    with pytest.raises(ValueError, match="this detector has 2: load it with fold=0"):
        program.to_onnx(both)
