"""Exit reasons: why a process ended.

=================  ==========================================================
``NORMAL``         it was done
``SHUTDOWN``       its supervisor, its node or an enclosing scope stopped it
``Shutdown(x)``    the same, with a detail; treated like ``SHUTDOWN``
``KILLED``         it was killed, or did not stop in the time it had
``NOPROC``         it was not there at all (for monitors and links)
``NOCONNECTION``   its node is out of reach: nobody knows whether it lives
an exception       it crashed; the traceback is on the exception
=================  ==========================================================

``KILL`` is no reason but the one signal that cannot be trapped; a process
that gets it ends with ``KILLED``.

Pure.

Source: Erlang reference manual, "Processes", and ``supervisor``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeAlias

import attrs


class ExitSignal(Enum):
    """The reasons that carry no value; use the module's constants."""

    NORMAL = "normal"
    SHUTDOWN = "shutdown"
    KILL = "kill"
    KILLED = "killed"
    NOPROC = "noproc"
    NOCONNECTION = "noconnection"

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


NORMAL: Final = ExitSignal.NORMAL
SHUTDOWN: Final = ExitSignal.SHUTDOWN
KILL: Final = ExitSignal.KILL
KILLED: Final = ExitSignal.KILLED
NOPROC: Final = ExitSignal.NOPROC
NOCONNECTION: Final = ExitSignal.NOCONNECTION


@attrs.frozen
class Shutdown:
    """An orderly end with a detail for whoever looks; not a failure."""

    detail: object = None


ExitReason: TypeAlias = ExitSignal | Shutdown | BaseException


def is_normal(reason: ExitReason) -> bool:
    """True for ``NORMAL`` alone."""
    return reason is NORMAL


def is_shutdown(reason: ExitReason) -> bool:
    """True for ``SHUTDOWN`` and every ``Shutdown(x)``."""
    return reason is SHUTDOWN or isinstance(reason, Shutdown)


def is_abnormal(reason: ExitReason) -> bool:
    """True when a transient child with this reason is restarted.

    >>> [is_abnormal(r) for r in (NORMAL, SHUTDOWN, Shutdown(1), KILLED)]
    [False, False, False, True]
    """
    return not (is_normal(reason) or is_shutdown(reason))


def is_crash(reason: ExitReason) -> bool:
    """True when the reason is an exception."""
    return isinstance(reason, BaseException)


def unwrap(error: BaseException) -> BaseException:
    """Return the one leaf of an exception group, or the error as it is.

    trio's nurseries wrap even a single error; a reason should be the error.
    A group of several leaves is itself the reason.

    >>> unwrap(ExceptionGroup("", [ExceptionGroup("", [ValueError("x")])]))
    ValueError('x')
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
