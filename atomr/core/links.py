"""What an exit signal does to the process that receives it.

==================  =====================  ==========================
signal              not trapping           trapping
==================  =====================  ==========================
``KILL``, sent      ends with ``KILLED``   ends with ``KILLED``
``KILL``, link      ends with ``KILL``     message ``Exit``
``NORMAL``, link    nothing                message ``Exit``
``NORMAL``, sent    nothing; to oneself:   message ``Exit``
                    ends with ``NORMAL``
any other           ends with the reason   message ``Exit``
==================  =====================  ==========================

"link" is the end of a linked process, "sent" is ``exit_process``.  Who gets a
``KILL`` that was sent ends with ``KILLED``, so a link carries ``KILL`` only
from a process that gave it as its own reason; it can be trapped.

Pure.

Source: Erlang reference manual, "Processes: Error Handling", and ``exit/2``.
"""

from __future__ import annotations

from enum import Enum

from atomr.core.exits import KILL, KILLED, NORMAL, ExitReason


class SignalEffect(Enum):
    """What the receiver does."""

    IGNORE = "ignore"
    MESSAGE = "message"
    EXIT = "exit"


def signal_effect(
    reason: ExitReason, *, trapping: bool, to_self: bool = False, linked: bool = False
) -> SignalEffect:
    """Return what a process does on an exit signal.

    Args:
        reason: the signal's reason.
        trapping: whether the receiver traps exits.
        to_self: whether the receiver sent it itself by ``exit_process``.
        linked: whether it comes from the end of a linked process.

    >>> signal_effect(NORMAL, trapping=False)
    <SignalEffect.IGNORE: 'ignore'>
    >>> signal_effect(KILL, trapping=True)
    <SignalEffect.EXIT: 'exit'>
    """
    if reason is KILL and not linked:
        return SignalEffect.EXIT
    if trapping:
        return SignalEffect.MESSAGE
    if reason is NORMAL and not to_self:
        return SignalEffect.IGNORE
    return SignalEffect.EXIT


def exit_reason(signal: ExitReason, *, linked: bool = False) -> ExitReason:
    """Return the reason a process ends with when ``signal`` ends it."""
    return KILLED if signal is KILL and not linked else signal
