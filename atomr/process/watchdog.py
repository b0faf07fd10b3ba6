"""A watchdog for the event loop: who holds it, and where.

A handler that computes or blocks without an ``await`` stops the whole node, and
nothing in Python can preempt it.  What can be done is to say so while it lasts:
a thread asks the loop for a sign of life, and when none comes in time, it logs
which process holds the loop, and the stack that it holds it with.

Cost: the loop is woken twice per ``limit_s``, so it is for development and for
finding out, not for machines that should sleep.  Code that holds the GIL holds
the watchdog too; it is then reported when it lets go, if at all.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

import trio

from atomr.process.process import Process
from atomr.process.report import log

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self

DEFAULT_LIMIT_S = 0.1
"""Ten times what a person notices in a reply; a hundred times a handler's due."""


class watch_event_loop:  # noqa: N801 - `with watch_event_loop():` reads as a function
    """Log who holds the event loop for longer than ``limit_s``.

    ::

        async def main() -> None:
            with watch_event_loop(limit_s=0.1):
                await run_applications([web])

    One warning while it lasts, with process and stack; one line when it is over.

    Args:
        limit_s: seconds without a sign of life that are too long.
    """

    def __init__(self, limit_s: float = DEFAULT_LIMIT_S) -> None:
        self._limit_s = limit_s
        self._alive = threading.Event()
        self._left = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="atomr watchdog", daemon=True
        )
        self._token: trio.lowlevel.TrioToken
        self._watched = 0

    def __enter__(self) -> Self:
        self._token = trio.lowlevel.current_trio_token()
        self._watched = threading.get_ident()
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._left.set()
        self._alive.set()
        self._thread.join()

    # --- in the thread ----------------------------------------------------------

    def _watch(self) -> None:
        while not self._left.is_set():
            self._alive.clear()
            asked_at = time.monotonic()
            try:
                self._token.run_sync_soon(self._alive.set)
            except trio.RunFinishedError:
                return
            if not self._alive.wait(self._limit_s) and not self._left.is_set():
                self._report()
                self._alive.wait()
                held_s = time.monotonic() - asked_at
                log.warning("the event loop goes on, after %.2f s", held_s)
            self._left.wait(self._limit_s)

    def _report(self) -> None:
        # Private by name, documented in the standard library.
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        process = _process_of(frame)
        log.warning(
            "%s has held the event loop for %s s: nothing else runs meanwhile."
            "  What blocks or computes for long belongs in a thread.\n%s",
            "code of no process" if process is None else repr(process.pid),
            self._limit_s,
            stack,
        )


def _process_of(frame: FrameType | None) -> Process | None:
    """Return whose code the innermost frames are, by the frame that runs it."""
    while frame is not None:
        runner = frame.f_locals.get("self")
        if isinstance(runner, Process):
            return runner
        frame = frame.f_back
    return None
