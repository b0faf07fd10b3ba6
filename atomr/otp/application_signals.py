"""SIGINT and SIGTERM of a program that runs applications.

trio takes signals in its event loop.  A callback that computes without an end
keeps the loop from ever seeing them, and Ctrl-C would do nothing.  So a SIGINT
that comes while an earlier signal still waits for the loop raises an error in
the code that runs there:

==========  ==================================================================
the second  ``CallbackInterruptedError``: the process crashes, the loop goes on,
            sees the first signal, and stops in order
the third   ``KeyboardInterrupt``, for code that catches every ``Exception``; all
            stop in order, and it is raised
==========  ==================================================================
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.errors import CallbackInterruptedError
from atomr.process.report import log

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterator
    from types import FrameType

_PATIENCE = 2

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@attrs.define
class Control:
    """The two ways to end a run, the orderly and the quick.

    Attributes:
        stop: set when the orderly stop begins.
        everything: cancelled for the quick one.
        starting: cancelled by a signal while applications start.
        received: the first signal.
        unseen: signals that have come and that the loop has not taken.
        is_told: whether the loop has been told that there are some.
        is_telling: whether it is being told now.
    """

    stop: trio.Event
    everything: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    starting: trio.CancelScope | None = None
    received: signal.Signals | None = None
    unseen: int = 0
    is_told: bool = False
    is_telling: bool = False

    async def listen(self, signals: AsyncIterable[int]) -> None:
        """Stop at the first signal, cancel at the second."""
        async for number in signals:
            self.unseen, self.is_told = 0, False
            if self.received is not None:
                log.warning("second signal: cancelling everything")
                self.everything.cancel()
                return
            self.received = signal.Signals(number)
            log.info("%s: stopping", self.received.name)
            self.begin_stop()

    def begin_stop(self) -> None:
        """Begin the orderly stop."""
        self.stop.set()
        if self.starting is not None:
            # A start may take minutes; an orderly stop need not wait for it.
            self.starting.cancel()


@contextmanager
def receive_signals(control: Control) -> Iterator[AsyncIterable[int]]:
    """Take over the signals for the length of the block.

    Raises:
        RuntimeError: this is not the main thread; nothing has been done.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "run_applications(handle_signals=True): only the main thread can take"
            " signals; pass handle_signals=False, and a stop event"
        )
    with trio.open_signal_receiver(*SIGNALS) as signals:
        to_trio = {number: signal.getsignal(number) for number in SIGNALS}

        def handle(number: int, frame: FrameType | None) -> None:
            control.unseen += 1
            forward = to_trio[signal.Signals(number)]
            assert callable(forward), "trio has installed it"
            if control.is_telling:
                # It strikes this handler, which sees that there are two.
                forward(number, frame)
                return
            if not (_breaks(number, control) and control.is_told):
                control.is_telling = True
                try:
                    forward(number, frame)
                finally:
                    control.is_telling = False
                control.is_told = True
            # Only now: an error ends the handler of an earlier one that it strikes.
            if _breaks(number, control):
                _break(control.unseen)

        for number in SIGNALS:
            signal.signal(number, handle)
        try:
            yield signals
        finally:
            for number in SIGNALS:
                signal.signal(number, to_trio[number])


def _breaks(number: int, control: Control) -> bool:
    return number == signal.SIGINT and control.unseen > 1 and _may_raise()


def _break(unseen: int) -> None:
    if unseen > _PATIENCE:
        raise KeyboardInterrupt
    raise CallbackInterruptedError("SIGINT: the event loop did not take the last one")


def _may_raise() -> bool:
    # Inside trio's own code an exception would break the run.
    return not trio.lowlevel.currently_ki_protected()
