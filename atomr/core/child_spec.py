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

from atomr.core.mailbox_limit import MailboxLimit
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


def check_shutdown(value: ShutdownTime | None) -> None:
    """Check a shutdown time.

    Raises:
        ValueError: it is negative, or no number.
    """
    if isinstance(value, (int, float)) and not value >= 0:
        raise ValueError(f"shutdown={value!r}: expected seconds, at least 0")


def check_shutdown_field(_made: object, _field: object, value: ShutdownTime) -> None:
    """Check a shutdown time that is a field; the shape that attrs asks for."""
    check_shutdown(value)


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
        ValueError: a bound is negative, or a permanent child is significant.
    """

    id: str
    start: Callable[..., object]
    restart: Restart = Restart.PERMANENT
    shutdown: ShutdownTime | None = attrs.field(
        default=None, validator=check_shutdown_field
    )
    kind: ChildKind | None = None
    significant: bool = False
    name: Name | Via | None = None
    init_timeout_s: float | None = None
    backoff_s: float = attrs.field(default=0.0, validator=attrs.validators.ge(0.0))
    max_backoff_s: float = attrs.field(default=30.0, validator=attrs.validators.ge(0.0))
    mailbox: MailboxLimit | None = None

    def __attrs_post_init__(self) -> None:
        if self.significant and self.restart is Restart.PERMANENT:
            raise ValueError(
                f"child {self.id!r}: significant=True needs a transient or temporary"
                " child; a permanent one never ends by itself"
            )

    def shutdown_for(self, kind: ChildKind) -> ShutdownTime:
        """Return the shutdown time in force for a child of that kind."""
        if self.shutdown is not None:
            return self.shutdown
        return INFINITY if kind is ChildKind.SUPERVISOR else DEFAULT_SHUTDOWN_S
