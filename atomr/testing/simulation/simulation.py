"""A world of nodes in one thread, in virtual time, from one integer.

A heap holds what is going to happen: messages that arrive, nodes that want to be
woken, what the scenario has planned.  The earliest is taken, the node that it
concerns handles it, and what the node returns goes back into the heap.  All that
is left to chance is drawn from generators that the seed determines, so the seed
determines the run.

No trio, no thread, no socket, and no time but the heap's.

Source: FoundationDB's simulator, in its idea.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from atomr.testing.simulation.clocks import Clock
from atomr.testing.simulation.engine import Engine, SimulationError
from atomr.testing.simulation.faults import Planned, perform
from atomr.testing.simulation.host import Host
from atomr.testing.simulation.links import GOOD, Link, Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atomr.testing.simulation.node import Codec, Factory
    from atomr.testing.simulation.trace import Trace


class Simulation:
    """N nodes and the network between them.

    Attributes:
        seed: determines the run.
        random: for the scenario's own choices.
    """

    def __init__(
        self, seed: int, *, codec: Codec | None = None, trace: Trace | None = None
    ) -> None:
        """Start at time 0 without nodes.

        Args:
            seed: any integer.
            codec: how messages travel; None: as the objects that they are.
            trace: where to write what happens; None: nowhere, which is faster.
        """
        self.seed = seed
        self.random = random.Random(f"scenario {seed}")
        self._engine = Engine(seed, codec, trace)
        self._quality = GOOD

    @property
    def now_s(self) -> float:
        """True time, from 0."""
        return self._engine.now_s

    @property
    def events(self) -> int:
        """How many events were handled."""
        return self._engine.events

    def use_codec(self, codec: Codec) -> None:
        """Let messages travel as bytes from now on."""
        self._engine.codec = codec

    # --- nodes ----------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """All nodes, in the order they were added."""
        return tuple(self._engine.hosts)

    @property
    def up(self) -> tuple[str, ...]:
        """The nodes that run, a paused one among them."""
        hosts = self._engine.hosts.items()
        return tuple(name for name, host in hosts if host.node is not None)

    def add_node(
        self, name: str, factory: Factory, *, clock: Clock | None = None
    ) -> None:
        """Add a place for a node; it is down until :meth:`start`.

        Args:
            name: where others send to.
            factory: makes the node of each life.
            clock: None: a true one that began at some time that is drawn.

        Raises:
            SimulationError: the name is taken.
        """
        hosts = self._engine.hosts
        if name in hosts:
            raise SimulationError(f"add_node({name!r}): the name is taken")
        clock = clock or Clock(offset_s=self._engine.draw.uniform(0.0, 1e5))
        host = Host(name, factory, clock)
        for other in hosts.values():
            other.links[name] = Link(self._quality)
            host.links[other.name] = Link(self._quality)
        host.links[name] = Link(Quality(delay_s=0.0, jitter_s=0.0))
        hosts[name] = host

    def node(self, name: str) -> Any:  # noqa: ANN401 - the scenario knows which
        """Return the node that runs there, to look at.

        Raises:
            SimulationError: there is none, or it is down.
        """
        node = self.host(name).node
        if node is None:
            raise SimulationError(f"node({name!r}): it is down")
        return node

    def host(self, name: str) -> Host:
        """Return a node's place: its clock, its disk, and what was counted there.

        Raises:
            SimulationError: there is none of that name.
        """
        try:
            return self._engine.hosts[name]
        except KeyError:
            known = ", ".join(self._engine.hosts) or "none"
            raise SimulationError(
                f"{name!r}: no such node; there are: {known}"
            ) from None

    def start(self, *names: str) -> None:
        """Start these nodes now, or all that are down; a running one stays."""
        for name in names or self.names:
            host = self.host(name)
            if host.node is None:
                self._engine.boot(host)

    def crash(self, name: str, *, resets: bool = True) -> None:
        """End a node as ``kill -9`` does; nothing happens to one that is down.

        Args:
            name: which.
            resets: whether its system tells the peers (as far as the links let
                it); False: the machine lost its power.
        """
        host = self.host(name)
        if host.node is not None:
            self._engine.crash(host, resets=resets)

    def restart(self, name: str, *, lose_disk: bool = False) -> None:
        """Begin a new life, with a new boot id; a running node crashes first."""
        self.crash(name)
        host = self.host(name)
        if lose_disk:
            host.lose_disk()
        self._engine.boot(host)

    def pause(self, name: str, for_s: float) -> None:
        """Stop a node as SIGSTOP does; what comes meanwhile waits for it."""
        host = self.host(name)
        if host.node is not None and not host.is_paused:
            self._engine.pause(host, for_s)

    def drift(self, name: str, rate: float) -> None:
        """Let a node's clock run at another rate from now on; 1.0 is true."""
        self.host(name).clock.drift(self.now_s, rate)

    # --- network --------------------------------------------------------------------

    def set_quality(
        self, quality: Quality, *, sender: str | None = None, to: str | None = None
    ) -> None:
        """Let links treat messages so from now on.

        Args:
            quality: how.
            sender: only links from that node; None: from each.
            to: only links to that node; None: to each.
        """
        self._engine.note(f"{sender or 'all'} -> {to or 'all'}: {quality}")
        if sender is None and to is None:
            self._quality = quality
        for link in self._links(sender, to):
            link.quality = quality

    def cut(
        self, left: Iterable[str], right: Iterable[str], *, both_ways: bool = True
    ) -> None:
        """Let nothing pass from one side to the other.

        What is on its way arrives.  Neither side is told.

        Args:
            left: names.
            right: names.
            both_ways: False: what the right sends still arrives at the left.
        """
        left, right = tuple(left), tuple(right)
        self._engine.note(f"cut {left} {'<->' if both_ways else '->'} {right}")
        for one in left:
            for other in right:
                if one != other:
                    self.host(one).links[other].is_cut = True
                    if both_ways:
                        self.host(other).links[one].is_cut = True

    def mend(self) -> None:
        """Undo all cuts; nothing else."""
        self._engine.note("mend")
        for link in self._links(None, None):
            link.is_cut = False

    def heal(self) -> None:
        """Make all well: links whole and good, nodes awake; starts no node."""
        self.mend()
        self.set_quality(GOOD)
        for host in self._engine.hosts.values():
            if host.is_paused:
                self._engine.resume(host, host.lives)

    def _links(self, sender: str | None, to: str | None) -> list[Link]:
        senders = self._engine.hosts.values() if sender is None else [self.host(sender)]
        return [
            link
            for host in senders
            for name, link in host.links.items()
            if name != host.name and to in (None, name)
        ]

    # --- the run --------------------------------------------------------------------

    def at(self, at_s: float, action: Callable[[], object]) -> None:
        """Plan an action for a time; now, if that is past."""
        self._engine.push(max(at_s, self.now_s), _act, action, None)

    def plan(self, faults: Iterable[Planned]) -> None:
        """Let faults happen, their times counted from now."""
        for planned in faults:
            happen = partial(perform, self, planned.fault)
            self.at(self.now_s + planned.at_s, happen)

    def do(self, name: str, call: Callable[[Any, float], Iterable[object]]) -> bool:
        """Let a node do something, as its own process would ask it to.

        Args:
            name: which.
            call: takes the node and its clock's time, returns effects.

        Returns:
            Whether it did, or will as soon as it wakes up; a node that is down
            does nothing.
        """
        host = self.host(name)
        if host.node is None:
            return False
        self._engine.call(host, call)
        return True

    def always(self, check: Callable[[str], object]) -> None:
        """Call ``check(name)`` after each event that the node of that name handled.

        It raises when what must hold does not.
        """
        self._engine.checks.append(check)

    def every(self, interval_s: float, check: Callable[[], object]) -> None:
        """Call ``check()`` at this interval of true time, from one interval on."""

        def again() -> None:
            check()
            self.at(self.now_s + interval_s, again)

        self.at(self.now_s + interval_s, again)

    def observe(self, see: Callable[[str, object], object]) -> None:
        """Call ``see(name, fact)`` with each effect that is not sent."""
        self._engine.observers.append(see)

    def run(self, for_s: float) -> None:
        """Let that much true time pass.

        Raises:
            BaseException: what a node or a check raised, with a note on when
                and where.
        """
        self._engine.run(self._engine.now_s + for_s)

    def run_until(
        self, holds: Callable[[], bool], *, within_s: float, step_s: float = 0.1
    ) -> float:
        """Let time pass until something holds.

        Args:
            holds: asked each ``step_s``.
            within_s: how long at most.
            step_s: how often to ask.

        Returns:
            The seconds that it took.

        Raises:
            AssertionError: it did not come to hold.
        """
        began_s = self.now_s
        while not holds():
            if self.now_s - began_s >= within_s:
                what = getattr(holds, "__name__", repr(holds))
                raise AssertionError(f"{what}: not within {within_s} s")
            self.run(step_s)
        return self.now_s - began_s


def _act(action: Callable[[], object], _: None) -> None:
    action()
