"""Whole states as bytes: equal states give equal ones.

All that has no order is sorted, and values are the bytes that their writer made.
Where two replicas' encodings of equal states differ, their digests never agree, and
they send each other what both have for ever.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr.crdt.causal_context import CausalContext
from atomr.crdt.errors import MalformedError
from atomr.crdt.origin import Dot, Origin
from atomr.crdt.wire import Amount, Entry, Key, Seq, pack

if TYPE_CHECKING:
    from collections.abc import Mapping


class FrameEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An :class:`Entry` in a :class:`StateFrame`."""

    origin: Amount
    seq: Seq
    stamp: int
    body: bytes


class StateFrame(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A whole state, sorted; origins are numbers into ``origins``.

    Attributes:
        crdt: the id.
        origins: sorted.
        seen: for each origin, pairs of first and last number.
        cells: each key with its entries, in the order of the encoded keys.
    """

    crdt: str
    origins: tuple[Origin, ...]
    seen: tuple[tuple[tuple[Seq, Seq], ...], ...]
    cells: tuple[tuple[Key, tuple[FrameEntry, ...]], ...]


_STATE = msgspec.msgpack.Decoder(StateFrame)


def encode_state(
    crdt_id: str, seen: CausalContext, live: Mapping[Key, tuple[Entry, ...]]
) -> bytes:
    """Return a state as MessagePack."""
    ranges = list(seen.ranges())
    number = {origin: at for at, (origin, _) in enumerate(ranges)}
    cells = [
        (
            key,
            tuple(
                [
                    FrameEntry(number[e.dot.origin], e.dot.seq, e.stamp, e.body)
                    for e in cell
                ]
            ),
        )
        for key, cell in live.items()
    ]
    cells.sort(key=lambda cell: pack(cell[0]))
    pairs = tuple([pairs for _, pairs in ranges])
    return pack(StateFrame(crdt_id, tuple(number), pairs, tuple(cells)))


def decode_state(encoded: bytes) -> StateFrame:
    """Return the state in MessagePack.

    Raises:
        MalformedError: it is none.
    """
    try:
        return _STATE.decode(encoded)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedError("a state", str(error)) from error


def state_of(
    frame: StateFrame,
) -> tuple[CausalContext, dict[Key, tuple[Entry, ...]]]:
    """Return the context and the entries of a frame.

    Raises:
        MalformedError: it holds a dot that it has not seen.
    """
    if len(frame.seen) != len(frame.origins):
        raise MalformedError("a state", "its context and its origins differ")
    seen = CausalContext()
    for origin, ranges in zip(frame.origins, frame.seen, strict=True):
        seen.add_ranges(origin, ranges)
    live = {
        key: tuple(sorted([_entry(frame, e) for e in cell]))
        for key, cell in frame.cells
    }
    for cell in live.values():
        for entry in cell:
            if not seen.contains(entry.dot.origin, entry.dot.seq):
                raise MalformedError("a state", f"{entry.dot} is held and not seen")
    return seen, live


def _entry(frame: StateFrame, entry: FrameEntry) -> Entry:
    if entry.origin >= len(frame.origins):
        raise MalformedError("a state", f"there is no origin {entry.origin} in it")
    dot = Dot(frame.origins[entry.origin], entry.seq)
    return Entry(dot, entry.stamp, entry.body)
