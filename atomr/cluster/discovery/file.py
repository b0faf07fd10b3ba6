"""Seeds in a file, one address a line: for whatever can write one.

The file is read again and again, so it may change while nodes run.  Whoever writes it
puts a new one in its place (``mv``): a half-written line is some other address.
"""

from __future__ import annotations

import logging
from pathlib import Path

import attrs
import trio

from atomr.core.checks import check_seconds
from atomr.errors import DiscoveryError

MAX_BYTES = 1024 * 1024

_log = logging.getLogger("atomr.cluster")


@attrs.define
class FileSeeds:
    """The addresses in a file; a ``#`` begins a comment.

    Attributes:
        path: of the file; where there is none, there are no seeds.
        interval_s: how often it is looked at.

    Raises:
        TypeError: one is of another type.
        ValueError: the interval is too small.
    """

    path: Path = attrs.field(converter=Path)
    interval_s: float = attrs.field(default=2.0, kw_only=True)
    _missing: bool = attrs.field(default=False, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_seconds("interval_s", self.interval_s, zero=False)

    async def find(self) -> tuple[str, ...]:
        """Return what is in it now.

        Raises:
            DiscoveryError: it cannot be read, is no text, or has more than 1 MiB.

        Cancellation: a read that hangs, as of a disk that is far away, goes on by
            itself, and is not waited for.
        """
        try:
            content = await trio.to_thread.run_sync(self._read, abandon_on_cancel=True)
        except FileNotFoundError:
            if not self._missing:
                self._missing = True
                _log.warning("%s: there is no such file, so no seeds", self.path)
            return ()
        except OSError as error:
            raise DiscoveryError(f"file {self.path}", str(error)) from error
        self._missing = False
        return self._parsed(content)

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            return file.read(MAX_BYTES + 1)

    def _parsed(self, content: bytes) -> tuple[str, ...]:
        source = f"file {self.path}"
        if len(content) > MAX_BYTES:
            raise DiscoveryError(source, f"it has more than {MAX_BYTES} bytes")
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise DiscoveryError(source, f"it is no text: {error}") from error
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        return tuple(line for line in lines if line)
