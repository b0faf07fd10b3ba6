"""Child specifications: how a supervisor starts, restarts and stops a child.

Pure.

Source: OTP ``supervisor``, "Child Specification".
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Final, TypeAlias

import attrs

from atomr.core.checks import (
    check_bool,
    check_function,
    check_member,
    check_seconds,
    check_text,
)
from atomr.core.mailbox_limit import MailboxLimit, check_mailbox
from atomr.errors import short
from atomr.refs import Name, Via

DEFAULT_SHUTDOWN_S: Final = 5.0
"""As in OTP."""


class Restart(Enum):
    """When a child that ended by itself is started again."""

    PERMANENT = "permanent"
    """always"""
    TRANSIENT = "transient"
    """when it ended abnormally: not ``NORMAL``, ``SHUTDOWN`` or ``Shutdown(x)``"""
    TEMPORARY = "temporary"
    """never; the supervisor also forgets it"""


class ChildKind(Enum):
    """Whether a child has children of its own."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"


class BrutalKill(Enum):
    """Type of :data:`BRUTAL_KILL`."""

    BRUTAL_KILL = "brutal_kill"

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


BRUTAL_KILL: Final = BrutalKill.BRUTAL_KILL
"""Stop by killing: ``terminate`` does not run."""

INFINITY: Final = inf
"""Wait for the child's end without a bound: for supervisors."""

ShutdownTime: TypeAlias = float | BrutalKill


def check_shutdown(value: object) -> None:
    """Check a shutdown time; None is one.

    Raises:
        TypeError: it is no time.
        ValueError: it is negative, or not a number (nan).
    """
    if value is None or type(value) is BrutalKill:
        return
    if isinstance(value, str):
        words = {"brutal_kill": "BRUTAL_KILL", "infinity": "INFINITY"}
        meant = words.get(value.lower())
        remedy = "" if meant is None else f"; did you mean {meant}?"
        raise TypeError(
            f"shutdown={value!r}: expected seconds, BRUTAL_KILL or INFINITY{remedy}"
        )
    check_seconds("shutdown", value)


def check_name(value: object) -> None:
    """Check a name for a process; None is one.

    Raises:
        TypeError: it is neither a text nor a ``via``.
    """
    if value is not None and not isinstance(value, (str, Via)):
        raise TypeError(f"name={short(value)}: expected a text or a registry's via")


@attrs.frozen(kw_only=True)
class ChildSpec:
    """One child of a supervisor.

    Attributes:
        id: its name among its siblings.
        start: makes the fresh thing to run on each start: a GenServer, a
            supervisor or a PlainProcess.  Called in the supervisor; without
            arguments, unless that has some to give (``extra_arguments`` of a
            DynamicSupervisor, ``with_arguments`` of a PartitionSupervisor).
        restart: when it is started again.
        shutdown: seconds it has to stop before it is killed, ``BRUTAL_KILL``
            or ``INFINITY``; None: 5 s for workers, ``INFINITY`` for
            supervisors.
        kind: None: what the started thing is.
        significant: its end may end the supervisor; see ``AutoShutdown``.
        name: registered for the process before its ``init`` runs.
        init_timeout_s: bound on ``init`` in seconds; None: no bound, as OTP.
        backoff_s: seconds to wait before the first restart; 0: none.  Doubles
            with each restart until the child has lived ``max_backoff_s``.
        max_backoff_s: longest wait in seconds.
        mailbox: bound of its mailbox; None: it has none, as in OTP.

    Raises:
        TypeError: a field is of another type.
        ValueError: a time is negative, or a permanent child is significant.
    """

    id: str
    start: Callable[..., object]
    restart: Restart = Restart.PERMANENT
    shutdown: ShutdownTime | None = None
    kind: ChildKind | None = None
    significant: bool = False
    name: Name | Via | None = None
    init_timeout_s: float | None = None
    backoff_s: float = 0.0
    max_backoff_s: float = 30.0
    mailbox: MailboxLimit | None = None

    def __attrs_post_init__(self) -> None:
        try:
            self._check()
        except (TypeError, ValueError) as error:
            raise type(error)(f"child {short(self.id)}: {error}") from None

    # What is left at its default needs no look: one may be made for each start.
    def _check(self) -> None:
        check_text("id", self.id)
        check_function("start", self.start)
        check_member("restart", self.restart, Restart)
        if self.shutdown is not None:
            check_shutdown(self.shutdown)
        if self.kind is not None:
            check_member("kind", self.kind, ChildKind)
        if self.name is not None:
            check_name(self.name)
        if self.init_timeout_s is not None:
            check_seconds("init_timeout_s", self.init_timeout_s)
        if self.backoff_s != 0.0:
            check_seconds("backoff_s", self.backoff_s)
        if self.max_backoff_s != 30.0:
            check_seconds("max_backoff_s", self.max_backoff_s)
        if self.mailbox is not None:
            check_mailbox(self.mailbox)
        if self.significant is not False:
            self._check_significance()

    def _check_significance(self) -> None:
        check_bool("significant", self.significant)
        if self.restart is Restart.PERMANENT:
            raise ValueError(
                "significant=True needs a transient or temporary child; a permanent"
                " one never ends by itself"
            )

    def shutdown_for(self, kind: ChildKind) -> ShutdownTime:
        """Return the shutdown time in force for a child of that kind."""
        if self.shutdown is not None:
            return self.shutdown
        return INFINITY if kind is ChildKind.SUPERVISOR else DEFAULT_SHUTDOWN_S
