"""Runs under JAX's switches for dtypes (x64, strict promotion), and a run on a platform without a device."""

import jax
import pytest
from launching import QUICKLY, finish, launch, start, tiny
from small_training import SHORT, events_of, small_networks, train

RUN = """
import sys
from small_training import SHORT, configuration, small_networks
from mim_jax.cli import main
with small_networks():
    given = {"config": configuration(**SHORT), "workdir": sys.argv[1], "device": "auto", "paths": []}
    sys.exit(main.execute("run", **given))
"""


def test_a_run_under_both_switches_is_a_run_without_them(tmp_path, compiled_quickly):
    switches = {"JAX_ENABLE_X64": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
    finish(start("-c", RUN, tmp_path / "switched", **QUICKLY, **switches))
    assert (tmp_path / "switched" / "report.html").exists()
    with small_networks():
        train(tmp_path / "plain", **SHORT)
    switched, plain = (
        [event["loss_pixel"] for event in events_of(tmp_path / name)] for name in ("switched", "plain")
    )
    assert len(switched) == 4 and switched == pytest.approx(plain, abs=1e-4)


def test_a_platform_without_a_device_is_one_sentence(tmp_path):
    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("there is a GPU")
    for platform in ("cuda", "nonsense"):
        _, said = launch(*tiny(tmp_path / "run"), expect=1, JAX_PLATFORMS=platform)
        assert said.startswith(f"mim_jax: JAX_PLATFORMS={platform} was asked for, but JAX finds none (")
        assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
