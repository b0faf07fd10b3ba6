"""What ``serve`` gives the deployments of its file when it starts alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.cli.check import checked
from atomr_infer.cli.plan import plan_serving
from atomr_infer.cli.serving.serve import _load
from atomr_infer.cluster import Cluster
from atomr_infer.errors import ConfigError
from atomr_infer.serving.inventory import Gpu
from tests.serving.test_inventory import Recorded

if TYPE_CHECKING:
    from pathlib import Path

T4 = Gpu("GPU-1", "T4", 16 << 30)


def one(name: str, gib: float) -> str:
    return (
        f'[[deployment]]\nname = "{name}"\nruntime = "mock"\n'
        f"[deployment.placement]\ngpus = 1\ngpu_memory_gib = {gib}\n"
    )


# Each for itself, "a" and "d" may share a GPU, and then there is none for "c".
FOUR = one("a", 6) + one("d", 6) + one("b", 10) + one("c", 10)


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded = Recorded(T4, attrs.evolve(T4, uuid="GPU-2"))
    monkeypatch.setitem(sys.modules, "pynvml", recorded)
    return recorded


async def test_a_start_plans_all_of_a_file_together(tmp_path: Path) -> None:
    path = tmp_path / "atomr.toml"
    path.write_text(FOUR)
    checked(path)
    for _ in range(3):
        async with Cluster.connect("inproc://n", environ={}) as cluster:
            await _load(cluster, plan_serving(config_path=path, bind=None))
            given = cluster._serving.gpu_seats.given
            assert given["a"] == given["b"] != given["c"] == given["d"]


async def test_what_has_no_room_is_said_as_check_says_it(
    tmp_path: Path, driver: Recorded
) -> None:
    driver.gpus = (T4,)
    path = tmp_path / "atomr.toml"
    path.write_text(FOUR)
    with pytest.raises(ConfigError) as found:
        checked(path)
    async with Cluster.connect("inproc://n", environ={}) as cluster:
        with pytest.raises(ConfigError) as caught:
            await _load(cluster, plan_serving(config_path=path, bind=None))
        assert cluster.deployments() == ()
    assert str(caught.value) == str(found.value)
    assert str(caught.value).startswith(f"{path}:")
