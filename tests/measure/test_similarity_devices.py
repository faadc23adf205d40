"""The scorer as other programs use it: on several devices, and as it is lowered for accelerators."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from mim_jax.measure import similarity

ON_EIGHT_DEVICES = """
import functools
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from mim_jax.measure import similarity

devices = jax.devices()
assert len(devices) == 8
x, y = np.random.default_rng(0).random((2, 16, 24, 24, 3), np.float32)
mesh = Mesh(np.array(devices), ("batch",))
parts = NamedSharding(mesh, P("batch"))


def divided(form, whole=P("batch")):
    return jax.jit(jax.shard_map(form, mesh=mesh, in_specs=(P("batch"), whole), out_specs=P("batch")))


every = functools.partial(similarity.similarities, filter_size=5)
alone = np.array(every(x, y))
sharded = jax.jit(every)(jax.device_put(x, parts), jax.device_put(y, parts))
np.testing.assert_allclose(np.array(sharded), alone, atol=1e-6)
np.testing.assert_allclose(np.array(divided(every)(x, y)), alone, atol=1e-6)
by_device = jax.pmap(every)(x.reshape(8, 2, *x.shape[1:]), y.reshape(8, 2, *y.shape[1:]))
np.testing.assert_allclose(np.array(by_device).reshape(5, 16), alone, atol=1e-6)
np.testing.assert_array_equal(np.array(divided(jax.vmap(every))(x, y)), alone)

patches = y[:, :12, :12]
composite = functools.partial(similarity.composite_similarities, offset=(4, 7), filter_size=5)
alone = np.array(composite(x, patches))
sharded = jax.jit(lambda a, b: composite(a, b))(jax.device_put(x, parts), jax.device_put(patches, parts))
np.testing.assert_allclose(np.array(sharded), alone, atol=1e-6)
mapped = divided(jax.vmap(lambda a, b: composite(a, b)))
np.testing.assert_array_equal(np.array(mapped(x, patches)), alone)

joint = similarity.ssim_hbd
slopes = jax.vmap(jax.grad(joint))
np.testing.assert_array_equal(divided(slopes)(x, y), slopes(x, y))
# One target on all devices, whose gradient is summed over them.
to_one = jax.vmap(joint, in_axes=(0, None))
mapped = divided(to_one, P())
np.testing.assert_array_equal(mapped(x, y[0]), to_one(x, y[0]))
found, expected = (jax.jit(jax.grad(lambda b: f(x, b).mean()))(y[0]) for f in (mapped, to_one))
np.testing.assert_allclose(found, expected, atol=1e-7)
"""


def test_eight_devices_give_the_numbers_of_one():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT_DEVICES], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("form", ["similarities", "composite", "soft"])
def test_accelerators_get_neither_scatter_nor_gather_nor_loop(form):
    image, patch = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.uint8), jax.ShapeDtypeStruct((4, 12, 12, 3), "f4")
    functions = {
        "similarities": (lambda x, y: similarity.similarities(x, y), image, image),
        "composite": (lambda x, y: similarity.composite_similarities(x, y, (10, 10)), image, patch),
        "soft": (lambda x, y: similarity.hbd(x, y, soft=True), image, image),
    }
    function, *arguments = functions[form]

    def operations(platform: str) -> set[str]:
        text = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
        return {name for name in ("scatter", "gather", "while") if f"stablehlo.{name}" in text}

    assert operations("cuda") == set()
    # On CPU pixels are added one by one, the fastest histogram there: shows that the search finds them.
    assert operations("cpu") == {"scatter", "while"}


def test_an_offset_per_image_is_a_gather_on_accelerators():
    shapes = [jax.ShapeDtypeStruct((4, side, side, 3), "f4") for side in (32, 12)]
    offsets = jax.ShapeDtypeStruct((4, 2), "i4")
    traced = jax.jit(similarity.composite_similarities).trace(*shapes, offsets)
    assert "stablehlo.gather" in traced.lower(lowering_platforms=("cuda",)).as_text()
