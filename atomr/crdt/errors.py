"""What is wrong with a delta or a state that someone handed in."""

from __future__ import annotations

from atomr.errors import AtomrError, short


class CrdtError(AtomrError):
    """Root of the errors of ``atomr.crdt``."""


class DifferentCrdtError(CrdtError, ValueError):
    """A state or delta belongs to another one, or to one of another type.

    Attributes:
        expected: the id of the one that was to be changed.
        got: the id of what was handed in.
    """

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"join into {expected!r}: expected the same id, got {got!r}")
        self.expected = expected
        self.got = got


class MalformedError(CrdtError, ValueError):
    """Bytes are no state, no delta or no value; nothing was changed.

    Attributes:
        what: which of them was expected.
        problem: what the decoder said.
    """

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(f"decode {what}: {problem}")
        self.what = what
        self.problem = problem


class BoundError(CrdtError, RuntimeError):
    """A state was joined into a replica whose events come through a log.

    The log's vector would not know of it.

    Attributes:
        crdt_id: of the replica.
    """

    def __init__(self, crdt_id: str) -> None:
        super().__init__(f"join into {crdt_id!r}: its log does that; give it events")
        self.crdt_id = crdt_id


class NoOriginError(CrdtError, TypeError):
    """A fragment was to be written to; only a replica with an origin can be.

    Attributes:
        crdt_id: of the fragment.
    """

    def __init__(self, crdt_id: str) -> None:
        super().__init__(
            f"write to {crdt_id!r}: it has no origin; join it into a replica that has"
        )
        self.crdt_id = crdt_id


class BadKeyError(CrdtError, TypeError):
    """A key is nothing that every node reads alike.

    Attributes:
        key: what was given.
    """

    def __init__(self, key: object) -> None:
        super().__init__(
            f"key {short(key)}: expected a str, an int of 64 bits, or a tuple of them,"
            " of at most 1024 bytes"
        )
        self.key = key


class ValueSizeError(CrdtError, ValueError):
    """A value is larger than one that can be sent; nothing was changed.

    Attributes:
        size_bytes: of its encoding.
        max_bytes: how many it may have.
    """

    def __init__(self, size_bytes: int, max_bytes: int) -> None:
        super().__init__(
            f"a value of {size_bytes} bytes: expected at most {max_bytes};"
            " put it elsewhere, and its address here"
        )
        self.size_bytes = size_bytes
        self.max_bytes = max_bytes


class InsufficientRightsError(CrdtError):
    """A ledger does not hold what was to be spent or moved; nothing was changed.

    Attributes:
        ledger: whose rights.
        wanted: how many units.
        held: how many units it has.
    """

    def __init__(self, ledger: str, *, wanted: int, held: int) -> None:
        super().__init__(f"ledger {ledger!r}: wanted {wanted} units, holds {held}")
        self.ledger = ledger
        self.wanted = wanted
        self.held = held
