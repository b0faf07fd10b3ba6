"""What providers told of keys' limits, on any node, so that all nodes keep them.

A node learns from its own answers, and one that asks seldom, or only lends permits to
others, would go on with what was declared.  So each says in a map that all share what
it was told, and of several the newest is taken: a provider that raises a limit tells
it to who asks next.

What is told again is said again after an hour, and what nobody was told for a day is
taken out of the map: there are at most as many entries as each node has limits in use.
Who has believed it goes on believing it.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Annotated

import msgspec

from atomr_infer.policy.limits.rate_permits import Dimension
from atomr_infer.serving.limits.own_entries import OwnEntries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from atomr_infer.serving.node import ServingNode

    Believed = Mapping[Dimension, int]

log = logging.getLogger(__name__)

_MAP = "told limits"

_AHEAD_S = 60.0
"""How far another node's clock may be before this one's."""

_AGAIN_S = 3_600.0
_KEPT_S = 86_400.0
"""How old an entry becomes."""

_OTHERWISE_S = 60.0
"""Two nodes that are told different things of one limit change it no more often."""

_AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]


class Told(msgspec.Struct, frozen=True):
    """What one node was told, as it says it to the others.

    Attributes:
        name: of the limits in the cluster, but for what they count.
        at_s: when that was, in Unix time.
        limits: how much there is in a minute, by what is counted.
    """

    name: str
    at_s: float
    limits: dict[str, _AtLeastOne]


class SharedTold(OwnEntries):
    """A part of a node: says what it was told, and takes what others were."""

    def __init__(
        self, node: ServingNode, take: Callable[[str, Believed], None]
    ) -> None:
        """Share it among a node's peers.

        Args:
            node: whose part it is.
            take: called with what was told last of some limits, on whatever node.
        """
        super().__init__(node, _MAP)
        self._take = take
        self._mine: dict[str, Told] = {}

    def say(self, name: str, believed: Believed) -> None:
        """Tell other nodes what this one was told just now."""
        limits = {dimension.value: most for dimension, most in believed.items()}
        self._mine[name] = Told(name, time.time(), limits)
        self._tell()

    def is_due(self, name: str, *, is_other: bool) -> bool:
        """Whether what this node is told once more is to be said again.

        Args:
            name: of the limits.
            is_other: whether something else is believed, as another node was told.
        """
        told = self._mine.get(name)
        after_s = _OTHERWISE_S if is_other else _AGAIN_S
        return told is None or not 0.0 <= time.time() - told.at_s < after_s

    def leave(self, name: str) -> None:
        """Say no more of limits that this node does not have."""
        if self._mine.pop(name, None) is not None:
            self._is_told = False

    # --- what is said, and what is heard ----------------------------------------------

    def _entries(self) -> Mapping[str, Told]:
        return self._mine

    def _announce(self) -> None:
        self._trim()
        super()._announce()

    def _trim(self) -> None:
        """Say no more what this node was told long ago."""
        for name, told in list(self._mine.items()):
            if time.time() - told.at_s >= _KEPT_S:
                self.leave(name)

    def _follow(self) -> None:
        """Take what is the newest of each."""
        newest: dict[str, Told] = dict(self._mine)
        for _, _, value in self._map.items():
            told = _read(value)
            if told is None:
                continue
            known = newest.get(told.name)
            if known is None or told.at_s > known.at_s:
                newest[told.name] = told
        for name, told in newest.items():
            found = {
                d: told.limits[d.value] for d in Dimension if d.value in told.limits
            }
            self._take(name, found)


def _read(value: object) -> Told | None:
    try:
        told = msgspec.convert(value, Told)
    except msgspec.ValidationError as error:
        log.warning("a node was told limits that make no sense: %s", error)
        return None
    # What is later than all others would stand for ever; nan is later than nothing.
    if 0.0 <= told.at_s <= time.time() + _AHEAD_S:
        return told
    log.warning("a node was told limits at %g s, which is no time yet", told.at_s)
    return None
