"""A node of a cluster in a process of its own, as tests and benchmarks start it.

    python -m tests.atomr.cluster.real.node_program CONFIG

Reads orders and prints what happens, a line of JSON each.  Times are of the system's
monotonic clock, which all processes of a machine share.  It ends when its standard
input does, so it does not outlive whoever started it.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr import telemetry
from atomr.cluster import (
    Cluster,
    ClusterOptions,
    MemberChanged,
    PeerDown,
    PeerEvent,
    StaticSeeds,
    budgets,
    open_cluster,
    singleton,
)
from atomr.cluster.registry import ClusterRegistry
from atomr.cluster.remote import RemoteProcesses
from atomr.cluster.replicator import Replicator
from atomr.crdt import PNCounter
from atomr.http2 import Credentials
from atomr.otp import DynamicSupervisor, GenServer, Reply, call, child, start_child
from atomr.process import From, kill, open_node, spawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr.refs import Pid

COOKIE = b"the cookie of all real nodes"
CLUSTER = "real"


@attrs.frozen
class Config:
    """What a node is told at its start.

    Attributes:
        name: of the node.
        folder: of the certificates.
        listen: host and port.
        seeds: addresses of others.
        voters: of the singleton; empty: there is none.
        lease_s: of the singleton.
        bare: links and members only, and nothing replicated.
        budget_units: of the budget ``team``; 0: there is none.
        budget_voters: who shares it.
    """

    name: str
    folder: str
    listen: str
    seeds: tuple[str, ...]
    voters: tuple[str, ...] = ()
    lease_s: float = 3.0
    bare: bool = False
    budget_units: int = 0
    budget_voters: tuple[str, ...] = ()

    def options(self) -> ClusterOptions:
        folder = Path(self.folder)
        return ClusterOptions(
            name=self.name,
            cluster=CLUSTER,
            cookie=COOKIE,
            credentials=Credentials.load(
                ca_file=folder / "ca.pem",
                certificate_file=folder / f"{self.name}.pem",
                key_file=folder / f"{self.name}.key",
            ),
            listen=self.listen,
            discovery=[StaticSeeds(self.seeds)],
        )


class Echo(GenServer):
    """Says what it is asked, and where."""

    def __init__(self, node: str) -> None:
        self.node = node

    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply([request, self.node])


class Billing(Echo):
    """The singleton; says when it begins, and when it has ended."""

    def init(self) -> None:
        say(event="billing begins", node=self.node)

    def terminate(self, reason: object) -> None:
        say(event="billing ends", node=self.node)


class Program:
    """The node, and what it can be asked to do."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.remote = RemoteProcesses()
        self.replicator = Replicator()
        self.registry = ClusterRegistry(self.replicator, self.remote)
        self.billing = singleton.ClusterSingleton(
            child(lambda: Billing(config.name), id="billing"),
            self.remote,
            voters=config.voters or (config.name,),
            lease_s=config.lease_s,
            stop_s=config.lease_s / 5,
        )
        self.budgets = budgets.BudgetService(
            voters=config.budget_voters or (config.name,),
            path=Path(config.folder) / f"{config.name}.sqlite",
        )
        self.cluster: Cluster | None = None
        self.writer: Pid | None = None
        self._ends = trio.Event()

    def services(self) -> list[Any]:
        if self.config.budget_units:
            return [self.budgets]
        if self.config.bare:
            return [self.remote]
        services: list[Any] = [self.remote, self.replicator, self.registry]
        return [*services, self.billing] if self.config.voters else services

    async def run(self) -> None:
        telemetry.attach("told", ("atomr",), told)
        if self.config.budget_units:
            team = budgets.BudgetTerms(name="team", units=self.config.budget_units)
            self.budgets.open(team)
        async with (
            open_node(self.config.name) as node,
            open_cluster(self.config.options(), self.services()) as cluster,
        ):
            self.cluster = cluster
            self.children = await node.start(DynamicSupervisor())
            say(event="open", address=cluster.address, boot=cluster.origin.boot)
            with (
                cluster.peers.watch(self._peer),
                cluster.peers.watch_members(self._member),
            ):
                orders = spawn(self._obey)
                await self._ends.wait()
                del orders
        say(event="closed")

    def _peer(self, event: PeerEvent) -> None:
        is_down = isinstance(event, PeerDown)
        say(
            event="down" if is_down else "up",
            peer=event.peer.name,
            boot=event.peer.boot,
            reason=getattr(event, "reason", ""),
        )

    def _member(self, event: MemberChanged) -> None:
        member = event.after
        status = member.status.name.lower()
        say(event="member", peer=member.name, boot=member.origin.boot, status=status)

    async def _obey(self) -> None:
        lines = trio.wrap_file(sys.stdin)
        async for line in lines:
            given = json.loads(line)
            spawn(self._do, given["id"], given["do"], given["order"])
        self._ends.set()

    async def _do(self, number: int, do: str, order: dict[str, Any]) -> None:
        try:
            found = await ORDERS[do](self, **order)
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            say(reply=number, error=type(error).__name__, detail=str(error))
        else:
            say(reply=number, value=found)

    # --- orders -----------------------------------------------------------------------

    async def members(self) -> dict[str, str]:
        assert self.cluster is not None
        return {row.name: row.status.name.lower() for row in self.cluster.members()}

    async def peers(self) -> list[str]:
        assert self.cluster is not None
        return [peer.name for peer in self.cluster.peers.all()]

    async def register(self, names: list[str]) -> None:
        for name in names:
            spec = child(
                lambda: Echo(self.config.name), id=name, name=self.registry.via(name)
            )
            await start_child(self.children, spec)

    async def names(self) -> list[str]:
        return sorted(str(key) for key, _ in self.registry.items())

    async def ask(self, name: str, request: object) -> Any:
        return await call(self.registry.via(name), request)

    async def asks(self, name: str, number: int) -> list[float]:
        """Return how long each of so many calls took, in seconds."""
        waits = []
        for _ in range(number):
            began_s = time.monotonic()
            await call(self.registry.via(name), "x")
            waits.append(time.monotonic() - began_s)
        return waits

    async def put(self, key: str, value: object) -> float:
        """Put a value; return when."""
        at_s = time.monotonic()
        self.replicator.open_map("notes").put(key, value)
        return at_s

    async def get(self, key: str) -> object:
        return self.replicator.open_map("notes").get(key)

    async def watch(self) -> None:
        """Say from now on when a note changes."""
        notes = self.replicator.open_map("notes")
        notes.watch(lambda told: say(event="note", key=getattr(told, "key", None)))

    async def write(self, per_s: float, keys: int) -> None:
        """Put values into a map from now on, at a rate; 0: no longer."""
        if self.writer is not None:
            kill(self.writer)
        self.writer = spawn(self._write, per_s, keys) if per_s else None

    async def _write(self, per_s: float, keys: int) -> None:
        notes, number = self.replicator.open_map("load"), 0
        began_s = trio.current_time()
        while True:
            # At that rate in all, however late the machine is.
            due = int((trio.current_time() - began_s) * per_s)
            for _ in range(min(due - number, 100)):
                notes.put(number * 7 % keys, [self.config.name, number])
                number += 1
            await trio.sleep(0.02)

    async def marks(self) -> list[str]:
        """Return what stands for all that is known and held, by shard."""
        shards = self.replicator.running().core.shards
        return [str(shard.mark) for shard in shards]

    async def count(self, by: int) -> None:
        counter = self.replicator.open(PNCounter, "hits")
        counter.write(lambda value: value.increment(by))

    async def total(self) -> int:
        return int(self.replicator.open(PNCounter, "hits").read().value)

    async def why(self) -> str:
        return self.billing.why()

    async def holder(self) -> str | None:
        return self.billing.holder

    async def bill(self) -> Any:
        return await call(singleton.via("billing"), "bill")

    async def spend(
        self, log: str, units: int, *, calls: int, tasks: int, seed: int
    ) -> int:
        """Make calls that may cost so much; return how many were refused.

        What a call cost is in the log when it begins, as its provider has it.
        """
        draw = random.Random(seed)
        left = calls
        refused = 0

        async def work() -> None:
            nonlocal left, refused
            while left > 0:
                left -= 1
                reserved = await self.budgets.reserve("team", units, wait_s=2.0)
                if isinstance(reserved, budgets.Refused):
                    refused += 1
                    continue
                cost = draw.randint(units // 2, units)
                with open(log, "a") as file:  # noqa: ASYNC230 - a line
                    file.write(f"{cost}\n")
                await trio.sleep(draw.uniform(0.0, 0.02))
                self.budgets.settle(reserved, cost)

        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(work)
        return refused

    async def budget(self) -> dict[str, Any]:
        return attrs.asdict(self.budgets.state("team"))

    async def cost(self) -> dict[str, float]:
        """Return what the process has used up to now."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cpu_s": used.ru_utime + used.ru_stime,
            "rss_kib": float(used.ru_maxrss),
            "at_s": time.monotonic(),
        }


ORDERS: dict[str, Callable[..., Awaitable[Any]]] = {
    order.__name__: order
    for order in (
        Program.ask,
        Program.asks,
        Program.bill,
        Program.budget,
        Program.cost,
        Program.count,
        Program.get,
        Program.holder,
        Program.marks,
        Program.members,
        Program.names,
        Program.peers,
        Program.put,
        Program.register,
        Program.spend,
        Program.total,
        Program.watch,
        Program.why,
        Program.write,
    )
}


def told(event: tuple[str, ...], _: Any, metadata: Any) -> None:
    """Say what a test may wait for."""
    if event[1] == "singleton":
        heir_of = metadata.get("heir_of", "")
        say(event=f"singleton {event[2]}", node=metadata["node"], heir_of=heir_of)
    elif event == ("atomr", "link", "refused"):
        say(event="refused", reason=metadata["reason"])
    elif event[1] == "link":
        say(event=f"link {event[2]}", peer=metadata["peer"].name)
    elif event == ("atomr", "replicator", "alarm"):
        say(event="alarm", problem=metadata["problem"], shard=metadata["shard"])
    elif event == ("atomr", "process", "crash"):
        say(event="crash", reason=repr(metadata["reason"]))


def say(**what: Any) -> None:
    """Print a line, with its time."""
    sys.stdout.write(json.dumps({"at_s": time.monotonic(), **what}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    for field in ("seeds", "voters", "budget_voters"):
        given[field] = tuple(given.get(field, ()))
    trio.run(Program(Config(**given)).run)
