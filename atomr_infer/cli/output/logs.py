"""Logging of the command: one line per event, on standard error.

A traceback, and a report of a crash, go on below theirs, indented.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

from atomr_infer.cli.output.lines import below, one_line
from atomr_infer.errors import EngineError

_FORMAT = "%(asctime)s %(levelname)-7s {mark}%(name)s: %(message)s"

# What engines write themselves, line by line.  It says how a model is laid out
# in memory, which nobody wants to read who only serves it; what an engine wrote
# last before it failed is logged as warnings.
_ENGINE_OUTPUT = "atomr_infer.engine"

_REPORTS = "atomr"
"""Whose events may have several lines: crashes, with a state and who was around."""


def configure_logging(level: str, *, mark: str = "") -> None:
    """Send everything of ``level`` and above to standard error.

    The engines' own output is logged with ``debug`` only, but for the last lines
    of one that failed, and what the user's own code prints.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        mark: what each line begins with, behind its time and level.
    """
    handler = _StderrHandler()
    handler.setFormatter(_Formatter(mark))
    logging.basicConfig(
        level=level.upper(),
        handlers=[handler],
    )
    # What no line shows is not looked up: the caller's frame and the thread.
    logging._srcfile = None  # noqa: SLF001 - as logging's own how-to says
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = False
    logging.setLogRecordFactory(_Record)
    if level.upper() != "DEBUG":
        shown = max(logging.WARNING, logging.getLogger().level)
        logging.getLogger(_ENGINE_OUTPUT).setLevel(shown)
        logging.getLogger("atomr").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a crash is not told already, by who serves with what has crashed.

    That an engine's process dies is foreseen: why, and what becomes of its requests,
    is a line, and that it is started again is another one.  Where in this program that
    was noticed says nothing to who runs it.
    """
    crash = record.exc_info[1] if record.exc_info else None
    return not isinstance(crash, EngineError)


_STARTED_AT = time.time()

# What a format may name all the same.
_UNKNOWN: dict[str, object] = {
    **dict.fromkeys(("pathname", "filename", "module", "funcName"), ""),
    **dict.fromkeys(("thread", "threadName", "process", "processName", "taskName")),
    "lineno": 0,
    "exc_text": None,
}


class _Record(logging.LogRecord):
    """A record without what needs the caller's frame: each request makes one."""

    def __init__(
        self,
        name: str,
        level: int,
        _pathname: str,
        _lineno: int,
        msg: object,
        args: object,
        exc_info: object,
        _func: str | None = None,
        sinfo: str | None = None,
        **_: object,
    ) -> None:
        created = time.time()
        # A single mapping is what the message's names are looked up in.
        single = args[0] if isinstance(args, tuple) and len(args) == 1 else None
        self.__dict__.update(
            _UNKNOWN,
            name=name,
            levelno=level,
            levelname=logging.getLevelName(level),
            msg=msg,
            args=single if isinstance(single, dict) and single else args,
            exc_info=exc_info,
            stack_info=sinfo,
            created=created,
            msecs=created % 1 * 1000,
            relativeCreated=(created - _STARTED_AT) * 1000,
        )


class _Formatter(logging.Formatter):
    """Formats the time once a second, and most lines at once.

    An event begins at the left edge, and nothing else does (:mod:`.lines`).
    """

    _second = -1
    _shown = ""

    def __init__(self, mark: str) -> None:
        super().__init__(_FORMAT.format(mark=mark), datefmt="%H:%M:%S")
        self._mark = mark

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info or record.exc_text or record.stack_info:
            # A traceback has lines, and ends with text that anybody may have sent.
            return below(super().format(record))
        shown_at = self.formatTime(record, self.datefmt)
        text = record.getMessage()
        # Reports of the runtime have lines of their own, and what others sent is in
        # them as Python shows it.
        is_report = record.name.partition(".")[0] == _REPORTS
        text = below(text) if is_report else one_line(text)
        return f"{shown_at} {record.levelname:7} {self._mark}{record.name}: {text}"

    def formatTime(  # noqa: N802 - the base class's name
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._shown = super().formatTime(record, datefmt)
        return self._shown


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at the time.

    A progress bar replaces it while it is shown, so that lines go above the bar
    and not into it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO | None = sys.stderr
        if stream is None:  # a parent closed it before it started us
            return
        try:
            stream.write(self.format(record) + "\n")
            if not getattr(stream, "line_buffering", False):
                stream.flush()
        except Exception:  # noqa: BLE001 - as all handlers: it must not break who logs
            self.handleError(record)
