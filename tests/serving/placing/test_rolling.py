"""Rolling restarts under load: nobody gets an error before the first byte."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import cycle, islice
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.model.deployment import Deployment
from atomr_infer.testing.upstream import open_openai_upstream
from tests.gateway.http import chat
from tests.serving.placing.real import Fleet, open_fleet, until

if TYPE_CHECKING:
    from pathlib import Path


RESTARTS = 20
CLIENTS = 6
PAUSE_S = 0.05


@attrs.define
class Clients:
    """They ask the nodes that a load balancer would send them to.

    Attributes:
        answers: how many, by deployment and status.
        failed: what went wrong before a first byte.
    """

    fleet: Fleet
    answers: Counter[tuple[str, int]] = attrs.field(factory=Counter)
    failed: list[str] = attrs.field(factory=list)

    async def run(self, number: int) -> None:
        """Ask one after the other, without end, and leave the nodes time to start."""
        random_ = random.Random(number)
        while True:
            await trio.sleep(PAUSE_S)
            model = ("gpt", "tiny")[number % 2]
            node = random_.choice(
                [node for node in self.fleet.nodes.values() if node.is_ready]
            )
            try:
                answer = await chat(node.port, model=model)
            except (OSError, IndexError, ValueError) as error:
                self.failed.append(f"{model} at {node.name}: {error!r}")
                continue
            self.answers[model, answer.status] += 1
            if answer.status != 200:
                text = json.dumps(answer.json)
                self.failed.append(f"{model} at {node.name}: {answer.status} {text}")


async def _restart(fleet: Fleet, name: str) -> None:
    await fleet.stop(name)
    await fleet.start(name)
    node = fleet.nodes[name]
    await until(lambda: set(node.cluster.models()) == {"gpt", "tiny"}, "it knows all")
    await until(lambda: node.runs().get("gpt") == 1, "it serves")
    await until(lambda: node.is_ready, "it is ready")


async def rolling(folder: Path, *, restarts: int) -> Clients:
    """Restart three nodes in turn, one after the other, under load."""
    async with open_openai_upstream() as upstream, open_fleet(folder, *"abc") as fleet:
        deploy = fleet.nodes["a"].cluster.deploy
        await deploy(Deployment(name="tiny", runtime="mock"))
        options = {"endpoint": upstream.base_url}
        await deploy(
            Deployment(name="gpt", runtime="openai", model="gpt", options=options)
        )
        await until(lambda: all(node.is_ready for node in fleet.nodes.values()))
        clients = Clients(fleet)
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(clients.run, number)
            for name in islice(cycle("abc"), restarts):
                await _restart(fleet, name)
            nursery.cancel_scope.cancel()
        return clients


@pytest.mark.slow
async def test_twenty_rolling_restarts_fail_nobody(tmp_path: Path) -> None:
    clients = await rolling(tmp_path, restarts=RESTARTS)
    assert clients.failed == []
    assert set(clients.answers) == {("gpt", 200), ("tiny", 200)}
