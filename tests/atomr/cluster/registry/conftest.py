"""What the tests of the registry share."""

from __future__ import annotations

import pytest

from tests.atomr.http2.conftest import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))
