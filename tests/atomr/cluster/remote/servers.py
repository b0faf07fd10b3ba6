"""Servers and messages that the tests of remote processes share."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import attrs
import msgspec
import trio

from atomr.cluster.remote import Messages
from atomr.otp import Fail, GenServer, NoReply, Reply, Stop
from atomr.process import From, Request
from atomr.refs import Pid  # noqa: TC001 - a field's type is read

if TYPE_CHECKING:
    from atomr.otp.results import CallResult


@attrs.frozen
class Add(Request[int]):
    amount: int


@attrs.frozen
class Get(Request[int]):
    pass


@dataclasses.dataclass(frozen=True)
class Note:
    text: str
    by: Pid | None = None


class Crash(msgspec.Struct, frozen=True):
    text: str


class End(msgspec.Struct, frozen=True):
    pass


class Later(msgspec.Struct, frozen=True):
    """Asks for an answer that comes after ``delay_s``."""

    delay_s: float


class Refuse(msgspec.Struct, frozen=True):
    text: str


class Give(msgspec.Struct, frozen=True):
    """Asks for what this module calls so."""

    what: str


@attrs.frozen
class Unknown:
    """Registered nowhere."""

    value: int


MESSAGES = Messages(Add, Get, Note, Crash, End, Later, Refuse, Give)


class Counter(GenServer):
    """Counts, and keeps what it was told."""

    def __init__(self) -> None:
        self.total = 0
        self.notes: list[object] = []

    def handle_call(self, request: object, from_: From) -> CallResult:
        match request:
            case Add(amount):
                self.total += amount
                return Reply(self.total)
            case Get():
                return Reply(self.total)
            case Crash(text):
                raise ValueError(text)
            case Refuse(text):
                return Fail(LookupError(text))
            case Give(what):
                return self._give(what, from_)
            case _:
                return Stop() if isinstance(request, End) else Reply(request)

    def _give(self, what: str, from_: From) -> CallResult:
        given = {
            "notes": list(self.notes),
            "unknown": Unknown(1),
            "caller": from_.pid,
            "megabytes": b"x" * 2_000_000,
        }
        return Reply(given[what]) if what in given else NoReply()

    def handle_cast(self, message: object) -> None:
        match message:
            case Crash(text):
                raise ValueError(text)
            case Add(amount):
                self.total += amount
            case _:
                self.notes.append(message)

    def handle_info(self, message: object) -> None:
        self.notes.append(message)


class Waiter(GenServer):
    """Serves calls by waiting."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def handle_call(self, request: object, _: From) -> Reply:
        match request:
            case Later(delay_s):
                await trio.sleep(delay_s)
                return Reply(delay_s)
            case _:
                return Reply(request)
