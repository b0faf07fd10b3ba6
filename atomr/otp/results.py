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


class _OneOfThree:
    # What is done next is one thing: OTP's callbacks have one place for it.
    __slots__ = ()

    continue_: object
    timeout_s: float | None
    hibernate: bool

    def __attrs_post_init__(self) -> None:
        _check_one(self.continue_, self.timeout_s, hibernate=self.hibernate)


def _check_one(continue_: object, timeout_s: float | None, *, hibernate: bool) -> None:
    if (continue_ is not ABSENT) + (timeout_s is not None) + hibernate > 1:
        raise ValueError("a result has one of continue_, timeout_s and hibernate")


@attrs.frozen
class Ok(_OneOfThree):
    """``init`` succeeded."""

    continue_: object = attrs.field(default=ABSENT, kw_only=True)
    timeout_s: float | None = attrs.field(default=None, kw_only=True)
    hibernate: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class Ignore:
    """``init`` found nothing to do: no process, and no failure."""


class Reply:
    """Answer the call with ``value``.

    Attributes:
        plain: whether that is all.
    """

    # Written by hand: one is made for each call.
    __slots__ = ("continue_", "hibernate", "plain", "timeout_s", "value")
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
            return
        _check_one(continue_, timeout_s, hibernate=hibernate)
        self.plain = False
        self.continue_ = continue_
        self.timeout_s = timeout_s
        self.hibernate = hibernate

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reply) and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self.plain:
            return f"Reply({self.value!r})"
        value, continue_, timeout_s, hibernate = self._fields()
        return (
            f"Reply({value!r}, continue_={continue_!r}, timeout_s={timeout_s!r},"
            f" hibernate={hibernate!r})"
        )

    def _fields(self) -> tuple[object, object, float | None, bool]:
        if self.plain:
            return self.value, ABSENT, None, False
        return self.value, self.continue_, self.timeout_s, self.hibernate


@attrs.frozen
class Fail(_OneOfThree):
    """Answer the call by raising ``error`` in the caller; the server goes on."""

    error: Exception
    continue_: object = attrs.field(default=ABSENT, kw_only=True)
    timeout_s: float | None = attrs.field(default=None, kw_only=True)
    hibernate: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class NoReply(_OneOfThree):
    """Nothing to answer now; for a call, ``From.reply`` answers later."""

    continue_: object = attrs.field(default=ABSENT, kw_only=True)
    timeout_s: float | None = attrs.field(default=None, kw_only=True)
    hibernate: bool = attrs.field(default=False, kw_only=True)


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
