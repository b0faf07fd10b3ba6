"""What ends the whole program: kept until all has been stopped in order.

``KeyboardInterrupt`` strikes whatever code happens to run, which may be any
process' callback, and ``SystemExit`` is raised by one on purpose.  Neither is
that process' own to keep; but if it went up through the nurseries at once, all
would be cancelled in no order.  So the first one is kept by the node, which
cancels its block's body, stops all in order, and raises it then.  From that
moment nothing is restarted.  One that comes later, or while the node stops
anyway, goes up as it is, and so ends all at once.
"""

from __future__ import annotations

import trio

from atomr.core.exits import unwrap
from atomr.process.endings import passes_up

INTERRUPTS = (KeyboardInterrupt, SystemExit)


class Interrupts:
    """The interrupts of one node.

    Attributes:
        kept: the first one; None: there was none.
    """

    __slots__ = ("_body_scope", "_closed", "kept")

    def __init__(self, body_scope: trio.CancelScope) -> None:
        self.kept: BaseException | None = None
        self._body_scope = body_scope
        self._closed = False

    def pass_up(self, error: BaseException) -> BaseException | None:
        """Keep the interrupt in ``error``, if it is the first.

        May be called again on the same error's way up.

        Returns:
            The part that must go on above a process' frame, or the node's block.
        """
        passing = passes_up(error)
        if passing is None:
            return None
        interrupt = interrupt_in(passing)
        if interrupt is None or not self._keeps(interrupt):
            return passing
        if isinstance(passing, BaseExceptionGroup):
            return passing.split(INTERRUPTS)[1]
        return None

    def _keeps(self, interrupt: BaseException) -> bool:
        if interrupt is not self.kept:
            if self._closed or self.kept is not None:
                return False
            self.kept = interrupt
            self._body_scope.cancel()
        return True

    def close(self) -> None:
        """Keep none from now on: the node stops."""
        self._closed = True

    def raise_end(
        self, error: BaseException | None, failure: BaseException | None
    ) -> None:
        """Raise what ended a node that has been stopped in order, if anything did.

        Args:
            error: what the node's block raised.
            failure: that a root ended by itself.
        """
        interrupt = self.kept
        if interrupt is not None and (error is None or interrupt_in(error) is None):
            if error is not None:
                interrupt.add_note(f"meanwhile the node's block raised {error!r}")
            raise interrupt
        if error is not None:
            if failure is not None:
                error.add_note(f"meanwhile {failure}")
            raise error
        if failure is not None:
            raise failure

    def with_kept(self, error: BaseException) -> BaseException:
        """Return what to raise when all was cancelled, because of ``error``."""
        if self.kept is None or self.kept is error:
            return error
        others = error
        if isinstance(error, BaseExceptionGroup):
            rest = error.split(INTERRUPTS)[1]
            if rest is None:
                return self.kept
            others = unwrap(rest)
        elif isinstance(error, INTERRUPTS):
            return self.kept
        return BaseExceptionGroup("a node was cancelled", [self.kept, others])


def interrupt_in(error: BaseException) -> BaseException | None:
    """Return the one interrupt in ``error``; None: there is none, or more than one."""
    if isinstance(error, BaseExceptionGroup):
        found = error.split(INTERRUPTS)[0]
        error = error if found is None else unwrap(found)
    return error if isinstance(error, INTERRUPTS) else None


def ends_at_once(passing: BaseException | None) -> bool:
    """Return whether what goes on above a node's block leaves no time for order."""
    kinds = (trio.Cancelled, *INTERRUPTS)
    if isinstance(passing, BaseExceptionGroup):
        return passing.subgroup(kinds) is not None
    return isinstance(passing, kinds)
