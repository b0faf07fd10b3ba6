"""Starts nodes in processes of their own, asks them, breaks them, and ends them all.

Whatever happens in the block, each process that it started is killed at its end, and
waited for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr_infer.cli.certificates import make_folder
from tests.atomr.cluster.real.node_program import CLUSTER
from tests.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

ROOT = Path(__file__).parents[4]
START_S = 120.0
ASK_S = 60.0
END_S = 30.0


class NodeFailedError(Exception):
    """A node did not do what it was asked."""


@attrs.define(eq=False)
class RealNode:
    """One process.

    Attributes:
        name: of the node.
        config: what it is told at its start.
        prefix: command that its program is run by, such as ``nsenter``.
        child: the process; None: it does not run.
        events: what it said of itself, over all its lives.
    """

    name: str
    config: dict[str, Any]
    nursery: trio.Nursery
    prefix: Sequence[str] = ()
    child: trio.Process | None = None
    events: list[dict[str, Any]] = attrs.field(factory=list)
    _replies: dict[int, dict[str, Any]] = attrs.field(factory=dict)
    _asked: int = 0
    _asking: trio.Lock = attrs.field(factory=trio.Lock)
    _news: trio.Event = attrs.field(factory=trio.Event)

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    async def start(self) -> None:
        """Begin a life; returns when the node is open."""
        program = [sys.executable, "-m", "tests.atomr.cluster.real.node_program"]
        began = len(self.events)
        self.child = await trio.lowlevel.open_process(
            [*self.prefix, *program, json.dumps(self.config)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.nursery.start_soon(self._read, self.child)
        await self.until(lambda: self.told("open", since=began), within_s=START_S)

    async def _read(self, child: trio.Process) -> None:
        assert child.stdout is not None
        rest = b""
        async with child.stdout:
            async for data in child.stdout:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
        self._wake()

    def _take(self, said: dict[str, Any]) -> None:
        if "reply" in said:
            self._replies[said["reply"]] = said
        else:
            self.events.append(said)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def until(
        self, holds: Callable[[], object], *, within_s: float = ASK_S
    ) -> Any:
        """Wait until something holds that this node's lines decide; return it."""
        with trio.move_on_after(within_s):
            while not (found := holds()):
                await self._news.wait()
            return found
        raise NodeFailedError(f"{self.name}: not within {within_s} s: {self.events}")

    def told(
        self, event: str, *, since: int = 0, **fields: object
    ) -> list[dict[str, Any]]:
        """Return the events of a kind."""
        wanted = {"event": event, **fields}
        return [e for e in self.events[since:] if wanted.items() <= e.items()]

    async def ask(self, do: str, **order: Any) -> Any:
        """Let the node do something; return what it returns.

        Raises:
            NodeFailedError: it raised, or did not answer.
        """
        self._asked += 1
        number = self._asked
        line = json.dumps({"id": number, "do": do, "order": order}) + "\n"
        assert self.child is not None
        assert self.child.stdin is not None
        async with self._asking:
            await self.child.stdin.send_all(line.encode())
        await self.until(lambda: number in self._replies)
        reply = self._replies.pop(number)
        if "error" in reply:
            what = f"{self.name}: {do}: {reply['error']}: {reply['detail']}"
            raise NodeFailedError(what)
        return reply["value"]

    async def come_to(self, want: object, do: str, **order: Any) -> None:
        """Ask again and again until the answer is this."""
        with trio.move_on_after(ASK_S):
            while (found := await self.ask(do, **order)) != want:  # noqa: ASYNC110 - another process
                await trio.sleep(0.05)
            return
        raise NodeFailedError(f"{self.name}: {do} came to {found}, not to {want}")

    def signal(self, number: signal.Signals) -> float:
        """Send a signal to the node; return when."""
        at_s = time.monotonic()
        os.kill(self.pid, number)
        return at_s

    async def leave(self) -> None:
        """Let it say goodbye and end."""
        assert self.child is not None
        assert self.child.stdin is not None
        await self.child.stdin.aclose()
        with trio.fail_after(END_S):
            await self.child.wait()
        self.child = None

    async def kill(self) -> None:
        """End it, whatever it does; nothing happens where it does not run."""
        child, self.child = self.child, None
        if child is None:
            return
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_S):
            await child.wait()


@attrs.define(eq=False)
class RealCluster:
    """Several nodes on this machine."""

    nodes: dict[str, RealNode]

    def __getitem__(self, name: str) -> RealNode:
        return self.nodes[name]

    def others(self, name: str) -> list[RealNode]:
        return [node for node in self.nodes.values() if node.name != name]

    async def start(self) -> None:
        """Start all at once, and wait until each sees each."""
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                nursery.start_soon(node.start)
        await self.meet()

    async def meet(self, within_s: float = START_S) -> None:
        """Wait until each node sees each."""
        for node in self.nodes.values():
            names = sorted(other.name for other in self.others(node.name))
            with trio.fail_after(within_s):
                await node.come_to(names, "peers")

    async def seen_after(self, name: str, event: str, *, since_s: float) -> float:
        """Wait until all others have said that of a node; return the seconds."""
        last_s = 0.0
        for node in self.others(name):

            def late(node: RealNode = node) -> list[dict[str, Any]]:
                told = node.told(event, peer=name)
                return [e for e in told if e["at_s"] >= since_s]

            [first, *_] = await node.until(late)
            last_s = max(last_s, first["at_s"] - since_s)
        return last_s


def make_certificates(folder: Path, names: Iterable[str]) -> None:
    """Make an authority, and a certificate for each node."""
    make_folder(folder, cluster=CLUSTER, nodes=tuple(names))


@asynccontextmanager
async def open_real_cluster(
    folder: Path, names: Iterable[str], **config: Any
) -> AsyncIterator[RealCluster]:
    """Have nodes on loopback, all of which know where all listen; none runs yet."""
    names = tuple(names)
    make_certificates(folder, names)
    ports = free_ports(len(names))
    addresses = [f"127.0.0.1:{port}" for port in ports]
    async with open_nodes() as made:
        for name, address in zip(names, addresses, strict=True):
            made.add(
                name,
                folder=str(folder),
                listen=address,
                seeds=addresses,
                **config,
            )
        yield made.cluster


@attrs.define
class Nodes:
    """Nodes that end with a block."""

    nursery: trio.Nursery
    cluster: RealCluster

    def add(self, name: str, *, prefix: Sequence[str] = (), **config: Any) -> RealNode:
        config["name"] = name
        node = RealNode(name, config, self.nursery, prefix)
        self.cluster.nodes[name] = node
        return node


@asynccontextmanager
async def open_nodes() -> AsyncIterator[Nodes]:
    """Kill all nodes at the end of the block."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        made = Nodes(nursery, RealCluster({}))
        try:
            yield made
        finally:
            for node in made.cluster.nodes.values():
                await node.kill()
            nursery.cancel_scope.cancel()
