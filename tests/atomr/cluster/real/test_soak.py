"""Five processes under load, of which one is killed each few seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.at_length import TIMES
from tests.atomr.cluster.real.soak import Soak, soak

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


async def test_nodes_that_are_killed_under_load_hold_the_same_in_the_end(
    tmp_path: Path,
) -> None:
    wanted = Soak(10.0 * TIMES, kills=3, each_s=2.0, per_s=500.0, keys=2_000)
    came = await soak(tmp_path, wanted)

    assert came.problems() == []
    # It is 60 to 70 MiB; the logs of all shards are bounded, and full much later.
    assert max(mib for _, mib in came.memory_mib) < 200.0
