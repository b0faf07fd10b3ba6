"""For how long no process of this node has run: what a new one may take for granted.

A rate limit must hold over a restart: what the last process used in the last minute is
used.  Nobody remembers it where that one was killed, but a file says when it was last
alive, and after a window of quiet there is nothing to remember.  One that ends in order
writes down what it has used, for who has no others: what several nodes have lent each
other is not in one file.

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
    from collections.abc import Callable, Mapping

    from atomr.cluster import Peers
    from atomr.cluster.permits import Limit
    from atomr.http2 import Service

log = logging.getLogger(__name__)

_EVERY_S = 2.0
_MACHINE = Path("/proc/sys/kernel/random/boot_id")


class Use(msgspec.Struct, frozen=True):
    """What is used of a limit, and counts.

    Attributes:
        permits: so many, at most.
        cooling_s: how long each of them counts.
    """

    permits: int
    cooling_s: float


class _Note(msgspec.Struct):
    """What the file says.

    Attributes:
        machine: which start of the machine it was.
        until_s: that a process runs at most, in seconds since that start.
        used: of limits, by their names, what it had used when it ended in order.
    """

    machine: str
    until_s: float
    used: dict[str, Use] = {}


class Alive:
    """A part of a node: notes that it is alive, and knows since when none was.

    Where there is no file there was no such node: a state folder that is new says that
    the node is.

    Attributes:
        uses: returns what is used of limits; what is not in it is not known.
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
        self._used: Mapping[str, Use] = {}
        self._quiet_s = self._quiet_before_s()
        self._is_blank = False
        self.uses: Callable[[], dict[str, Use]] = dict

    def past(self, limit: Limit | None = None) -> Past:
        """Return what is known of processes before this one, as of now.

        Args:
            limit: what they used of it; None: when they ran.
        """
        quiet_s = self._quiet_s + _since_start_s() - self._started_s
        use = None if limit is None else self._used.get(limit.name)
        if use is None or limit is None or use.cooling_s != limit.cooling_s:
            return Past(quiet_s=quiet_s)
        return Past(quiet_s=quiet_s, used=use.permits)

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
                self._used = note.used
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

        Cancellation: the last note says that it ends now, and what was used.
        """
        used: dict[str, Use] = {}
        try:
            while True:
                # Written before it is true, so that a kill finds no gap.
                self._note(_since_start_s() + 2 * _EVERY_S)
                await trio.sleep(_EVERY_S)
        except trio.Cancelled:
            used = self.uses()  # by those that were behind it, and have ended
            raise
        finally:
            self._note(_since_start_s(), used)

    def _note(self, until_s: float, used: dict[str, Use] | None = None) -> None:
        try:
            self._write(_Note(_machine() or "", until_s, used or {}))
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

    def _write(self, note: _Note) -> None:
        if self._path is None or not note.machine:
            return
        # A page or two of the page cache: a machine that dies needs no note.
        text = msgspec.json.encode(note)
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
