"""What waits for room on a link, with a link and a clock that do as they are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec

from atomr.cluster.remote import frames as f
from atomr.cluster.remote.session import FRAME_BYTES, MAX_WAITING_BYTES, Session
from atomr.crdt import Origin
from atomr.errors import LinkBusyError, LinkMessageError

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_BYTES = 1024 * 1024
PEER = Origin("b", 1)


class FullLink:
    """A link with room for so many messages; refuses as a link does, in its order."""

    def __init__(self) -> None:
        self.room = 0
        self.sent: list[Any] = []
        self.ended: list[object] = []

    def tell(self, _: str, frame: Any) -> None:
        if not self.room:
            raise LinkBusyError(PEER, queued_bytes=1, limit_bytes=1)
        size = len(msgspec.msgpack.encode(frame))
        if size > LIMIT_BYTES:
            raise LinkMessageError(PEER, size_bytes=size, limit_bytes=LIMIT_BYTES)
        self.room -= 1
        self.sent.append(frame)

    def end(self, *why: object) -> None:
        self.ended.append(why)


class Lab:
    """A session whose timers are run by hand."""

    def __init__(self) -> None:
        self.link = FullLink()
        self.due: list[Callable[[], None]] = []
        timers = SimpleNamespace(after=lambda _, callback: self.due.append(callback))
        life: Any = SimpleNamespace(origin=PEER, node=SimpleNamespace(timers=timers))
        link: Any = self.link
        codec: Any = None
        self.session = Session(life, link, node_name="a", codec=codec)

    def run(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


def reply(number: int, size_bytes: int) -> f.Reply:
    return f.Reply(number, "", msgspec.Raw(msgspec.msgpack.encode(b"x" * size_bytes)))


def test_what_has_left_does_not_count_as_waiting() -> None:
    lab = Lab()
    size_bytes = MAX_WAITING_BYTES // 4
    for number in range(1, 20):
        lab.session.signal(reply(number, 1), size_bytes=size_bytes)
        if number > 1:
            # There is always one that waits.
            lab.link.room = 1
            lab.run()
    assert [frame.id for frame in lab.link.sent] == list(range(1, 19))
    assert lab.link.ended == []
    assert lab.session._waiting_bytes == FRAME_BYTES + size_bytes


def test_a_reply_that_is_too_long_fails_its_call_when_there_is_room_at_last() -> None:
    lab = Lab()
    lab.session.signal(reply(1, LIMIT_BYTES), size_bytes=LIMIT_BYTES)
    lab.session.signal(f.Cancel(2))
    lab.link.room = 2
    lab.run()
    failed, cancel = lab.link.sent
    assert (failed.id, failed.code) == (1, "long_reply")
    assert cancel == f.Cancel(2)
    assert not lab.session._waiting
    assert lab.session._waiting_bytes == 0
