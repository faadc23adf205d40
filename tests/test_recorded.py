"""A workdir and an export that version 0.1.0 wrote before the package was restructured still score the same.

`recorded/before_the_move.tar.xz` was made at commit d4fb428: a run of two folds on embedded images of 32
pixels (only its network's weights), its export, and that version's results on the golden images.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import mim_jax
from mim_jax.deploy.export import golden_images
from mim_jax.measure import METRICS

ARCHIVE = Path(__file__).parent / "recorded" / "before_the_move.tar.xz"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(path, filter="data")
    return path, json.loads((path / "expected.json").read_text())


def test_a_recorded_workdir_scores_and_decides_as_it_did(recorded):
    path, expected = recorded
    detector, images = mim_jax.load(path / "workdir"), golden_images(32)
    found = detector.similarities(images)
    for metric in METRICS:
        np.testing.assert_allclose(found[metric], expected["workdir"][metric], atol=1e-6)
    assessed = detector.assess(images)
    assert [str(each.decision) for each in assessed] == expected["decisions"]
    assert [each.p_value for each in assessed] == expected["p_values"]


def test_a_recorded_export_scores_as_it_did(recorded):
    path, expected = recorded
    images = golden_images(32)
    network, program = mim_jax.load(path / "export"), mim_jax.load_exported(path / "export")
    np.testing.assert_allclose(network.score_samples(images), expected["from_export"], atol=1e-6)
    np.testing.assert_allclose(program.score_samples(images), expected["exported"], atol=1e-6)
