"""What a state folder holds that is not read, and what dead parents have left."""

from __future__ import annotations

import fcntl
import tempfile
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.cli.plan import ServePlan
from atomr_infer.cli.serving.other_state import other_state
from atomr_infer.cli.serving.worker_folder import worker_folder
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.config.node import NodeConfig
from atomr_infer.model.virtual_key import VirtualKey
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.node import ServingNode
from atomr_infer.store.usage import UsageRow, UsageStore

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PLAN = ServePlan(deployments=(), gateway=GatewayConfig(), source="atomr.toml")


def plan(folder: Path) -> ServePlan:
    return attrs.evolve(PLAN, node=NodeConfig(name="w", state_dir=str(folder)))


async def make_key(folder: Path) -> None:
    node = ServingNode(NodeConfig(name="w", state_dir=str(folder)))
    async with open_serving(environ={}, node=node) as serving:
        ring = serving.key_ring
        with trio.fail_after(20):
            await ring.create(VirtualKey(id=ring.new_id(), name="ci"))


def use(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    store = UsageStore(folder / "usage.sqlite")
    store.add([UsageRow(1, None, None, "m", "m", 1, 1, None)])
    store.close()


async def test_workers_are_told_of_what_a_single_process_left(tmp_path: Path) -> None:
    assert list(other_state(plan(tmp_path), workers=2)) == []
    await make_key(tmp_path)
    use(tmp_path)
    use(tmp_path / "w-1")
    use(tmp_path / "w-3")
    use(tmp_path / "other-1")
    remedy = "serve as before to have them, or move the folder's files away"
    assert list(other_state(plan(tmp_path), workers=2)) == [
        f"{tmp_path} holds the virtual keys and usage of a single process, and this "
        f"one runs workers: they are not read; {remedy}",
        f"{tmp_path}/w-3 holds the usage of a worker, and this one runs 2 of them: "
        f"they are not read; {remedy}",
    ]
    told = list(other_state(plan(tmp_path), workers=1))
    assert [each.partition(" holds ")[0] for each in told] == [
        f"{tmp_path}/w-1",
        f"{tmp_path}/w-3",
    ]


async def test_a_state_that_holds_nothing_is_not_told_of(tmp_path: Path) -> None:
    node = ServingNode(NodeConfig(name="w", state_dir=str(tmp_path)))
    async with open_serving(environ={}, node=node):
        pass
    assert list(other_state(plan(tmp_path), workers=2)) == []


def test_a_folder_that_a_dead_parent_left_is_taken_away_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, used, new = (tmp_path / f"atomr-infer-workers-{n}" for n in "abc")
    for folder in (left, used, new):
        folder.mkdir()
    (left / "lock").touch()
    (left / "cookie").write_text("secret")
    with (used / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with worker_folder() as mine, worker_folder() as other:
            assert sorted(tmp_path.iterdir()) == sorted([used, new, mine, other])
    assert sorted(tmp_path.iterdir()) == [used, new]
