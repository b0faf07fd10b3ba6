"""Nodes in network namespaces of their own, whose cables can be pulled out.

One namespace is the switch: a bridge, with one end of a cable for each node.  All of
it is inside a user namespace, so nobody has to be root, and it is gone with the
processes that hold it.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

HOLD = "import os,sys; print(os.getpid(), flush=True); sys.stdin.read()"
"""Holds a namespace until its standard input ends."""

WITHIN_S = 20.0


def problem(*, netem: bool = False) -> str:
    """Return why this machine cannot do that; empty: it can."""
    script = "ip link add v0 type veth peer name v1 && ip link add b0 type bridge"
    if netem:
        script += " && tc qdisc add dev v0 root netem delay 1ms"
    command = ["unshare", "-rn", "sh", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no network namespaces here: {error}"
    what = "netem" if netem else "network namespaces"
    return f"no {what} here: {done.stderr.decode()}" if done.returncode else ""


@attrs.define
class Switch:
    """What connects the nodes.

    Attributes:
        pid: of the process that holds it.
        holds: those that hold the nodes' namespaces, by name.
    """

    pid: int
    holds: dict[str, int] = attrs.field(factory=dict)

    def prefix(self, name: str) -> list[str]:
        """Return what runs a command where a node is."""
        return _enter(self.holds[name])

    def address(self, name: str) -> str:
        return f"10.9.0.{[*self.holds].index(name) + 1}"

    async def run(self, command: str, *, at: int | None = None) -> None:
        """Run a command at the switch, or where another process is."""
        with trio.fail_after(WITHIN_S):
            await trio.run_process(
                [*_enter(at or self.pid), "sh", "-c", command],
                capture_stdout=True,
                capture_stderr=True,
            )

    async def plug_in(self, name: str, pid: int) -> None:
        """Connect a node's namespace."""
        self.holds[name] = pid
        await self.run(
            f"ip link add to-{name} type veth peer name at-{name}"
            f" && ip link set to-{name} master sw up"
            f" && ip link set at-{name} netns {pid}"
        )
        await self.run(
            f"ip addr add {self.address(name)}/24 dev at-{name}"
            f" && ip link set at-{name} up && ip link set lo up",
            at=pid,
        )

    async def cut(self, *names: str) -> None:
        """Pull out these nodes' cables."""
        for name in names:
            await self.run(f"ip link set to-{name} down")

    async def mend(self, *names: str) -> None:
        for name in names:
            await self.run(f"ip link set to-{name} up")

    async def netem(self, name: str, what: str) -> None:
        """Treat what a node sends, and gets, so."""
        await self.run(f"tc qdisc replace dev to-{name} root netem {what}")
        pid = self.holds[name]
        await self.run(f"tc qdisc replace dev at-{name} root netem {what}", at=pid)


def _enter(pid: int) -> list[str]:
    return ["nsenter", "-t", str(pid), "-U", "-n", "--preserve-credentials"]


@asynccontextmanager
async def open_switch(names: Iterable[str]) -> AsyncIterator[Switch]:
    """Have a namespace for each name, all of them connected."""
    async with _hold(["unshare", "-rn"]) as pid:
        switch = Switch(pid)
        await switch.run("ip link add sw type bridge && ip link set sw up")
        async with trio.open_nursery() as nursery:
            for name in names:
                held = await nursery.start(_keep, [*_enter(pid), "unshare", "-n"])
                await switch.plug_in(name, held)
            yield switch
            nursery.cancel_scope.cancel()


async def _keep(
    prefix: list[str], task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    async with _hold(prefix) as pid:
        task_status.started(pid)
        await trio.sleep_forever()


@asynccontextmanager
async def _hold(prefix: list[str]) -> AsyncIterator[int]:
    """Run a process that holds a namespace; yield its pid."""
    child = await trio.lowlevel.open_process(
        [*prefix, sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        with trio.fail_after(WITHIN_S):
            pid = int(await child.stdout.receive_some())
        yield pid
    finally:
        child.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + WITHIN_S):
            await child.wait()
