"""The join of one key's entries: the rule that everything else stands on.

=====================  =======================================================
held by both           it stays
held by one only       it stays, unless the other has seen its dot: then the
                       other knows that it was killed
=====================  =======================================================

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr.crdt.causal_context import CausalContext
    from atomr.crdt.wire import Entry


def joined_cell(
    mine: tuple[Entry, ...],
    theirs: tuple[Entry, ...],
    seen: CausalContext,
    their_seen: CausalContext,
) -> tuple[Entry, ...]:
    """Return what is held by both, or by one and not seen by the other."""
    if not mine and len(theirs) == 1:
        dot = theirs[0].dot
        return () if seen.contains(dot.origin, dot.seq) else theirs
    held = {entry.dot: entry for entry in mine}
    joined = []
    for entry in theirs:
        own = held.pop(entry.dot, None)
        if own is not None:
            # A dot is one entry; should a peer say otherwise, all say the same.
            joined.append(max(own, entry))
        elif not seen.contains(entry.dot.origin, entry.dot.seq):
            joined.append(entry)
    joined += [
        entry
        for entry in held.values()
        if not their_seen.contains(entry.dot.origin, entry.dot.seq)
    ]
    return tuple(sorted(joined))
