"""Clients from npm: `make test-clients` installs them (package-lock.json) and runs these tests, which are slow."""

import shutil
from pathlib import Path

import pytest

from tests.responses_api.conftest import live

__all__ = ["live"]

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def modules():
    """The folder of installed packages."""
    folder = HERE / "node_modules"
    if shutil.which("node") is None or not folder.is_dir():
        pytest.skip("the npm packages are not installed; run: make test-clients")
    return folder
