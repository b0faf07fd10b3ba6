"""The node that leads a swap is killed in the middle: one of both versions is left."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.cli.serving.test_cluster_serve import BEARER, CONFIG, NAMES, WAIT_S, Three
from tests.gateway.http import chat, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Command

# On each node, so that no request has to wait for a replica that moves.
OLD = CONFIG + 'options = {{ reply = "old" }}\nplacement = {{ everywhere = true }}\n'
FOR_LONG = {
    "deployment": {
        "name": "tiny",
        "runtime": "mock",
        "options": {"reply": "new"},
        "placement": {"everywhere": True},
    },
    "plan": {"steps": [0.5], "step_s": 600, "patience_s": 600},
}


async def swaps(command: Command) -> Any:
    answer = await request(command.port, "GET", "/admin/swaps", authorization=BEARER)
    return answer.json["swaps"]


async def until_swap(command: Command, holds: Callable[[Any], bool]) -> Any:
    with trio.fail_after(WAIT_S):
        while True:
            found = await swaps(command)
            if found and holds(found[0]):
                return found[0]
            await trio.sleep(0.1)


async def heard(command: Command) -> str:
    answer = await chat(command.port, model="tiny")
    assert answer.status == 200, answer.body
    return str(answer.json["choices"][0]["message"]["content"])


@pytest.mark.slow
async def test_a_swap_whose_leader_is_killed_is_taken_back(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        three = Three(tmp_path, stack, config=OLD)
        await three.start(*NAMES)
        await three.until_held(lambda found: len(found) == 3)
        body = json.dumps(FOR_LONG).encode()
        leader, other = three.running["a"], three.running["b"]
        begun = await request(
            leader.port, "POST", "/admin/swaps/tiny", body, authorization=BEARER
        )
        assert begun.status == 201, begun.body
        await until_swap(other, lambda swap: swap["share"] == 0.5)
        await three.kill("a")

        texts: set[str] = set()
        ended = trio.Event()

        async def ask() -> None:
            while not ended.is_set():
                texts.add(await heard(other))
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            found = await until_swap(other, lambda swap: swap["phase"] == "rolled back")
            ended.set()
        assert texts <= {"old", "new"}
        assert found["reason"] == "a, which led it, ended in the middle of it"
        assert found["node"] in ("b", "c")
        await three.start("a")
        for command in three.running.values():
            await until_swap(command, lambda swap: swap == found)
            assert {await heard(command) for _ in range(4)} == {"old"}
            assert "Traceback" not in command.stderr
