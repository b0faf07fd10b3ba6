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
so many seconds.

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


@attrs.frozen
class Ok:
    """``init`` succeeded."""

    continue_: object = attrs.field(default=ABSENT, kw_only=True)
    timeout_s: float | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Ignore:
    """``init`` found nothing to do: no process, and no failure."""


class Reply:
    """Answer the call with ``value``.

    Attributes:
        plain: whether that is all.
    """

    # Written by hand: one is made for each call.
    __slots__ = ("continue_", "plain", "timeout_s", "value")
    __match_args__ = ("value",)

    def __init__(
        self,
        value: object,
        *,
        continue_: object = ABSENT,
        timeout_s: float | None = None,
    ) -> None:
        self.value = value
        if continue_ is ABSENT and timeout_s is None:
            self.plain = True
            return
        self.plain = False
        self.continue_ = continue_
        self.timeout_s = timeout_s

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reply) and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        value, continue_, timeout_s = self._fields()
        if self.plain:
            return f"Reply({value!r})"
        return f"Reply({value!r}, continue_={continue_!r}, timeout_s={timeout_s!r})"

    def _fields(self) -> tuple[object, object, float | None]:
        if self.plain:
            return self.value, ABSENT, None
        return self.value, self.continue_, self.timeout_s


@attrs.frozen
class Fail:
    """Answer the call by raising ``error`` in the caller; the server goes on."""

    error: Exception
    continue_: object = attrs.field(default=ABSENT, kw_only=True)
    timeout_s: float | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class NoReply:
    """Nothing to answer now; for a call, ``From.reply`` answers later."""

    continue_: object = attrs.field(default=ABSENT, kw_only=True)
    timeout_s: float | None = attrs.field(default=None, kw_only=True)


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
