"""Reading a child's output into the log, as fast as it comes.

Owns the read end of the child's output pipe.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from atomr_infer.bridge.system.output import OutputLog

if TYPE_CHECKING:
    from collections.abc import Sequence

READ_BYTES = 64 * 1024
"""What a Linux pipe holds."""


class OutputCapture:
    """Logs what a child writes, on ``atomr_infer.engine.<deployment>``.

    What code of the user's own prints is on ``atomr_infer.python.<deployment>``:
    who wrote it wants to read it, unlike what engines say of their memory.

    Args:
        pipe: the child's output.
        deployment_name: whose it is.
        is_own: whether it runs the user's own code.

    Attributes:
        ended: set when the child, and each helper that has its pipe, is gone.
    """

    def __init__(self, pipe: int, deployment_name: str, *, is_own: bool) -> None:
        self.ended = trio.Event()
        self._pipe = trio.lowlevel.FdStream(pipe)
        whose = "python" if is_own else "engine"
        self._log = logging.getLogger(f"atomr_infer.{whose}.{deployment_name}")
        self._output = OutputLog(trio.current_time())

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines."""
        return self._output.tail

    def show_last(self) -> None:
        """Log the last lines of an engine that failed, those that were not shown."""
        were_shown = self._log.isEnabledFor(logging.INFO)
        for line in self._output.held_back if were_shown else self.tail:
            self._log.warning("%s", line)

    async def run(self) -> None:
        """Read until the end of the output; never waits for anything else.

        Cancellation: closes the pipe; a child that writes on gets EPIPE, as an
            ``OSError`` in Python, which ignores SIGPIPE.
        """
        async with self._pipe:
            while received := await self._pipe.receive_some(READ_BYTES):
                now = trio.current_time()
                self._write(self._output.feed(bytes(received), now))
        self._write(self._output.finish(trio.current_time()))
        self.ended.set()

    def _write(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._log.info("%s", line)
