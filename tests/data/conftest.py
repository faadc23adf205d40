"""Downloaded folders shared by the tests of data sources."""

import shutil

import pytest

from tests.data.downloads import make_dermnet, make_isic, make_msld_v2


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """Each source as downloaded; tests that damage one take a copy."""
    root = tmp_path_factory.mktemp("downloads")
    make_msld_v2(root / "msld")
    make_isic(root / "isic2018")
    make_dermnet(root / "dermnet")
    return root


@pytest.fixture
def copy(downloads, tmp_path):
    def take(source):
        return shutil.copytree(downloads / source, tmp_path / source)

    return take
