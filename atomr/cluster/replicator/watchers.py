"""Who is told of changes: processes, each in its own mailbox.

The replicator puts a message into a mailbox and goes on; what the process does with
it, and whether it does anything, is its own affair.  One that does not keep up is
told less, and told so: when so many messages wait for it as it has room for, changes
are counted instead, and ``Missed`` comes before the next one.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, TypeAlias

import attrs

from atomr import telemetry
from atomr.cluster.replicator.changes import Changed, Missed, Told
from atomr.process import receive
from atomr.process.context import find_process
from atomr.refs import Pid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

DEFAULT_ROOM = 1_000

Subject: TypeAlias = tuple[str, str]
"""Kind and name of a value."""


@attrs.define(eq=False)
class Watcher:
    """A process that watches one value.

    Attributes:
        pid: of the process.
        room: how many messages may wait for it.
        missed: changes that it was not told of, and of which it does not know yet.
    """

    pid: Pid
    room: int
    missed: int = 0

    def tell(self, changed: Changed) -> bool:
        """Tell of a change, or count it; return whether the process is there."""
        process = find_process(self.pid)
        if process is None:
            return False
        messages = 2 if self.missed else 1
        if process.queue_size + messages > self.room:
            self.missed += 1
            return True
        if self.missed:
            self._own_up((changed.kind, changed.name))
        process.deliver(changed)
        return True

    def catch_up(self, subject: Subject) -> bool:
        """Say what was missed, if there is room; return whether it is there."""
        process = find_process(self.pid)
        if process is None:
            return False
        if self.missed and process.queue_size < self.room:
            self._own_up(subject)
        return True

    def _own_up(self, subject: Subject) -> None:
        missed, self.missed = self.missed, 0
        process = find_process(self.pid)
        if process is not None:
            process.deliver(Missed(*subject, missed))
        telemetry.emit(
            ("atomr", "replicator", "missed"),
            {"count": missed},
            {"pid": self.pid, "name": subject[1]},
        )


class Watchers:
    """All watchers of one replicator."""

    def __init__(self) -> None:
        self._by_subject: dict[Subject, dict[Pid, Watcher]] = {}

    def __contains__(self, subject: object) -> bool:
        return subject in self._by_subject

    def __len__(self) -> int:
        return sum(len(watchers) for watchers in self._by_subject.values())

    def add(self, subject: Subject, pid: Pid, room: int) -> None:
        """Tell a process of a value's changes from now on."""
        self._by_subject.setdefault(subject, {})[pid] = Watcher(pid, room)

    def remove(self, subject: Subject, pid: Pid) -> bool:
        """Tell it no more; return whether it was told."""
        watchers = self._by_subject.get(subject, {})
        found = watchers.pop(pid, None) is not None
        self._drop_empty(subject)
        return found

    def tell(self, changes: Iterable[Changed]) -> bool:
        """Tell of changes, in their order; return whether somebody missed any."""
        is_behind = False
        for changed in changes:
            subject = changed.kind, changed.name
            watchers = self._by_subject.get(subject)
            if watchers is not None:
                for watcher in list(watchers.values()):
                    if not watcher.tell(changed):
                        del watchers[watcher.pid]
                    is_behind = is_behind or watcher.missed > 0
                self._drop_empty(subject)
        return is_behind

    def catch_up(self) -> bool:
        """Say to all what they missed, as far as they have room now.

        Returns:
            Whether somebody still does not know.
        """
        is_behind = False
        for subject, watchers in list(self._by_subject.items()):
            for watcher in list(watchers.values()):
                if not watcher.catch_up(subject):
                    del watchers[watcher.pid]
                is_behind = is_behind or watcher.missed > 0
            self._drop_empty(subject)
        return is_behind

    def _drop_empty(self, subject: Subject) -> None:
        if not self._by_subject.get(subject, True):
            del self._by_subject[subject]


async def run_callback(
    subscribe: Callable[[], None],
    callback: Callable[[Told], Awaitable[object] | object],
) -> None:
    """Call back for each change, in a process of its own, until it is stopped."""
    subscribe()
    while True:
        told = await receive()
        assert isinstance(told, Changed | Missed), "nobody else knows its pid"
        answer = callback(told)
        if isawaitable(answer):
            await answer
