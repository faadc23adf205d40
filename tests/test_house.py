"""Imports run one way, the package is light to import, and every configuration can be built."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from configs import mim
from mim_jax import protocol

PACKAGE = Path(__file__).parent.parent / "mim_jax"
# What each module may import of the package. A new arrow has to be drawn here, and must not point back.
ALLOWED = {
    "masks": set(),
    "losses": set(),
    "histograms": set(),
    "pixels": set(),
    "similarity": {"histograms", "pixels"},
    "tensors": set(),
    "batches": set(),
    "calibration": set(),
    "certificate": {"calibration"},
    "alternatives": {"calibration", "ranking"},
    "assessment": {"calibration", "wording"},
    "novelty": {"assessment", "batches"},
    "artefact": {"assessment", "similarity", "tensors"},
    "export": {
        "artefact",
        "assessment",
        "batches",
        "detector",
        "novelty",
        "similarity",
        "tensors",
    },  # detector: its type
    "scored_images": set(),
    "ranking": set(),
    "intervals": set(),
    "seeds": set(),
    "delong": {"intervals", "ranking"},
    "bootstrap": {"intervals", "ranking", "scored_images"},
    "operating_points": {"bootstrap", "ranking", "scored_images"},
    "evaluation": {
        *("bootstrap", "delong", "intervals", "operating_points", "ranking", "scored_images", "seeds"),
    },
    "simple_scores": set(),
    "corruptions": set(),
    "openset": set(),
    "clinical": {"conditions", "corruptions"},
    "conditions": {
        *("bootstrap", "corruptions", "detector", "masks", "pixels", "scored_images", "similarity"),
        "training",
    },
    "robustness": {"clinical", "conditions", "corruptions", "detector", "scored_images", "similarity"},
    "workdir": set(),
    "tensorboard": set(),
    "recorder": {"tensorboard"},
    "controls": {"masks"},
    "models": {"models", "tensors"},
    "folding": {"models"},
    "data": {"data"},
    "epochs": set(),
    "devices": set(),
    "runtime": set(),
    "training": {"epochs", "masks", "losses", "pixels"},
    "checkpoints": set(),
    "stopping": set(),
    "memory": set(),
    "heap": set(),
    "effort": {"data"},
    "trainer": {"checkpoints", "devices", "epochs", "heap", "memory", "recorder", "stopping"},
    "wording": set(),
    "canvas": {"wording"},
    "pictures": {"canvas"},
    "stress_figures": {"canvas", "wording"},
    "promise_figures": {"canvas"},
    "figures": {"canvas", "evaluation", "pictures", "promise_figures", "stress_figures", "wording"},
    "page": {"wording"},
    "tables": {"figures", "page", "wording"},
    "data_sheet": {"figures", "page"},
    "promise_page": {"data_sheet", "figures", "page", "promise_figures", "wording"},
    "stress_page": {"page", "stress_figures", "wording"},
    "evidence": {"stress_figures", "wording"},
    "seed_page": {"canvas", "page", "seeds", "wording", "workdir"},
    "report": {
        *("data_sheet", "evidence", "figures", "page", "pictures", "promise_page", "seed_page"),
        *("stress_page", "tables", "wording"),
    },
    "fitting": {"alternatives", "assessment", "calibration", "certificate"},
    "decisions": {"assessment", "evaluation", "fitting", "similarity"},
    "reliability": {"assessment", "decisions", "evaluation", "intervals"},
    "detector": {
        *(
            "artefact",
            "assessment",
            "batches",
            "checkpoints",
            "masks",
            "models",
            "novelty",
            "pixels",
            "similarity",
        ),
        *("training", "workdir"),
    },
    "scoring": {"assessment", "batches", "data", "detector", "similarity"},
    "protocol": {"assessment", "data", "detector", "masks", "models", "training"},
    "experiment": {
        *("data", "detector", "devices", "epochs", "memory", "protocol", "recorder", "trainer", "training"),
    },
    "trained": {"data", "detector", "epochs", "experiment", "models", "protocol", "trainer", "training"},
    "bank": {"conditions", "data", "scored_images"},
    "methods": {
        *("bank", "batches", "controls", "data", "detector", "recorder", "scored_images", "similarity"),
        *("simple_scores", "trained", "variants"),
    },
    "refinements": {"simple_scores"},
    "features": {"batches", "simple_scores"},
    "variants": {
        "bank",
        "calibration",
        "data",
        "features",
        "masks",
        "refinements",
        "scored_images",
        "trained",
    },
    "panels": {"bank", "detector", "masks", "pictures", "scored_images", "similarity"},
    "facts": {"bank", "checkpoints", "data", "detector", "protocol", "trained"},
    "stored": {"openset", "scored_images", "similarity", "wording", "workdir"},
    "comparison": {"evaluation", "openset", "scored_images", "stored", "wording"},
    "comparison_page": {
        *("comparison", "evaluation", "facts", "figures", "openset", "page", "stored", "wording", "workdir"),
    },
    "classification": {"epochs", "pixels"},
    "classifier": {"batches", "classification", "openset"},
    "classifier_protocol": {"classification", "data", "models", "protocol"},
    "classifier_experiment": {
        *("classification", "classifier_protocol", "data", "devices", "epochs", "memory", "protocol"),
        *("recorder", "trainer"),
    },
    "classifier_results": {
        *("bank", "classifier", "classifier_experiment", "classifier_protocol", "clinical", "comparison"),
        *("comparison_page", "conditions", "data", "decisions", "facts", "openset", "protocol", "recorder"),
        *("scored_images", "stored", "trainer", "workdir"),
    },
    "results": {
        *("assessment", "bank", "data", "decisions", "detector", "evaluation", "facts", "methods", "panels"),
        *("protocol", "recorder", "reliability", "report", "robustness", "scored_images", "similarity"),
        *("trained", "workdir"),
    },
    "app": {
        "app",
        "data",
        "detector",
        "export",
        "facts",
        "folding",
        "masks",
        "pixels",
        "similarity",
        "workdir",
    },
    "uses": {
        *("app", "comparison", "comparison_page", "detector", "export", "protocol", "scoring", "stored"),
    },
    "commands": {
        *("classifier_experiment", "classifier_protocol", "classifier_results", "data", "devices"),
        *(
            "effort",
            "experiment",
            "heap",
            "protocol",
            "recorder",
            "report",
            "results",
            "runtime",
            "stopping",
            "trainer",
            "uses",
        ),
        "workdir",
    },
}


def imported(path):
    """Names of the package's modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mim_jax":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("mim_jax.")}
    return found


def test_imports_run_one_way():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name != "__init__":
            assert imported(path) <= ALLOWED[name], path.name


def test_only_the_protocol_reads_a_configuration():
    readers = {path.stem for path in PACKAGE.rglob("*.py") if 'config["' in path.read_text()}
    above = {"protocol", "experiment", "trained", "results", "facts", "commands", "uses"}
    above |= {"effort", "classifier_protocol", "classifier_experiment", "classifier_results"}
    assert readers <= above | {"detector", "export"}  # these two: the folds, the metric of a saved one


@pytest.mark.parametrize("module", ["mim_jax", "mim_jax.similarity", "mim_jax.export"])
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
    protocol.check(mim.get_config(variant).to_dict())


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'quik'.*'quick', 'literal'"):
        mim.get_config("quik")
