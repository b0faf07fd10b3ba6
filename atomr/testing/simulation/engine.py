"""The heap of what is going to happen, and the nodes that it happens to.

This is the part of the simulator that each event goes through, so it is written
for speed: ten thousand runs shall take minutes on one core.

Entries are ``(at_s, order, act, first, second)``; the order makes equal times
happen as they were pushed, and no two entries compare beyond it.
"""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from atomr.errors import AtomrError, short
from atomr.testing.simulation.node import WOKE, Boot, LinkReset, Received

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atomr.testing.simulation.host import Host
    from atomr.testing.simulation.node import Codec, Node
    from atomr.testing.simulation.trace import Trace

_STORM = 1_000
"""Wakes at one instant, after which a node is taken to want them for ever."""

_NEVER = float("inf")

_ROUNDING_S = 1e-9
"""A deadline that is nearer than that has come."""

_BOOT_STEP = 1 << 20


def _start(node: Node, now_s: float) -> Iterable[object]:
    return node.start(now_s)


class SimulationError(AtomrError):
    """A scenario, or a node, asks for what cannot be."""


class Engine:
    """What drives the hosts; :class:`Simulation` is how a scenario sees it."""

    __slots__ = (
        "_boot",
        "_heap",
        "_is_sent",
        "_order",
        "_seed",
        "checks",
        "codec",
        "draw",
        "events",
        "hosts",
        "now_s",
        "observers",
        "trace",
    )

    def __init__(self, seed: int, codec: Codec | None, trace: Trace | None) -> None:
        """Start at time 0 without hosts."""
        self.codec = codec
        self.trace = trace
        self.draw = random.Random(f"network {seed}")
        self.now_s = 0.0
        self.events = 0
        self.hosts: dict[str, Host] = {}
        self.checks: list[Callable[[str], object]] = []
        self.observers: list[Callable[[str, object], object]] = []
        self._seed = seed
        self._boot = 0
        self._heap: list[tuple[float, int, Callable[[Any, Any], None], Any, Any]] = []
        self._order = 0
        self._is_sent: dict[type, bool] = {}

    def push(
        self,
        at_s: float,
        act: Callable[[Any, Any], None],
        first: object,
        second: object,
    ) -> None:
        """Let ``act(first, second)`` happen at a true time."""
        self._order = order = self._order + 1
        heappush(self._heap, (at_s, order, act, first, second))

    def run(self, until_s: float) -> None:
        """Let everything happen that is due by a true time."""
        heap, pop = self._heap, heappop
        while heap and heap[0][0] <= until_s:
            self.now_s, _, act, first, second = pop(heap)
            act(first, second)
        self.now_s = until_s

    def note(self, what: str) -> None:
        """Write a line of the trace, if there is one."""
        if self.trace is not None:
            self.trace.add(self.now_s, what)

    # --- a node's life --------------------------------------------------------------

    def boot(self, host: Host) -> None:
        """Begin a life."""
        host.lives += 1
        self._boot += 1 + self.draw.randrange(_BOOT_STEP)
        draw = random.Random(f"{self._seed} {host.name} {host.lives}")
        names = tuple(self.hosts)
        wall_s = host.clock.wall_s
        host.boot = self._boot
        given = Boot(host.name, self._boot, names, draw, host.disk, wall_s)
        self.note(f"{host.name} starts, boot {self._boot}")
        host.wake_at_s = float("inf")
        host.node = host.factory(given)
        self._handled(host, host.node, _start)

    def crash(self, host: Host, *, resets: bool) -> None:
        """End a life at once."""
        self.note(f"{host.name} crashes")
        host.node = None
        host.is_paused = False
        host.inbox.clear()
        host.disk.crash(self.draw)
        if resets:
            for peer in self.hosts:
                if peer != host.name:
                    reset = LinkReset(host.name, host.boot)
                    self._travel(host, peer, self._hear_reset, reset)

    def pause(self, host: Host, for_s: float) -> None:
        """Let a node do nothing for a while."""
        self.note(f"{host.name} pauses for {for_s:.6f} s")
        host.is_paused = True
        self.push(self.now_s + for_s, self.resume, host, host.lives)

    def resume(self, host: Host, life: int) -> None:
        """Let a paused node take up what has come meanwhile.

        Its own timers are late by then; whether it sees that before or after
        the messages is left to chance, as in a loop that finds both ready.
        """
        if not host.is_paused or host.lives != life:
            return
        self.note(f"{host.name} goes on")
        host.is_paused = False
        waiting = [*host.inbox]
        host.inbox.clear()
        if self.draw.random() < 0.5:
            self._wake(host, life)
        for event in waiting:
            if host.node is not None:
                self._take(host, event)
        self._wake(host, life)

    def call(self, host: Host, call: Callable[[Any, float], Iterable[object]]) -> None:
        """Let a node do something by itself."""
        if host.is_paused:
            host.inbox.append(call)
        else:
            self._take(host, call)

    # --- events ---------------------------------------------------------------------

    def _arrive(self, host: Host, letter: tuple[str, Any]) -> None:
        """Deliver a message, which has travelled with its sender's name."""
        if host.is_paused:
            host.inbox.append(letter)
        elif host.node is not None:
            self._read(host, host.node, letter)

    def _hear_reset(self, host: Host, event: LinkReset) -> None:
        if host.is_paused:
            host.inbox.append(event)
        elif host.node is not None:
            self._handled(host, event, host.node.handle)

    def _take(self, host: Host, event: Any) -> None:  # noqa: ANN401 - or a call
        """Handle what came during a pause, or a call."""
        node: Any = host.node
        kind = type(event)
        if kind is tuple:
            self._read(host, node, event)
        elif kind is LinkReset:
            self._handled(host, event, node.handle)
        else:
            self._handled(host, node, event)

    def _read(self, host: Host, node: Node, letter: tuple[str, Any]) -> None:
        sender, message = letter
        if self.codec is not None:
            message = self.codec.decode(message)
        self._handled(host, Received(sender, message), node.handle)

    def _wake(self, host: Host, life: int) -> None:
        """Wake a node if its time has come; it may have changed its mind."""
        node, now_s = host.node, self.now_s
        if now_s < host.wake_at_s:
            return  # an earlier wake took this one's place, and armed a later one
        if host.lives != life or node is None or host.is_paused:
            return
        host.wake_at_s = _NEVER
        deadline_s = host.deadline_s
        if deadline_s is None:
            return
        due_s = host.clock.true_s(deadline_s)
        if due_s > now_s + _ROUNDING_S:
            self._arm(host, due_s)
            return
        if host.woke_at_s == now_s:
            self._count_wake(host, deadline_s)
        else:
            host.woke_at_s, host.storm = now_s, 1
        host.clock.reach(deadline_s)
        self._handled(host, WOKE, node.handle)

    def _count_wake(self, host: Host, deadline_s: float) -> None:
        """Count one more wake at this instant."""
        host.storm += 1
        if host.storm > _STORM:
            raise SimulationError(
                f"{host.name}: woken {_STORM} times at {self.now_s:.6f} s, and still "
                f"next_deadline_s={deadline_s!r}: expected a later one, or None"
            )

    def _handled(
        self,
        host: Host,
        event: Any,  # noqa: ANN401 - an event, or the node itself for a call
        handle: Callable[[Any, float], Iterable[object]],
    ) -> None:
        """Let a node handle something, and do what it wants done."""
        clock = host.clock
        now_s = clock.read_s(self.now_s)
        self.events += 1
        host.handled += 1
        is_sent = self._is_sent.get
        try:
            if self.trace is not None:
                self._trace_event(host, event, now_s)
            for effect in handle(event, now_s):
                if is_sent(type(effect)):
                    self._send(host, effect)
                else:
                    self._see(host, effect)
            for check in self.checks:
                check(host.name)
        except Exception as error:
            what = f"at {self.now_s:.6f} s, {host.name} at {now_s:.6f} s of its own"
            error.add_note(f"{what}: {short(event)}")
            raise
        node = host.node
        if node is None:
            return
        host.deadline_s = deadline_s = node.next_deadline_s
        if deadline_s is not None:
            due_s = clock.true_s(deadline_s)
            if due_s < host.wake_at_s:
                self._arm(host, due_s)

    def _trace_event(self, host: Host, event: object, now_s: float) -> None:
        # A node's own repr may hold its address, which differs from run to run.
        what = "acts" if event is host.node else repr(event)
        self.note(f"{host.name} {now_s:.9f} {what}")

    def _arm(self, host: Host, due_s: float) -> None:
        host.wake_at_s = due_s
        at_s = max(due_s, self.now_s)
        self._order = order = self._order + 1
        heappush(self._heap, (at_s, order, self._wake, host, host.lives))

    # --- effects --------------------------------------------------------------------

    def _see(self, host: Host, effect: Any) -> None:  # noqa: ANN401 - any effect
        """Take an effect of a kind that was not seen before, or a fact."""
        kind = type(effect)
        if kind not in self._is_sent:
            is_sent = hasattr(effect, "to") and hasattr(effect, "message")
            self._is_sent[kind] = is_sent
            if is_sent:
                self._send(host, effect)
                return
        if self.trace is not None:
            self.note(f"{host.name} says {effect!r}")
        for see in self.observers:
            see(host.name, effect)

    def _send(self, host: Host, effect: Any) -> None:  # noqa: ANN401 - any such effect
        message = effect.message
        host.sent += 1
        if self.codec is not None:
            message = self.codec.encode(message)
            host.sent_bytes += len(message)
        self._travel(host, effect.to, self._arrive, (host.name, message))

    def _travel(
        self, host: Host, to: str, arrive: Callable[[Host, Any], None], what: object
    ) -> None:
        """Put a message on its way, or lose it."""
        link = host.links.get(to)
        if link is None or link.is_cut:
            self.note(f"{host.name} -> {to}: cut off")
            return
        quality = link.quality
        draw = self.draw.random
        if quality.loss and draw() < quality.loss:
            self.note(f"{host.name} -> {to}: lost")
            return
        at_s = self.now_s + quality.delay_s + quality.jitter_s * draw()
        if quality.reorder and draw() < quality.reorder:
            at_s += quality.reorder_s * draw()
        if quality.in_order:
            at_s = link.last_at_s = max(at_s, link.last_at_s)
        target = self.hosts[to]
        self._order = order = self._order + 1
        heappush(self._heap, (at_s, order, arrive, target, what))
        if quality.duplicate and draw() < quality.duplicate:
            again_s = at_s + (quality.jitter_s + quality.reorder_s) * draw()
            self.push(again_s, arrive, target, what)
