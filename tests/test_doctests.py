"""The examples in docstrings run and give the printed results."""

import doctest
import importlib
import pkgutil

import mim_jax


def modules():
    """Every module of the package whose extra is installed."""
    for found in pkgutil.walk_packages(mim_jax.__path__, "mim_jax."):
        try:
            yield importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            assert error.name is None or not error.name.startswith("mim_jax")


def test_every_example_gives_what_it_says(compiled_quickly):
    results = {module.__name__: doctest.testmod(module) for module in modules()}
    assert {name: result.failed for name, result in results.items() if result.failed} == {}
    with_examples = {name for name, result in results.items() if result.attempted}
    assert {"mim_jax.mask", "mim_jax.measure.similarity", "mim_jax.decide.conformal"} <= with_examples
