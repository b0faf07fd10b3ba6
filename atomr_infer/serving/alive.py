"""For how long no process of this node has run: what a new one may take for granted.

A rate limit must hold over a restart: what the last process used in the last minute is
used.  Nobody remembers it, but a file says when that process was last alive, and after
a window of quiet there is nothing to remember.

The time is the machine's since it was started, which no clock that is set changes.  If
the machine was started anew, the last process ended before that.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import trio

from atomr.cluster.permits import Past
from atomr.core.child_spec import ChildSpec
from atomr.process import PlainProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.cluster import Peers
    from atomr.http2 import Service

log = logging.getLogger(__name__)

_EVERY_S = 2.0
_MACHINE = Path("/proc/sys/kernel/random/boot_id")


class _Note(msgspec.Struct):
    """What the file says.

    Attributes:
        machine: which start of the machine it was.
        until_s: that a process runs at most, in seconds since that start.
    """

    machine: str
    until_s: float


class Alive:
    """A part of a node: notes that it is alive, and knows since when none was.

    Where there is no file there was no such node: a state folder that is new says that
    the node is.
    """

    shares_life: ClassVar[bool] = False

    def __init__(self, path: Path | None, *, unknown_s: float = 0.0) -> None:
        """Make a note's keeper.

        Args:
            path: of the file; None: there is none.
            unknown_s: for how long it was quiet where there is none.
        """
        self._path = path
        self._unknown_s = unknown_s
        self._started_s = _since_start_s()
        self._quiet_s = self._quiet_before_s()
        self._is_blank = False

    def past(self) -> Past:
        """Return what is known of processes before this one, as of now."""
        return Past(quiet_s=self._quiet_s + _since_start_s() - self._started_s)

    def _quiet_before_s(self) -> float:
        """Return for how long, at least, none had run when this one started."""
        if self._path is None:
            return self._unknown_s
        try:
            note = msgspec.json.decode(self._path.read_bytes(), type=_Note)
        except FileNotFoundError:
            return math.inf
        except (OSError, msgspec.DecodeError):
            return 0.0  # it was being written when the machine died
        match _machine():
            case None:
                return 0.0
            case note.machine:
                return max(0.0, self._started_s - note.until_s)
            case _:
                return self._started_s

    # --- as a part of a cluster -------------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages: there are none."""
        return {}

    def child(self, _: Peers) -> ChildSpec:
        """Return how its process is started."""
        return ChildSpec(id="alive", start=lambda: PlainProcess(self.run))

    async def run(self) -> None:
        """Note that we are alive, again and again; never returns.

        On a disk that is full the file is emptied, which needs no room: whoever comes
        next takes nothing for granted.

        Raises:
            OSError: it cannot be emptied either: a process that goes on unseen would
                have its use forgotten.

        Cancellation: the last note says that it ends now.
        """
        try:
            while True:
                # Written before it is true, so that a kill finds no gap.
                self._note(_since_start_s() + 2 * _EVERY_S)
                await trio.sleep(_EVERY_S)
        finally:
            self._note(_since_start_s())

    def _note(self, until_s: float) -> None:
        try:
            self._write(until_s)
        except OSError as error:
            if not self._is_blank:
                assert self._path is not None
                self._path.write_bytes(b"")
                log.error(  # noqa: TRY400 - what is wrong is told by its words
                    "alive: %s; a process that is started now waits before it uses"
                    " rate limits",
                    error,
                )
            self._is_blank = True
        else:
            if self._is_blank:
                log.warning("alive: %s is written again", self._path)
            self._is_blank = False

    def _write(self, until_s: float) -> None:
        machine = _machine()
        if self._path is None or machine is None:
            return
        # Some hundred bytes of the page cache: a machine that dies needs no note.
        text = msgspec.json.encode(_Note(machine, until_s))
        draft = self._path.with_name(f"{self._path.name}.new")
        draft.write_bytes(text)
        draft.replace(self._path)


def _machine() -> str | None:
    """Return which start of the machine this is; None: it does not say."""
    try:
        return _MACHINE.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _since_start_s() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
