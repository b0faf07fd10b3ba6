"""What each node's file says of teams and budgets: it has to be the same on all.

A limit or a budget is kept by all nodes together, and each takes its terms from its
own file.  So each says in a map that all share what its file says, and every node can
tell an operator what does not agree.

A file is said whole: beside the pieces stands a digest of all of them, and what
another node says is compared once the pieces that have come are those of its digest.
"""

from __future__ import annotations

import logging
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import trio

from atomr.cluster.replicator import NotReplicatingError
from atomr.core.child_spec import ChildSpec
from atomr.process import PlainProcess, receive, self_pid, send
from atomr_infer.config.differences import NOTHING, said
from atomr_infer.model.budget import budgets_by_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from atomr.cluster import Peers
    from atomr.http2 import Service
    from atomr.refs import Pid
    from atomr_infer.model.budget import OwnedBudget
    from atomr_infer.model.team import Team
    from atomr_infer.serving.node import ServingNode

log = logging.getLogger(__name__)

_MAP = "terms in files"
_LOOK_S = 5.0
_GATHER_S = 2.0
"""A reload reaches the nodes one after the other; what lasts longer is told."""


class Agreement:
    """A part of a node: says what its file says, and what others' say differently."""

    shares_life: ClassVar[bool] = False

    def __init__(self, node: ServingNode) -> None:
        self._node = node
        self._map = node.replicator.open_owned(_MAP)
        self._mine: dict[str, dict[str, str]] = {}
        self._is_taken = False
        self._pid: Pid | None = None
        self._told: frozenset[str] = frozenset()

    def take_teams(self, teams: Iterable[Team]) -> None:
        """Take the teams of this node's file, in place of those from before."""
        self._take("team", {team.name: said(team) for team in teams})

    def take_budgets(self, owned: Iterable[OwnedBudget]) -> None:
        """Take the budgets of this node's file, in place of those from before."""
        by_name = budgets_by_name(owned)
        self._take("budget of", {name: said(each) for name, each in by_name.items()})

    def _take(self, what: str, terms: Mapping[str, dict[str, str]]) -> None:
        kept = {k: v for k, v in self._mine.items() if not k.startswith(f"{what} ")}
        self._mine = {
            **kept,
            **{f"{what} {name}": each for name, each in terms.items()},
        }
        self._is_taken = True
        if self._pid is not None:
            # Not in place: what else the file says is taken before the process runs.
            send(self._pid, _TAKEN)

    def problems(self) -> tuple[str, ...]:
        """Return what does not agree, one sentence each.

        A node that has no configuration, and one that is out of sight, differs from
        nobody.
        """
        if not self._is_taken or self._node.is_alone:
            return ()
        try:
            return tuple(self._differences())
        except NotReplicatingError:
            return ()

    def _differences(self) -> Iterator[str]:
        theirs: dict[str, dict[str, Any]] = {}
        for key, owner, value in self._map.items():
            theirs.setdefault(owner.name, {})[str(key)] = value
        theirs.pop(self._node.name, None)
        mine = self._mine
        for node, terms in sorted(theirs.items()):
            if terms.pop(_WHOLE, None) != _digest(terms):
                continue  # it has said more than has come, or less
            for name in sorted(mine.keys() | terms.keys()):
                yield from _differ(name, mine.get(name), node, terms.get(name))

    # --- as a part of a cluster -------------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages: the replicator's is enough."""
        return {}

    def child(self, _: Peers) -> ChildSpec:
        """Return how its process is started."""
        return ChildSpec(id=_MAP, start=lambda: PlainProcess(self.run))

    async def run(self) -> None:
        """Say it again where it was lost, and log what does not agree; no return."""
        self._pid = self_pid()
        self._map.subscribe()
        while True:
            self._announce()
            new = self._told != frozenset(self.problems())
            with trio.move_on_after(_GATHER_S if new else _LOOK_S):
                await receive()
                continue
            self._tell(frozenset(self.problems()))

    def _tell(self, found: frozenset[str]) -> None:
        for problem in sorted(found - self._told):
            log.warning("%s", problem)
        self._told = found

    def _announce(self) -> None:
        if not self._is_taken:
            return
        me = self._node.name
        there = {k: v for k, owner, v in self._map.items() if owner.name == me}
        wanted: dict[str, object] = {_WHOLE: _digest(self._mine), **self._mine}
        for key in there.keys() - wanted.keys():
            self._map.remove(key)
        for key, terms in wanted.items():
            if there.get(key) != terms:
                self._map.put(key, terms)


_TAKEN = "the file is taken"
"""What the process is told when it has something else to say."""

_WHOLE = ""
"""The key of the digest: there even where a file has neither teams nor budgets."""


def _digest(terms: Mapping[str, object]) -> bytes:
    """Return a digest of all that a file says."""
    encoded = msgspec.msgpack.encode(terms, order="deterministic")
    return blake2b(encoded, digest_size=16).digest()


def _differ(name: str, mine: Any, node: str, theirs: Any) -> Iterator[str]:  # noqa: ANN401 - of any version
    if mine == theirs:
        return
    if not isinstance(mine, dict):
        yield f"{name}: is in the file of {node}, and not in the one here"
    elif not isinstance(theirs, dict):
        yield f"{name}: is in the file here, and not in that of {node}"
    else:
        for field in sorted(mine.keys() | theirs.keys()):
            here, there = mine.get(field, NOTHING), theirs.get(field, NOTHING)
            if here != there:
                yield f"{name}: {field} is {here} here, and {there} on {node}"
