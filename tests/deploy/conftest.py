"""The small detector and its export."""

import shutil

import pytest

from mim_jax.deploy import export
from tests.deploy.exports import make_detector


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "scorer"
    detector = make_detector()
    return detector, path, export.export(detector, path)


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported[1], tmp_path / "copy")
