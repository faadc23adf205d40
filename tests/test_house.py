"""Imports run one way, the package is light to import, and every configuration can be built."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from configs import mim
from mim_jax.train import config

PACKAGE = Path(__file__).parent.parent / "mim_jax"
# Each floor may import those below it, and nothing else of the package.
FLOORS = (
    {"mask", "measure", "data"},
    {"decide"},
    {"inpaint"},
    {"train"},
    {"classifiers"},
    {"features"},
    {"detector"},
    {"evaluate"},
    {"report", "deploy"},
    {"cli"},
)
# What a package may import besides the standard library.
LIGHT = {"measure": {"jax", "numpy"}, "decide": {"numpy", "scipy"}}


def imported(path):
    """Names of the modules that a file imports, anywhere in it; those of the package without its name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            inside = parts[0] == "mim_jax" and len(parts) == 1
            found |= {f"mim_jax.{alias.name}" for alias in node.names} if inside else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_imports_run_one_way():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own not in floor:
            continue
        for name in imported(path):
            root, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if root == "mim_jax" and other != own:
                assert floor.get(other, -1) < floor[own], f"{path.relative_to(PACKAGE)} imports {name}"
            elif own in LIGHT and root != "mim_jax" and root not in sys.stdlib_module_names:
                assert root in LIGHT[own], f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("module", ["mim_jax", "mim_jax.measure.similarity", "mim_jax.export"])
def test_importing_the_scorer_imports_no_heavy_package(module):
    code = f"import sys, {module}; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"flax", "optax", "orbax", "matplotlib", "sklearn", "PIL", "dm_pix", "scipy"} & (
        set(loaded) - set(_with_jax())
    )


def _with_jax():
    """What JAX itself brings."""
    code = "import sys, jax; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.parametrize("variant", sorted(mim.VARIANTS))
def test_every_configuration_can_be_built(variant):
    config.check(mim.get_config(variant).to_dict())


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'quik'.*'quick', 'literal'"):
        mim.get_config("quik")
