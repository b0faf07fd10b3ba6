"""The process that asks the discoveries, again and again, for whom to join by."""

from __future__ import annotations

import logging
from math import isinf
from typing import TYPE_CHECKING

import trio

from atomr import telemetry
from atomr.cluster.discovery.discovery import check_addresses
from atomr.errors import DiscoveryError
from atomr.gossip.membership import SeedsChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr.cluster.discovery.discovery import Discovery
    from atomr.cluster.members.station import Station
    from atomr.gossip.membership.draw import Draw

RETRY_S = 10.0
"""After a failure; sooner where a discovery is asked more often."""

_log = logging.getLogger("atomr.cluster")


async def seek(station: Station) -> None:
    """Ask all discoveries, and tell the membership of the seeds; for ever.

    Cancellation: ends it.
    """
    seeds = Seeds(
        station.known, lambda all_: station.switchboard.members(SeedsChanged(all_))
    )
    async with trio.open_nursery() as nursery:
        for place, discovery in enumerate(station.options.discovery):
            nursery.start_soon(_ask, place, discovery, seeds, station.draw)
        await trio.sleep_forever()


async def _ask(place: int, discovery: Discovery, seeds: Seeds, draw: Draw) -> None:
    interval_s = discovery.interval_s
    while True:
        wait_s = interval_s
        try:
            seeds.found(place, await discovery.find())
        except DiscoveryError as error:
            seeds.failed(place, str(error))
            wait_s = min(interval_s, RETRY_S)
        except Exception as error:  # noqa: BLE001 - a boundary: somebody's own
            _log.exception("discovery %r failed", discovery)
            seeds.failed(place, repr(error))
            wait_s = min(interval_s, RETRY_S)
        if isinf(wait_s):
            return
        # Nodes that start together shall not ask together for ever.
        await trio.sleep(wait_s * (0.9 + 0.2 * draw.random()))


class Seeds:
    """What all discoveries have found; an answer holds until there is another one."""

    def __init__(
        self, known: Sequence[str], changed: Callable[[tuple[str, ...]], None]
    ) -> None:
        """Start with what is known.

        Args:
            known: addresses beside those that are found.
            changed: called with all, whenever they are others than before.
        """
        self._known = tuple(known)
        self._changed = changed
        self._found: dict[int, tuple[str, ...]] = {}
        self._failures: dict[int, str] = {}
        self._refused: frozenset[str] = frozenset()
        self._told: tuple[str, ...] = self._known

    def found(self, place: int, addresses: Sequence[str]) -> None:
        """Take an answer."""
        good = tuple(text for text in addresses if self._is_good(text))
        if self._failures.pop(place, None) is not None:
            _log.info("discovery %d answers again", place)
        self._found[place] = good
        by_place = (self._found[place] for place in sorted(self._found))
        every = (*self._known, *(text for found in by_place for text in found))
        now = tuple(dict.fromkeys(every))
        if now != self._told:
            self._told = now
            self._changed(now)

    def failed(self, place: int, problem: str) -> None:
        """Take that there was none; said once, until it is another problem."""
        telemetry.emit(
            ("atomr", "discovery", "failed"),
            metadata={"place": place, "problem": problem},
        )
        if self._failures.get(place) != problem:
            self._failures[place] = problem
            _log.warning("%s; its last answer holds", problem)

    def _is_good(self, text: str) -> bool:
        try:
            check_addresses((text,))
        except ValueError as error:
            if text not in self._refused:
                self._refused |= {text}
                _log.warning("a discovery has found what cannot be dialed: %s", error)
            return False
        return True
