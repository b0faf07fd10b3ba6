"""Rows of the rights matrix, what ledgers tell each other, and what they write.

A row has one writer, its ledger, and its cells only grow; where two copies of a
row meet, the larger cells are the later ones.  So a copy may be lost, come twice
or come late.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from atomr.gossip.codec import Codec

Units: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
"""Of whatever the budget counts: millionths of its currency."""


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one ledger has done, in totals.

    Attributes:
        ledger: whose row it is.
        minted: units made here.
        moved: units given away, by the receiver's ledger.
        spent: units taken to be spent, in chunks.
        released: of these, units that were given back unspent.
        overrun: units that were charged and that there were no rights for.
        heir: the ledger that wrote the row's last version, after this one was
            lost; empty: it is its own.
    """

    ledger: str
    minted: Units = 0
    moved: dict[str, Units] = {}
    spent: Units = 0
    released: Units = 0
    overrun: Units = 0
    heir: str = ""


class Rows(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="rows"):
    """All that a ledger knows.

    Attributes:
        budget: its name.
        ledger: of the sender.
        rows: its own, as it is on its disk, and others'.
    """

    budget: str
    ledger: str
    rows: tuple[Row, ...]


class Need(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="need"):
    """A ledger asks for rights.

    Attributes:
        budget: its name.
        ledger: of the sender.
        seen: the total that it knows to have been moved from there to here.
        least: what it needs beyond that.
        amount: what it could do with.
    """

    budget: str
    ledger: str
    seen: Units
    least: Units
    amount: Units


class Freeze(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="freeze"):
    """A ledger is about to inherit from lost ones: believe no news of them.

    Attributes:
        budget: its name.
        heir: the ledger of the sender.
        lost: the ledgers that are lost.
    """

    budget: str
    heir: str
    lost: tuple[str, ...]


class Frozen(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="frozen"):
    """The lost ledgers' rows are frozen here, and are as follows.

    Attributes:
        budget: its name.
        ledger: of the sender.
        heir: as asked.
        lost: as asked.
        rows: all that the sender knows.
    """

    budget: str
    ledger: str
    heir: str
    lost: tuple[str, ...]
    rows: tuple[Row, ...]


class Objects(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="objects"):
    """A ledger must not be inherited from.

    Attributes:
        budget: its name.
        heir: as asked.
        lost: which ledger.
        reason: ``alive``, or the ledger that inherits already.
    """

    budget: str
    heir: str
    lost: str
    reason: str


Frame: TypeAlias = Rows | Need | Freeze | Frozen | Objects


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a ledger's file holds.

    Attributes:
        ledger: the id; stays when the node restarts.
        rows: its own, and what it knew of others.
        frozen: heirs by lost ledger.
    """

    ledger: str
    rows: tuple[Row, ...]
    frozen: dict[str, str]


_frames = Codec[Frame](Frame, order="sorted")
_records = Codec[Record](Record, order="sorted")

encode = _frames.encode
"""Returns the bytes of a frame."""

decode = _frames.decode
"""Returns the frame of these bytes.

Raises:
    msgspec.DecodeError: they are no frame.
"""

encode_record = _records.encode
"""Returns the bytes of a file."""
_decode_record = _records.decode


def decode_record(data: bytes) -> Record:
    """Return what a file holds.

    Raises:
        msgspec.DecodeError: it is damaged; a ledger that cannot read its file must not
            start, as one that lost it.
    """
    record: Record = _decode_record(data)
    if all(row.ledger != record.ledger for row in record.rows):
        raise msgspec.ValidationError(f"it lacks the row of {record.ledger!r}")
    return record
