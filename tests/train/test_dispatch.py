"""The overhead of a dispatch: no copies, one compilation per shape, a profile on request."""

import pwd

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import SETTINGS, Count, build, counting, small_networks

from mim_jax.cli import main
from mim_jax.cli.runtime import Profile, use_compilation_cache
from mim_jax.inpaint.convolution import product
from mim_jax.train import metric_writer, mim, trainer
from mim_jax.train.devices import DeviceGroup
from mim_jax.train.images import prepared_folder

pytestmark = pytest.mark.usefixtures("compiled_quickly")
GROUP = DeviceGroup((jax.devices()[0],))


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_quickly):
    """A function that returns a state of MIM on the first device and the function that runs its epochs."""
    with small_networks():
        experiment = build()
        one, *_ = mim.trainings(experiment, tmp_path_factory.mktemp("run"))
        yield lambda: (GROUP.put(one.init()), one.begin(GROUP, experiment.settings.training))


def test_an_epoch_copies_nothing_between_host_and_device(run):
    state, run = run()
    state, _ = run(state, GROUP.put(np.arange(1, dtype=np.int32)))
    numbers = GROUP.put(np.arange(1, 2, dtype=np.int32))
    with jax.transfer_guard("disallow"):
        state, metrics = run(state, numbers)
        jax.block_until_ready(metrics)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            run(state, np.arange(2, 3, dtype=np.int32))


def test_a_number_of_epochs_compiles_once(run):
    compiled = []

    def hear(event, duration_secs, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    state, run = run()
    numbers = [GROUP.put(np.arange(n, n + count, dtype=np.int32)) for n, count in ((0, 3), (3, 3), (6, 3))]
    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        for index, each in enumerate(numbers):
            state, _ = run(state, each)
            assert len(compiled) == 1, f"dispatch {index + 1}"
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)


def test_the_second_dispatch_of_a_program_is_recorded_and_changes_nothing(tmp_path):
    """Of two trainings, the first to dispatch a program again is recorded."""
    profile = Profile(tmp_path / "profile")

    def count(state, numbers):
        return Count(state.step + len(numbers), state.params), {}

    runs = [profile.wrap(count) for _ in range(2)]
    start = Count(jnp.zeros((), jnp.int32), jnp.zeros(3))
    for run in runs:
        state, _ = run(start, np.arange(2))
        assert not profile.done and not profile.folder.exists()
    state, _ = runs[0](state, np.arange(3))  # another program, compiled here
    assert not profile.done
    state, _ = runs[1](state, np.arange(2))
    assert profile.done and int(state.step) == 7
    traces = list(profile.folder.rglob("*.xplane.pb"))
    runs[0](state, np.arange(2))
    assert len(traces) == 1 == len(list(profile.folder.rglob("*.xplane.pb")))


def test_a_training_is_profiled_through_what_wraps_its_epochs(tmp_path):
    profile = Profile(tmp_path / "profile")
    with metric_writer.Recorder(tmp_path) as recorder:
        trainer.train([counting(tmp_path, 0)], SETTINGS, recorder, wrap=profile.wrap)
    assert profile.done and list(profile.folder.rglob("*.xplane.pb"))


def test_a_profile_of_what_does_not_train_is_refused(capsys):
    given = {"config": {}, "workdir": "x", "device": "cpu", "paths": (), "profile": True}
    assert main.execute("evaluate", **given) == 1
    assert "--profile records training" in capsys.readouterr().err


def test_epochs_of_one_dispatch_are_those_of_several(run):
    """The same images in the same order. Not the same bits: another number of epochs is another program."""
    together, once = run()
    together, losses = once(together, GROUP.put(np.arange(3, dtype=np.int32)))
    apart, once = run()
    for epoch in range(3):
        apart, loss = once(apart, GROUP.put(np.arange(epoch, epoch + 1, dtype=np.int32)))
        assert float(loss["loss_pixel"][0]) == pytest.approx(float(losses["loss_pixel"][epoch]), rel=1e-5)
    assert int(apart.step) == int(together.step) == 9


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_product_and_its_gradients_are_those_of_matrices(dtype):
    rng = np.random.default_rng(0)
    x, kernel, dy = (rng.integers(-8, 8, shape) for shape in ((6, 5), (5, 4), (6, 4)))
    given = [jnp.asarray(each, dtype) for each in (x, kernel, dy)]
    y, back = jax.vjp(product, *given[:2])
    dx, dkernel = back(given[2])
    # Small integers: exact in both types, whatever the order of summation.
    for found, wanted in ((y, x @ kernel), (dx, dy @ kernel.T), (dkernel, x.T @ dy)):
        np.testing.assert_array_equal(np.asarray(found, np.float64), wanted)
        assert found.dtype == dtype


def test_a_user_without_a_home_computes_without_a_cache_and_prepares_where_told(monkeypatch):
    def nobody(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    folder = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        use_compilation_cache()
        assert jax.config.values["jax_compilation_cache_dir"] is None
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
    with pytest.raises(ValueError, match=r"no home folder.*--config\.data\.data_dir"):
        prepared_folder("")
