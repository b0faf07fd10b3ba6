"""The swaps of all nodes, as this one reads and writes them.

Everything is read in place, from maps that all nodes share.  While the replicator is
away nothing is known, and what is written is lost: who leads a swap writes it again.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec

from atomr.cluster.replicator import NotReplicatingError
from atomr_infer.policy.lifecycle.hot_swap import Tally
from atomr_infer.serving.placing.records import from_plain, to_plain
from atomr_infer.serving.swapping.records import COUNTS, ENDS, SWAPS, SwapRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from atomr.cluster.replicator import Replicator
    from atomr.crdt import Origin

log = logging.getLogger(__name__)

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Counted = tuple[_Count, _Count]


class SwapBoard:
    """What is known of swaps."""

    def __init__(self, replicator: Replicator) -> None:
        self._swaps = replicator.open_map(SWAPS)
        self._counts = replicator.open_owned(COUNTS)
        self._ends = replicator.open_map(ENDS)

    def subscribe(self) -> None:
        """Let the running process have a message for what is new.

        Raises:
            NotReplicatingError: the replicator does not run.
        """
        self._swaps.subscribe()
        self._ends.subscribe()

    def records(self) -> dict[str, SwapRecord]:
        """Return the last swap of each deployment, by name."""
        found: dict[str, SwapRecord] = {}
        with _at_rest():
            for name, value in self._swaps.items():
                record = from_plain(SwapRecord, value, of=f"a swap of {name}")
                if record is not None:
                    found[str(name)] = record
        return found

    def put(self, name: str, record: SwapRecord) -> None:
        """Have all nodes know how a swap stands, where they do not.

        Who would have led it on needs what was served before; nobody does at its end.
        """
        if record.has_ended:
            record = msgspec.structs.replace(record, before={}, asked=())
        if self.records().get(name) != record:
            with _at_rest():
                self._swaps.put(name, to_plain(record))

    def remove(self, name: str, swap_id: str) -> None:
        """Have all nodes forget a swap, if it is the last one of its deployment."""
        record = self.records().get(name)
        if record is not None and record.id == swap_id:
            with _at_rest():
                self._swaps.remove(name)

    def tallies(self, swap_id: str) -> Mapping[Origin, Tally]:
        """Return what each node has counted of a swap, since it began."""
        found: dict[Origin, Tally] = {}
        with _at_rest():
            for owner, counted in self._counts.get(swap_id).items():
                tally = _tally(counted)
                if tally is None:
                    log.warning("%s counts what is no count: %.80r", owner, counted)
                else:
                    found[owner] = tally
        return found

    def count(self, swap_id: str, tally: Tally) -> None:
        """Tell what this node has counted."""
        with _at_rest():
            self._counts.put(swap_id, [tally.requests, tally.failures])

    def forget(self, swap_id: str) -> None:
        """Take back what this node has counted: the swap has ended."""
        with _at_rest():
            self._counts.remove(swap_id)

    def end(self, name: str, swap_id: str) -> None:
        """Have whoever leads a swap go back."""
        with _at_rest():
            self._ends.put(name, swap_id)

    def trim_ends(self, running: Collection[str]) -> None:
        """Forget who is to go back, but for swaps that run, by their ids."""
        with _at_rest():
            for name, swap_id in list(self._ends.items()):
                if swap_id not in running:
                    self._ends.remove(name)

    def is_ended(self, name: str, swap_id: str) -> bool:
        """Whether somebody has said so."""
        found = None
        with _at_rest():
            found = self._ends.get(name)
        return bool(found == swap_id)


def _tally(counted: object) -> Tally | None:
    """Return what a node has counted; None: no node of ours writes such a thing."""
    try:
        requests, failures = msgspec.convert(counted, _Counted)
    except msgspec.ValidationError:
        return None
    return Tally(requests, failures)


@contextmanager
def _at_rest() -> Iterator[None]:
    """Take it calmly when the replicator is away: it comes back with what it had."""
    try:
        yield
    except NotReplicatingError:
        log.info("the replicator is away; swaps are looked at when it is back")
