"""Several nodes in one loop, in virtual time: real serving trees, maps of a model.

The maps are what replicated maps promise and no more: what is written on a node is
there at once, reaches those that the node can reach, and the others when it can again;
of writes to one key the last counts, and a removal takes only what its node knew; what
a node owns is seen while the node is.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any, cast

import attrs
import trio

from atomr.core.child_spec import ChildSpec
from atomr.crdt import Origin
from atomr.otp import Strategy, Supervisor
from atomr.process import (
    Node,
    PlainProcess,
    current_node,
    kill,
    self_pid,
    send,
    whereis,
)
from atomr.process.context import NODE
from atomr_infer.config.node import NodeConfig
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.deployments.sources import Sources
from atomr_infer.serving.node import ServingNode
from atomr_infer.serving.placing.catalogue import Catalogue
from atomr_infer.serving.placing.orders import Orders
from atomr_infer.serving.placing.placer import Met, Placer
from atomr_infer.serving.placing.records import Facts
from atomr_infer.serving.shared import Serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from atomr.cluster.replicator import Replicator
    from atomr.refs import Pid
    from atomr_infer.runtimes.loader import Installed

GONE: Any = object()
ROLES = ("control", "egress", "edge")


@attrs.define(eq=False)
class Write:
    """One write, who knows of it, and what it is in place of."""

    map: str
    key: str
    value: Any
    by: Origin
    known_to: set[str]
    over: frozenset[Write] = frozenset()


class World:
    """The network between nodes, and what each of them knows."""

    def __init__(self) -> None:
        self.log: list[Write] = []
        self.origins: dict[str, Origin] = {}
        self.islands: dict[str, int] = {}
        self.watchers: dict[str, set[Pid]] = {}

    def reach(self, name: str) -> set[str]:
        if name not in self.origins:
            return {name}
        mine = self.islands.get(name, 0)
        return {n for n in self.origins if self.islands.get(n, 0) == mine}

    def begin(self, name: str) -> None:
        life = sum(write.by.name == name for write in self.log) + 1
        self.origins[name] = Origin(name, life)
        self.changed()

    def end(self, name: str) -> None:
        """It is gone for the others at once, as a node that is killed."""
        del self.origins[name]
        self.watchers.pop(name, None)
        for write in self.log:
            write.known_to.discard(name)
        self.changed()

    def cut(self, *names: str) -> None:
        self.islands = dict.fromkeys(names, 1)
        self.changed()

    def heal(self) -> None:
        self.islands = {}
        self.changed()

    def write(self, name: str, which: str, key: str, value: Any) -> None:
        origin = self.origins[name]
        over = frozenset(w for w in self.read(name, which) if w.key == key)
        self.log.append(Write(which, key, value, origin, {name}, over))
        self.changed()

    def changed(self) -> None:
        for write in self.log:
            for name in list(write.known_to):
                write.known_to |= self.reach(name)
        for pids in self.watchers.values():
            for pid in pids:
                send(pid, "changed")

    def read(self, name: str, which: str) -> Iterator[Write]:
        return (w for w in self.log if w.map == which and name in w.known_to)


class _Handle:
    def __init__(self, world: World, me: str, name: str) -> None:
        self.world, self.me, self.name = world, me, name

    def subscribe(self) -> None:
        self.world.watchers.setdefault(self.me, set()).add(self_pid())

    def put(self, key: str, value: Any) -> None:
        if self.mine(key) != value:
            self.world.write(self.me, self.name, key, value)

    def remove(self, key: str) -> None:
        if self.mine(key) is not GONE:
            self.world.write(self.me, self.name, key, GONE)

    def mine(self, key: str) -> Any:
        raise NotImplementedError


class ModelMap(_Handle):
    """``MapHandle``: of what no known write is in place of, the last one counts."""

    def live(self) -> list[Write]:
        known = list(self.world.read(self.me, self.name))
        over = {old for write in known for old in write.over}
        return [w for w in known if w not in over and w.value is not GONE]

    @property
    def values(self) -> dict[str, Any]:
        return {write.key: write.value for write in self.live()}

    def mine(self, key: str) -> Any:
        return self.values.get(key, GONE)

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def items(self) -> Any:
        return self.values.items()

    def conflicts(self, key: str) -> tuple[Any, ...]:
        return tuple(write.value for write in self.live() if write.key == key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)


class ModelOwned(_Handle):
    """``OwnedHandle``: each node's own values, of those that are in sight."""

    def owned(self) -> dict[tuple[str, Origin], Any]:
        seen = {self.world.origins[n] for n in self.world.reach(self.me)}
        found = {
            (w.key, w.by): w.value
            for w in self.world.read(self.me, self.name)
            if w.by in seen
        }
        return {key: value for key, value in found.items() if value is not GONE}

    def mine(self, key: str) -> Any:
        return self.owned().get((key, self.world.origins[self.me]), GONE)

    def get(self, key: str) -> dict[Origin, Any]:
        return {o: value for (k, o), value in self.owned().items() if k == key}

    def owners(self, key: str) -> tuple[Origin, ...]:
        return tuple(self.get(key))

    def items(self) -> list[tuple[str, Origin, Any]]:
        return [(key, owner, value) for (key, owner), value in self.owned().items()]


class ModelReplicator:
    """What the catalogue uses of a ``Replicator``."""

    def __init__(self, world: World, me: str) -> None:
        self.open_map = partial(ModelMap, world, me)
        self.open_owned = partial(ModelOwned, world, me)


@attrs.define(eq=False)
class Place:
    """One node that runs."""

    name: str
    serving: Serving
    orders: Orders
    scope: trio.CancelScope
    node: Node

    def crash_placer(self) -> None:
        """Kill it; its supervisor starts it again."""
        token = NODE.set(self.node)
        pid = whereis("placer")
        NODE.reset(token)
        assert pid is not None
        kill(pid)

    def runs(self) -> dict[str, int]:
        """Replicas that are open here, by deployment."""
        found = {n: len(self.serving.replicas(n)) for n in self.serving.deployments}
        return {name: count for name, count in found.items() if count}

    def state(self, name: str) -> str:
        return self.orders.picture().state(name).value


class Places:
    """Starts and kills nodes.

    Attributes:
        voters: how many nodes a new one waits for, itself among them.
    """

    def __init__(self, nursery: trio.Nursery, *, replace_after_s: float) -> None:
        self.world = World()
        self.all: dict[str, Place] = {}
        self.environ: dict[str, str] = {}
        self.installed: Installed = distributions
        self.voters = 2
        self._nursery = nursery
        self._replace_after_s = replace_after_s

    async def start(self, *names: str, **facts: Any) -> None:
        for name in names:
            self.all[name] = await self._nursery.start(self._run, name, facts)

    def kill(self, name: str) -> None:
        self.world.end(name)
        self.all.pop(name).scope.cancel()

    def __getitem__(self, name: str) -> Place:
        return self.all[name]

    @property
    def runs(self) -> dict[str, dict[str, int]]:
        """Replicas by deployment, by node; of nodes that run some."""
        found = {name: place.runs() for name, place in self.all.items()}
        return {name: runs for name, runs in found.items() if runs}

    async def until(self, holds: Callable[[], bool], *, within_s: float) -> None:
        """Wait in virtual time."""
        with trio.move_on_after(within_s):
            while not holds():  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.05)
            return
        raise AssertionError(f"not within {within_s} s: {self.runs}")

    async def _run(
        self, name: str, facts: dict[str, Any], *, task_status: trio.TaskStatus[Place]
    ) -> None:
        node = ServingNode(NodeConfig(name=name))
        with trio.CancelScope() as scope:
            async with open_serving(
                environ=self.environ, installed=self.installed, node=node
            ) as serving:
                self.world.begin(name)
                catalogue = Catalogue(
                    cast("Replicator", ModelReplicator(self.world, name)),
                    me=name,
                    replace_after_s=self._replace_after_s,
                )
                placer = Placer(
                    serving,
                    catalogue,
                    Facts(**{"roles": ROLES, **facts}),
                    met=partial(self._met, name),
                )
                sources = Sources(self.environ, self.installed, serving)
                orders = Orders(serving, catalogue, placer, sources)
                here = current_node()
                start = partial(PlainProcess, placer.run)
                spec = ChildSpec(id="placer", start=start, name="placer")
                top = partial(Supervisor, [spec], strategy=Strategy.ONE_FOR_ONE)
                await here.start(ChildSpec(id="top", start=top))
                task_status.started(Place(name, serving, orders, scope, here))
                await trio.sleep_forever()

    def _met(self, name: str) -> Met:
        return Met.of(min(len(self.world.reach(name)), self.voters), self.voters)


@asynccontextmanager
async def open_places(
    *names: str, replace_after_s: float = 30.0
) -> AsyncIterator[Places]:
    """Run nodes for the length of the block."""
    async with trio.open_nursery() as nursery:
        places = Places(nursery, replace_after_s=replace_after_s)
        await places.start(*names)
        yield places
        nursery.cancel_scope.cancel()
