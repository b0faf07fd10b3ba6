"""What the callbacks of a GenServer may return.

==================  ========================================================
``init``            ``Ok``, ``Ignore``, ``Stop``; None is ``Ok()``
``handle_call``     ``Reply``, ``Fail``, ``NoReply``, ``Stop``
``handle_cast``     ``NoReply``, ``Stop``; None is ``NoReply()``
``handle_info``     the same
``handle_continue`` the same
==================  ========================================================

``continue_`` runs ``handle_continue`` with that value before the next message.
``timeout_s`` asks for ``handle_info(IdleTimeout())`` when no message comes for
so many seconds.  ``hibernate`` puts the server's task away until one comes; see
:attr:`~atomr.otp.GenServer.hibernate_after_s`.  At most one of the three.

Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeAlias

import attrs

from atomr.core.exits import NORMAL, ExitReason


class _Absent(Enum):
    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent.ABSENT
"""No continuation, no reply; None is a value like any other."""


class _Result:
    """What a callback returns, with what comes next.

    Attributes:
        plain: whether nothing special comes next; then the others are not set.
    """

    # Written by hand, as Reply and NoReply are: one of them is made per message.
    __slots__ = ("continue_", "hibernate", "plain", "timeout_s")

    continue_: object
    timeout_s: float | None
    hibernate: bool

    def __init__(
        self,
        *,
        continue_: object = ABSENT,
        timeout_s: float | None = None,
        hibernate: bool = False,
    ) -> None:
        if continue_ is ABSENT and timeout_s is None and not hibernate:
            self.plain = True
        else:
            self._then(continue_, timeout_s, hibernate=hibernate)

    def _then(
        self, continue_: object, timeout_s: float | None, *, hibernate: bool
    ) -> None:
        # What is done next is one thing: OTP's callbacks have one place for it.
        if (continue_ is not ABSENT) + (timeout_s is not None) + hibernate != 1:
            raise ValueError("a result has one of continue_, timeout_s and hibernate")
        self.plain = False
        self.continue_ = continue_
        self.timeout_s = timeout_s
        self.hibernate = hibernate

    def _content(self) -> dict[str, object]:
        return {}

    def _fields(self) -> dict[str, object]:
        if self.plain:
            return self._content()
        next_: dict[str, object] = {
            "continue_": self.continue_,
            "timeout_s": self.timeout_s,
            "hibernate": self.hibernate,
        }
        unset = (ABSENT, None, False)
        said = zip(next_.items(), unset, strict=True)
        return self._content() | {k: v for (k, v), absent in said if v is not absent}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._fields().items())
        return f"{type(self).__name__}({shown})"


class Ok(_Result):
    """``init`` succeeded."""

    __slots__ = ()


@attrs.frozen
class Ignore:
    """``init`` found nothing to do: no process, and no failure."""


class Reply(_Result):
    """Answer the call with ``value``."""

    __slots__ = ("value",)
    __match_args__ = ("value",)

    def __init__(
        self,
        value: object,
        *,
        continue_: object = ABSENT,
        timeout_s: float | None = None,
        hibernate: bool = False,
    ) -> None:
        self.value = value
        if continue_ is ABSENT and timeout_s is None and not hibernate:
            self.plain = True
        else:
            self._then(continue_, timeout_s, hibernate=hibernate)

    def _content(self) -> dict[str, object]:
        return {"value": self.value}


class Fail(_Result):
    """Answer the call by raising ``error`` in the caller; the server goes on."""

    __slots__ = ("error",)
    __match_args__ = ("error",)

    def __init__(
        self,
        error: Exception,
        *,
        continue_: object = ABSENT,
        timeout_s: float | None = None,
        hibernate: bool = False,
    ) -> None:
        super().__init__(continue_=continue_, timeout_s=timeout_s, hibernate=hibernate)
        self.error = error

    def _content(self) -> dict[str, object]:
        return {"error": self.error}


class NoReply(_Result):
    """Nothing to answer now; for a call, ``From.reply`` answers later."""

    __slots__ = ()


@attrs.frozen
class Stop:
    """End the server with ``reason``, after an optional reply to this call.

    From ``init`` it is a failed start, with that reason.
    """

    reason: ExitReason = NORMAL
    reply: object = attrs.field(default=ABSENT, kw_only=True)


InitResult: TypeAlias = Ok | Ignore | Stop | None
CallResult: TypeAlias = Reply | Fail | NoReply | Stop
CastResult: TypeAlias = NoReply | Stop | None
