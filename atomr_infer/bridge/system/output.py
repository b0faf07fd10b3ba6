"""What a child writes to stdout and stderr, made fit for a log.

Engines write colours, progress bars with carriage returns, megabytes without a
newline, and bytes that are no text.  None of that may reach the parent's log or
fill its memory, and no amount of it may slow the child down: the parent reads
without end, and leaves lines out when there are too many.

Pure.
"""

from __future__ import annotations

import re
from collections import deque

MAX_LINE_BYTES = 4096
"""Longer than any log line that a person reads; the rest of the line is dropped."""

TAIL_LINES = 20
"""Lines kept for the error of an engine that did not start: enough for the end
of a traceback."""

BURST_LINES = 1000
"""Lines that are logged at once: more than any engine prints while it loads."""

LINES_PER_S = 100.0
"""Lines that are logged in the long run; a flood is cut to this."""

# ECMA-48: CSI sequences (colours, cursor), OSC strings (titles, links), and
# two-character escapes.
_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|[@-Z\\-_])"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_LINE_END = re.compile(rb"[\r\n]")


class OutputLog:
    """Cuts output into lines, cleans them, and holds a flood back."""

    def __init__(self, now: float) -> None:
        self._line = bytearray()
        self._cut_bytes = 0
        self._allowance = float(BURST_LINES)
        self._refilled_at = now
        self._left_out = 0
        self._tail: deque[tuple[str, bool]] = deque(maxlen=TAIL_LINES)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, held back or not."""
        return tuple(text for text, _ in self._tail)

    @property
    def held_back(self) -> tuple[str, ...]:
        """Those of the last lines that were not to be logged: there were too many."""
        return tuple(text for text, was_admitted in self._tail if not was_admitted)

    def feed(self, received: bytes, now: float) -> list[str]:
        """Return the lines to log now.

        Args:
            received: bytes as they were read; a line may span several calls.
            now: monotonic seconds.
        """
        *complete, rest = _LINE_END.split(received)
        lines: list[str] = []
        for piece in complete:
            self._append(piece)
            lines += self._finish_line(now)
        self._append(rest)
        return lines

    def finish(self, now: float) -> list[str]:
        """Return what is left to log when the output has ended."""
        lines = self._finish_line(now)
        return lines + self._report_left_out()

    def _append(self, piece: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._line)
        self._line += piece[:room]
        self._cut_bytes += max(0, len(piece) - room)

    def _finish_line(self, now: float) -> list[str]:
        text = clean(bytes(self._line))
        if self._cut_bytes:
            text += f" ... ({self._cut_bytes} more bytes)"
        self._line.clear()
        self._cut_bytes = 0
        if not text:
            return []
        admitted = self._admit(text, now)
        self._tail.append((text, bool(admitted)))
        return admitted

    def _admit(self, text: str, now: float) -> list[str]:
        refill = (now - self._refilled_at) * LINES_PER_S
        self._allowance = min(BURST_LINES, self._allowance + refill)
        self._refilled_at = now
        if self._allowance < 1:
            self._left_out += 1
            return []
        self._allowance -= 1
        return [*self._report_left_out(), text]

    def _report_left_out(self) -> list[str]:
        if not self._left_out:
            return []
        report = f"... {self._left_out} lines left out: too many at once"
        self._left_out = 0
        return [report]


def clean(line: bytes) -> str:
    r"""Return a line as text without colours, control characters and end blanks.

    >>> clean(b"\x1b[32mINFO\x1b[0m ready\x07 ")
    'INFO ready'
    """
    text = _ANSI.sub("", line.decode("utf-8", errors="replace"))
    return _CONTROL.sub("", text).rstrip()
