"""Clusters of mock deployments, and a runtime that can be made to wait or fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.facade.waiting import PLUGIN, WaitingPlugin

if TYPE_CHECKING:
    from pathlib import Path

_ENTRY_POINTS = """\
[atomr_infer.runtimes]
waiting = tests.facade.waiting:PLUGIN
"""


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WaitingPlugin:
    info = tmp_path / "waiting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: waiting\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    PLUGIN.loading.clear()
    PLUGIN.embedded.clear()
    return PLUGIN
