"""Architecture: layered imports, limits on size and on import cost, and configurations that can be built."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from configs import classifiers, mim
from mim_jax.classifiers import train as classifier_training
from mim_jax.train import mim as mim_training
from mim_jax.train.config import parse

PACKAGE = Path(__file__).parent.parent / "mim_jax"
PATHS = sorted(PACKAGE.rglob("*.py"))
# Layers, lowest first: each may import lower ones, and nothing else of the package.
FLOORS = (
    {"mask", "measure"},
    {"data"},  # its batches use the scorer's checks of input
    {"decide"},
    {"inpaint"},
    {"train"},
    {"classifiers"},
    {"features"},
    {"detector"},
    {"evaluate"},
    {"report", "deploy"},
    {"cli"},
    {"__main__"},
)
# Third-party packages that these layers may import besides the standard library.
LIGHT = {"measure": {"jax", "numpy"}, "decide": {"numpy", "scipy"}}
# What was added to the design's 16,500 lines and 100 modules: lines and modules of each capability.
ADDED = {
    "memory estimates and bounds": (400, 4),
    "the scorer's derivatives under vmap, masks, MS-SSIM, PSNR and range checks": (500, 2),
    "correct pixels or a reason for every PNG and TIFF, and a reason for every unreadable file": (350, 4),
    "detectors on frozen features: backbones, scores, map, evaluation, exports and app": (2400, 21),
    "one-line messages for mistakes on the command line, and the command from any folder": (500, 4),
    "counts by bit planes": (50, 1),
    "a table of backbones apart from their type": (0, 1),
    "bulk scoring: inputs, buckets, rows, parts that survive kills, Ray, summary and drift": (1800, 9),
    "initial weights drawn in one loop": (110, 1),
    "help and mistakes on the command line without waiting for JAX": (10, 1),
    "corrupted images of all conditions in shared batches, colours for all folds at once": (30, 0),
    "traced trainings stored between runs, and shapes of networks computed once": (220, 1),
    "large matrices in parts of the batch, and programs that run in the main thread": (100, 0),
}


def imported(path):
    """Names of the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module == "mim_jax"
            found |= {f"mim_jax.{alias.name}" for alias in node.names} if whole else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_imports_run_one_way():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for path in PATHS:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in imported(path) - {"mim_jax"}:  # imported for its version
            root, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if root == "mim_jax" and other != own:
                assert floor[other] < floor[own], f"{path.relative_to(PACKAGE)} imports {name}"
            elif own in LIGHT and root != "mim_jax" and root not in sys.stdlib_module_names:
                assert root in LIGHT[own], f"{path.relative_to(PACKAGE)} imports {name}"


def test_the_package_stays_small():
    lines = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in PATHS}
    folders = (PACKAGE.parent / name for name in ("mim_jax", "benchmarks", "configs", "examples", "tests"))
    paths = (path for folder in folders for path in folder.rglob("*.py"))
    long = [path.name for path in paths if len(path.read_text().splitlines()) > 350]
    assert long == []
    assert len({name.split("/")[0] for name in lines} - {"__init__.py"}) <= 14
    spare_lines, spare_modules = (sum(column) for column in zip(*ADDED.values(), strict=True))
    assert sum(lines.values()) <= 16_500 + spare_lines
    with_code = [path for path in PATHS if len(ast.parse(path.read_text()).body) > 1]  # not just a docstring
    assert len(with_code) <= 100 + spare_modules


def test_only_one_module_reads_a_configuration():
    readers = {path.relative_to(PACKAGE).as_posix() for path in PATHS if 'config["' in path.read_text()}
    assert readers == {"train/config.py"}


# The scorer, and the command line, whose mistakes should not wait for what they do not need.
SLOW = {"dm_pix", "matplotlib", "orbax", "pyarrow", "scipy", "sklearn"}
UNUSED = {
    "mim_jax": {*SLOW, "flax", "optax", "PIL"},
    "mim_jax.measure.similarity": {*SLOW, "flax", "optax", "PIL"},
    "mim_jax.deploy.export": {*SLOW, "flax", "optax", "PIL"},
    "mim_jax.cli.main": SLOW,
}


@functools.cache
def loaded(name):
    """Packages that an import loads."""
    code = f"import sys, {name}; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


@pytest.mark.parametrize("module", UNUSED)
def test_importing_a_module_imports_no_slow_package_that_it_does_not_use(module):
    assert not UNUSED[module] & (loaded(module) - loaded("jax"))


def test_the_command_line_is_read_without_jax():
    assert "jax" not in loaded("mim_jax.cli.command")


@pytest.mark.parametrize("variant", sorted(mim.VARIANTS))
def test_every_configuration_can_be_built(variant):
    mim_training.check(parse(mim.get_config(variant).to_dict()))


@pytest.mark.parametrize("variant", sorted(classifiers.VARIANTS))
def test_every_classifier_can_be_built(variant):
    classifier_training.check(parse(classifiers.get_config(variant).to_dict()))


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'quik'.*'quick', 'features'"):
        mim.get_config("quik")
