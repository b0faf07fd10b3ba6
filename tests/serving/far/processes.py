"""Starts nodes in processes of their own, asks them, kills them, and ends them all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr_infer.cli.certificates import make_folder
from tests.serving.far.node_program import CLUSTER, Model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ROOT = Path(__file__).parents[3]
START_S = 120.0
ASK_S = 30.0


@attrs.define(eq=False)
class Process:
    """One node.

    Attributes:
        name: the node's.
        child: its process.
        port: its gateway's.
        address: where other nodes reach it.
    """

    name: str
    child: trio.Process
    port: int = 0
    address: str = ""
    _said: bytearray = attrs.field(factory=bytearray)

    async def read(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self.child.stdout is not None
        while b"\n" not in self._said:
            piece = await self.child.stdout.receive_some()
            assert piece, f"{self.name} ended: {self.child.returncode}"
            self._said += piece
        line, _, rest = bytes(self._said).partition(b"\n")
        self._said[:] = rest
        told: dict[str, Any] = json.loads(line)
        return told

    async def held(self) -> dict[str, Any]:
        """Return all that it holds now."""
        assert self.child.stdin is not None
        with trio.fail_after(ASK_S):
            await self.child.stdin.send_all(b"\n")
            return await self.read()

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until what it holds is so."""
        held: dict[str, Any] = {}
        with trio.move_on_after(ASK_S):
            while not condition(held := await self.held()):  # noqa: ASYNC110 - far away
                await trio.sleep(0.02)
            return
        raise AssertionError(f"{self.name} holds {held}")

    async def sees(self, *labels: str) -> None:
        """Wait until it can ask exactly these replicas of others."""
        await self.until(
            lambda held: [far[0] for far in held["far"] if far[1]] == list(labels)
        )

    async def is_at_rest(self) -> None:
        """Wait until it holds nothing of any request."""
        await self.until(
            lambda held: (
                not held["requests"]
                and not held["streams"]
                and all(replica[1:] == [0, 0] for replica in held["replicas"])
                and all(far[2] == 0 for far in held["far"])
                and held["waiting"] == held["used"] == held["reserved"] == 0
            )
        )

    async def kill(self) -> None:
        """Kill it, as nobody can prepare for."""
        self.child.send_signal(signal.SIGKILL)
        with trio.fail_after(ASK_S):
            await self.child.wait()


@attrs.define(eq=False)
class Fleet:
    """Nodes that know each other."""

    folder: Path
    nursery: trio.Nursery
    nodes: list[Process] = attrs.field(factory=list)

    async def start(self, name: str, model: Model) -> Process:
        """Start a node; it joins those that are there."""
        config = {
            "name": name,
            "folder": str(self.folder),
            "seeds": [node.address for node in self.nodes],
            "model": attrs.asdict(model),
        }
        command = [sys.executable, "-m", "tests.serving.far.node_program"]
        child = await trio.lowlevel.open_process(
            [*command, json.dumps(config)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        node = Process(name, child)
        self.nodes.append(node)
        with trio.fail_after(START_S):
            told = await node.read()
        node.port = int(told["url"].rsplit(":", 1)[1])
        node.address = told["address"]
        return node


@asynccontextmanager
async def open_fleet(folder: Path) -> AsyncIterator[Fleet]:
    """Give nodes in processes, for a block; each is killed at its end."""
    make_folder(folder, cluster=CLUSTER, nodes=("a", "b", "c"))
    async with trio.open_nursery() as nursery:
        fleet = Fleet(folder, nursery)
        try:
            yield fleet
        finally:
            for node in fleet.nodes:
                if node.child.returncode is None:
                    node.child.kill()
            with trio.CancelScope(shield=True), trio.move_on_after(ASK_S):
                for node in fleet.nodes:
                    await node.child.wait()
