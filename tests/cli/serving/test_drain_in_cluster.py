"""``atomr-infer drain`` of the node that holds the only replica of a deployment."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.conftest import run_command
from tests.cli.serving.test_cluster_serve import CONFIG, ENV, NAMES, Three
from tests.gateway.http import chat

if TYPE_CHECKING:
    from pathlib import Path

SLOW = CONFIG + "options = {{ load_s = 2.0 }}\n"
SHOWN = {"ATOMR_INFER_ADMIN_KEY": ENV["ADMIN"]}


@pytest.mark.slow
async def test_the_only_replica_serves_on_until_another_node_serves_it(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        three = Three(tmp_path, stack, config=SLOW)
        await three.start(*NAMES)
        [holder] = await three.until_held(lambda found: len(found) == 1)
        others = [c for name, c in three.running.items() if name != holder]
        drained = three.running[holder]
        url = ("--url", f"http://127.0.0.1:{drained.port}")
        statuses: list[int] = []
        moved = trio.Event()

        async def ask() -> None:
            while not moved.is_set():
                answers = [await chat(each.port, model="tiny") for each in others]
                statuses.extend(answer.status for answer in answers)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            code, out, err = await run_command("drain", *url, **SHOWN)
            assert (code, err) == (0, "")
            assert out.splitlines()[1].startswith("tiny moves to ")
            await drained.said("tiny has moved to ")
            moved.set()
        assert set(statuses) == {200}
        [taker] = await three.until_held(lambda found: len(found) == 1)
        assert taker != holder
        assert (await chat(drained.port, model="tiny")).status == 503

        code, out, _ = await run_command("drain", "--undo", *url, **SHOWN)
        assert (code, out) == (0, "requests are taken again\n")
        assert (await chat(drained.port, model="tiny")).status == 200
