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
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
import trio

from atomr.cluster.replicator import NotReplicatingError
from atomr.core.child_spec import ChildSpec
from atomr.process import PlainProcess, receive
from atomr_infer.policy.rate_permits import Dimension

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from atomr.cluster import Peers
    from atomr.http2 import Service
    from atomr_infer.serving.node import ServingNode

    Believed = Mapping[Dimension, int]

log = logging.getLogger(__name__)

_MAP = "told limits"
_LOOK_S = 5.0

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


class SharedTold:
    """A part of a node: says what it was told, and takes what others were."""

    shares_life: ClassVar[bool] = False

    def __init__(
        self, node: ServingNode, take: Callable[[str, Believed], None]
    ) -> None:
        """Share it among a node's peers.

        Args:
            node: whose part it is.
            take: called with what was told last of some limits, on whatever node.
        """
        self._node = node
        self._map = node.replicator.open_owned(_MAP)
        self._take = take
        self._mine: dict[str, Told] = {}
        self._is_told = True
        self._peers: Peers | None = None

    def say(self, name: str, believed: Believed) -> None:
        """Tell other nodes what this one was told just now."""
        limits = {dimension.value: most for dimension, most in believed.items()}
        self._mine[name] = Told(name, time.time(), limits)
        self._is_told = False
        try:
            self._announce()
        except NotReplicatingError:
            return  # the process does it when the replicator is back

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

    # --- as a part of a cluster -------------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages: the replicator's is enough."""
        return {}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        self._peers = peers
        return ChildSpec(id=_MAP, start=lambda: PlainProcess(self.run))

    async def run(self) -> None:
        """Follow what other nodes say; never returns."""
        self._is_told = False
        self._map.subscribe()
        while True:
            self._trim()
            self._announce()
            self._follow()
            with trio.move_on_after(_LOOK_S):
                await receive()

    def _trim(self) -> None:
        """Say no more what this node was told long ago."""
        for name, told in list(self._mine.items()):
            if time.time() - told.at_s >= _KEPT_S:
                self.leave(name)

    def _announce(self) -> None:
        if self._is_told or self._peers is None:
            return
        me, origin = self._node.name, self._peers.origin
        said = {key for key, owner, _ in self._map.items() if owner.name == me}
        mine = {_key(name): told for name, told in self._mine.items()}
        for key in said - mine.keys():
            self._map.remove(key)
        for key, told in mine.items():
            value = msgspec.to_builtins(told)
            if self._map.get(key).get(origin) != value:
                self._map.put(key, value)
        self._is_told = True

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


def _key(name: str) -> str:
    """Return a key of bounded length."""
    return blake2b(name.encode(), digest_size=16).hexdigest()
