"""The deployments of a cluster, as this node reads and writes them.

Everything is read in place, from maps that all nodes share; what is written here is
known to the others some milliseconds later.

A node that is out of sight takes what it has said out of the maps.  It is remembered
here until the node has been away for ``replace_after_s``: its replicas are taken to
run, and nothing is moved for a cable that is pulled, or for a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.serving.placing.picture import Picture, understood
from atomr_infer.serving.placing.records import (
    DECLARED,
    DEPLOYMENTS,
    HERE,
    NODES,
    PLACEMENTS,
    Claim,
    Entry,
    Facts,
    from_plain,
    is_outdated,
    revised,
    still_rivals,
    to_plain,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr.cluster.replicator import OwnedHandle, Replicator
    from atomr_infer.serving.placing.picture import Known


@attrs.define
class _Seen:
    """What a node has said last.

    Attributes:
        facts: what it is.
        claims: of its shares, by deployment.
        lost_at: since when it is out of sight; None: it is not.
    """

    facts: Facts
    claims: dict[str, Claim]
    lost_at: float | None = None


class Catalogue:
    """All deployments, and what each node says of its shares."""

    def __init__(
        self, replicator: Replicator, *, me: str, replace_after_s: float
    ) -> None:
        """Read and write a node's replicated maps.

        Args:
            replicator: has them.
            me: the node's name.
            replace_after_s: how long another node is counted on that is out of
                sight, in seconds.
        """
        self.me = me
        self.replace_after_s = replace_after_s
        self._deployments = replicator.open_map(DEPLOYMENTS)
        self._nodes = replicator.open_owned(NODES)
        self._placements = replicator.open_owned(PLACEMENTS)
        self._declared = replicator.open_owned(DECLARED)
        self._understood: dict[str, Known] = {}
        self._seen: dict[str, _Seen] = {}

    def subscribe(self) -> None:
        """Let the running process have a message for whatever changes.

        Raises:
            NotReplicatingError: the replicator does not run.
        """
        self._deployments.subscribe()
        self._nodes.subscribe()
        self._placements.subscribe()
        self._declared.subscribe()

    # --- reading ------------------------------------------------------------------

    def draw(self, now: float) -> Picture:
        """Return what is known at this moment.

        Args:
            now: trio's clock.

        Raises:
            NotReplicatingError: the replicator does not run.
        """
        self._look(now)
        claims: dict[str, dict[str, Claim]] = {}
        for node, seen in self._seen.items():
            for name, claim in seen.claims.items():
                claims.setdefault(name, {})[node] = claim
        return Picture(
            me=self.me,
            catalogue=self._all(),
            facts={node: seen.facts for node, seen in self._seen.items()},
            claims=claims,
            away=frozenset(n for n, s in self._seen.items() if s.lost_at is not None),
            declared=self._by_node(self._declared),
        )

    def entry(self, name: str) -> Entry | None:
        """Return the entry of a deployment; None: there is none.

        Of several that were put at once the last one counts, as all nodes know; but
        where that is the old file of a node that started, what the others had gone on
        to does.
        """
        rivals = self._rivals(name)
        if len(rivals) > 1:
            last = from_plain(Entry, self._deployments.get(name), of=name)
            if last in rivals:
                return last
        return max(rivals, key=_on_all_the_same, default=None)

    def _rivals(self, name: str) -> list[Entry]:
        values = self._deployments.conflicts(name)
        entries = [from_plain(Entry, value, of=name) for value in values]
        return still_rivals(entry for entry in entries if entry is not None)

    def _all(self) -> dict[str, Known]:
        found: dict[str, Known] = {}
        # In the order of names: the map's own is another one on each node.
        for name in sorted(map(str, self._deployments)):
            entry = self.entry(name)
            if entry is None:
                continue
            known = self._understood.get(entry.digest)
            if known is None or known.entry != entry:
                known = understood(entry)
            found[name] = known
        self._understood = {known.entry.digest: known for known in found.values()}
        return found

    def _look(self, now: float) -> None:
        facts = dict(self._facts())
        claims: dict[str, dict[str, Claim]] = {node: {} for node in facts}
        for name, owner, value in self._placements.items():
            claim = from_plain(Claim, value, of=str(name))
            if claim is not None and owner.name in claims:
                claims[owner.name][str(name)] = claim
        for node, seen in list(self._seen.items()):
            if node in facts:
                continue
            if seen.lost_at is None:
                seen.lost_at = now
            if now - seen.lost_at >= self.replace_after_s:
                del self._seen[node]
        for node, fact in facts.items():
            self._seen[node] = _Seen(fact, claims[node])

    def _facts(self) -> Iterator[tuple[str, Facts]]:
        for owner, value in self._nodes.get(HERE).items():
            facts = from_plain(Facts, value, of=f"node {owner.name}")
            if facts is not None:
                yield owner.name, facts

    def _by_node(self, owned: OwnedHandle) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name, owner, value in owned.items():
            found.setdefault(str(name), {})[owner.name] = value
        return found

    # --- writing ------------------------------------------------------------------

    def tell(self, facts: Facts) -> None:
        """Say what this node is, where that is not said already."""
        if dict(self._facts()).get(self.me) != facts:
            self._nodes.put(HERE, to_plain(facts))

    def claim(self, name: str, claim: Claim | None) -> None:
        """Say what this node's share of a deployment is; None: it has none."""
        if claim is None:
            self._placements.remove(name)
        else:
            self._placements.put(name, to_plain(claim))

    def put(
        self, table: dict[str, Any], *, remote: bool, at_start: bool = False
    ) -> Entry | None:
        """Have a deployment served as its table says; None: it is so already.

        Args:
            table: the deployment's.
            remote: whether its runtime asks a provider.
            at_start: whether this node has just started, with a file that says it.
        """
        name: str = table["name"]
        now = self.entry(name)
        entry = revised(now, table, remote=remote, by=self.me, at_start=at_start)
        if entry is not None:
            self._deployments.put(name, to_plain(entry))
        return entry

    def remove(self, name: str) -> bool:
        """Have a deployment served no more; False: it is not."""
        if name not in self._deployments:
            return False
        self._deployments.remove(name)
        return True

    def declare(self, name: str, digest: str) -> bool:
        """Say that a deployment stands in this node's file.

        Returns:
            Whether it is to be put: it is not when all have gone on from it.
        """
        mine = self._my_declared(name)
        if mine != digest:
            self._declared.put(name, digest)
        entry = self.entry(name)
        if mine is None:
            return not is_outdated(entry, digest)
        return mine != digest

    def undeclare(self, name: str) -> bool:
        """Say that it stands there no more; returns whether it stands in no other."""
        self._declared.remove(name)
        return not [o for o in self._declared.owners(name) if o.name != self.me]

    def my_declared(self) -> set[str]:
        """Return the names that stand in this node's file."""
        return {
            str(name)
            for name, owner, _ in self._declared.items()
            if owner.name == self.me
        }

    def _my_declared(self, name: str) -> str | None:
        found = self._declared.get(name)
        return next((d for o, d in found.items() if o.name == self.me), None)

    def conflicts(self, name: str) -> int:
        """Return how many other deployments were put at the same moment.

        An old file is none of them: it is told as the file of its node.
        """
        # Nodes with the same file put the same, each in its own name.
        digests = {entry.digest for entry in self._rivals(name)}
        return max(0, len(digests) - 1)


def _on_all_the_same(entry: Entry) -> tuple[int, str, str]:
    """Return what orders entries alike on all nodes."""
    return entry.revision, entry.digest, entry.by
