"""What happened in a run, as lines of bytes.

Two runs with the same seed have equal traces, byte for byte.  What would break
that is in the nodes: iterating over a set of texts, ``hash()``, ``id()``, the
wall clock, a generator that is not the node's own.
"""

from __future__ import annotations

from hashlib import blake2b


class Trace:
    """The lines of one run."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        """Start empty."""
        self._lines: list[bytes] = []

    def add(self, at_s: float, what: str) -> None:
        """Append a line; ``at_s`` is in true seconds."""
        self._lines.append(f"{at_s:.9f} {what}\n".encode())

    @property
    def content(self) -> bytes:
        """All lines."""
        return b"".join(self._lines)

    @property
    def digest(self) -> str:
        """Stands for the content: two runs with the same one were the same."""
        return blake2b(self.content, digest_size=16).hexdigest()
