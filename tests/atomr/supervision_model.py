"""What supervisors must do, by OTP's documentation, as plain objects.

It shares no decision with ``atomr.core.supervision``: where that plans a group
and carries it out later, this does at once what the documentation says.  Ends
are queued in the order in which they happened, as signals to a real supervisor.

The log has one entry for each finished start (``+a``) and each stop that the
supervisor asked for (``-a``), in order.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeAlias

import attrs

from atomr.otp import AutoShutdown, Restart, Strategy

Reason: TypeAlias = object
"""``normal``, ``shutdown``, ``crash``, ``killed``, ``not started``, ``GaveUp``."""

ORDERLY = ("normal", "shutdown")


@attrs.frozen
class GaveUpModel:
    """Of a supervisor that restarted too often: whose end was one too many."""

    child: str
    reason: Reason


@attrs.define
class World:
    """What happened, what is about to go wrong, and what time it is."""

    log: list[str] = attrs.Factory(list)
    broken: dict[str, int] = attrs.Factory(dict)
    ignoring: set[str] = attrs.Factory(set)
    serials: dict[str, int] = attrs.Factory(dict)
    teams: Iterator[int] = attrs.Factory(itertools.count)
    now: float = 0.0


@attrs.define(eq=False)
class Member:
    """A child: a worker, or a supervisor if it has a team to start with."""

    id: str
    restart: Restart = Restart.PERMANENT
    significant: bool = False
    make: Callable[[], Team] | None = None
    serial: int | None = None
    """which of its lives it has; None: it has none now"""
    team: Team | None = None
    gone: bool = False
    """this life ended by itself, and nobody acted on that yet"""
    again: bool = False
    """it failed to start again, and will be tried"""
    restarts: int = 0

    def wanted_after(self, reason: Reason) -> bool:
        if self.restart is Restart.TRANSIENT:
            return reason not in ORDERLY and not isinstance(reason, GaveUpModel)
        return self.restart is Restart.PERMANENT


@attrs.define(eq=False)
class Team:
    """A supervisor and its children in the order of start."""

    world: World
    members: list[Member]
    strategy: Strategy = Strategy.ONE_FOR_ONE
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    max_restarts: int = 3
    max_seconds: float = 5.0
    dynamic: bool = False
    """a child that is not started again is forgotten, whatever its type"""
    above: tuple[Team, Member] | None = None
    """the supervisor that this one is a child of, and which child"""
    times: list[float] = attrs.Factory(list)
    ends: deque[tuple[Member, int | None, Reason]] = attrs.Factory(deque)
    ended: Reason = None

    # --- single children -----------------------------------------------------------

    def launch(self, member: Member) -> bool:
        """Start one; return whether it did."""
        world = self.world
        member.gone = member.again = False
        if member.make is not None:
            team = member.make()
            if not team.start_all():
                return False
            team.above = (self, member)
            member.team, member.serial = team, next(world.teams)
            return True
        if world.broken.get(member.id, 0) > 0:
            world.broken[member.id] -= 1
            return False
        if member.id in world.ignoring:
            return True
        world.log.append(f"+{member.id}")
        member.serial = world.serials[member.id] = world.serials.get(member.id, 0) + 1
        return True

    def halt(self, member: Member) -> None:
        """Stop one, and all below it; it may have been stopped before."""
        member.again = False
        if member.serial is None:
            return
        member.serial = None
        team, member.team = member.team, None
        if member.gone:
            return
        if team is not None:
            team.stop_all()
        else:
            self.world.log.append(f"-{member.id}")

    def start_all(self) -> bool:
        for member in tuple(self.members):
            if not self.launch(member):
                self.stop_all()
                return False
            if member.serial is None and member.restart is Restart.TEMPORARY:
                self.members.remove(member)
        return True

    def stop_all(self) -> None:
        for member in reversed(self.members):
            self.halt(member)

    # --- ends ---------------------------------------------------------------------

    def end(self, member: Member, reason: Reason) -> None:
        """Let a child end by itself; :meth:`settle` acts on it."""
        if member.serial is not None and self.ended is None:
            member.gone = True
            self.ends.append((member, member.serial, reason))

    def settle(self) -> None:
        """Act on all ends, in order."""
        while self.ends and self.ended is None:
            member, serial, reason = self.ends.popleft()
            if serial is None and not member.again:
                continue
            if serial is None or serial == member.serial:
                self._act(member, reason)
        if self.ended is not None and self.above is not None:
            (team, me), self.above = self.above, None
            team.end(me, self.ended)
            team.settle()

    def _act(self, member: Member, reason: Reason) -> None:
        member.serial, member.team = None, None
        member.gone = member.again = False
        if not member.wanted_after(reason):
            if member.restart is Restart.TEMPORARY or self.dynamic:
                self.members.remove(member)
            if member.significant and self._done():
                self._finish("shutdown")
            return
        now = self.world.now
        self.times.append(now)
        if sum(now - time <= self.max_seconds for time in self.times) > (
            self.max_restarts
        ):
            self._finish(GaveUpModel(member.id, reason))
            return
        self._restart(member)

    def _done(self) -> bool:
        if self.auto_shutdown is AutoShutdown.ALL_SIGNIFICANT:
            return not any(
                m.significant and (m.serial is not None or m.again)
                for m in self.members
            )
        return self.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT

    def _finish(self, reason: Reason) -> None:
        self.stop_all()
        self.ended = reason

    def _restart(self, member: Member) -> None:
        place = self.members.index(member)
        group = {
            Strategy.ONE_FOR_ONE: [member],
            Strategy.ONE_FOR_ALL: list(self.members),
            Strategy.REST_FOR_ONE: self.members[place:],
        }[self.strategy]
        for other in reversed(group):
            self.halt(other)
            if other.restart is Restart.TEMPORARY:
                self.members.remove(other)
        group = [m for m in group if m in self.members]
        for other in group:
            if not self.launch(other):
                other.again = True
                self.ends.append((other, None, "not started"))
                return
            other.restarts += other.serial is not None

    # --- what one asks ------------------------------------------------------------

    def find(self, id_: str) -> Member | None:
        return next((m for m in self.members if m.id == id_), None)

    def add(self, member: Member) -> str:
        there = self.find(member.id)
        if there is not None:
            return "ChildError" if there.serial is None else "AlreadyStartedError"
        if member.significant and self.auto_shutdown is AutoShutdown.NEVER:
            return "ChildError"
        self.members.append(member)
        if not self.launch(member):
            self.members.remove(member)
            return "StartError"
        if member.serial is None:
            if member.restart is Restart.TEMPORARY:
                self.members.remove(member)
            return "StartIgnoredError"
        return "ok"

    def terminate(self, id_: str) -> str:
        member = self.find(id_)
        if member is None:
            return "ChildNotFoundError"
        self.halt(member)
        if member.restart is Restart.TEMPORARY:
            self.members.remove(member)
        return "ok"

    def restart_one(self, id_: str) -> str:
        member = self.find(id_)
        if member is None:
            return "ChildNotFoundError"
        if member.serial is not None:
            return "ChildError"
        if not self.launch(member):
            return "StartError"
        return "ok" if id_ in self.living() else "StartIgnoredError"

    def delete(self, id_: str) -> str:
        member = self.find(id_)
        if member is None:
            return "ChildNotFoundError"
        if member.serial is not None:
            return "ChildError"
        self.members.remove(member)
        return "ok"

    def living(self) -> dict[str, int]:
        """Return the running children, with the number of their life."""
        return {m.id: m.serial for m in self.members if m.serial is not None}

    def census(self) -> dict[str, tuple[bool, int]]:
        """Return of each child, and all below: whether it runs, and its restarts."""
        found = {}
        for member in self.members:
            found[member.id] = (member.serial is not None, member.restarts)
            if member.team is not None:
                found |= member.team.census()
        return found
