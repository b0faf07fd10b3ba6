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


@attrs.frozen
class Reply:
    """Answer the call with ``value``."""

    value: object
    continue_: object = attrs.field(default=ABSENT, kw_only=True)
    timeout_s: float | None = attrs.field(default=None, kw_only=True)


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
