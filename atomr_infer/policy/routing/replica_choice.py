"""Who takes the next request: which replica, and which deployment of a group.

A replica that has failed this request already comes last, then those that cannot run
now, then those without a free place, beside those whose engine a request would wake;
among equals the policy decides.  Going to
another node costs a hop, and its load is known a moment late: one of this node is
taken as long as it has not clearly more to do.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import attrs

from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.routing import Routing
from atomr_infer.policy.estimates.token_estimate import (
    estimate_input_tokens,
    estimate_prompt_tokens,
)
from atomr_infer.policy.routing.affinity import ReadPrefixes, rendezvous

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from atomr_infer.model.batch import ExecuteBatch

_BYTES_PER_TOKEN = 4
_ANSWER_TOKENS = 256


class Load(Protocol):
    """What the choice looks at."""

    @property
    def ready(self) -> bool:
        """True when its engine can run now."""
        ...

    @property
    def asleep(self) -> bool:
        """True when a request would have its engine started."""
        ...

    @property
    def outstanding(self) -> int:
        """Requests running and waiting."""
        ...

    @property
    def tokens(self) -> int:
        """About how many tokens these have, prompts and answers."""
        ...

    @property
    def limit(self) -> int:
        """How many it runs at once."""
        ...

    @property
    def first_s(self) -> float:
        """Seconds to the first words of late; 0: nobody knows."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether it is on this node."""
        ...

    @property
    def label(self) -> str:
        """Its node and number: the same on all nodes."""
        ...


R = TypeVar("R", bound=Load)


@attrs.frozen(kw_only=True)
class Wanted:
    """What of a request matters to the choice.

    Attributes:
        tokens: about how many it has, prompt and answer.
        session: names its conversation; None: nothing does.
        blocks: the hashes of its prompt's blocks.
    """

    tokens: int = 1
    session: bytes | None = None
    blocks: tuple[bytes, ...] = ()


@attrs.frozen
class Choice(Generic[R]):
    """A replica, and why this one.

    Attributes:
        replica: the one.
        reason: in a word or two.
        candidates: how many there were.
    """

    replica: R
    reason: str
    candidates: int


@attrs.frozen(kw_only=True)
class Chooser:
    """A policy, with what it needs to know.

    Attributes:
        routing: the policy.
        local_margin: by what share the work of this node's replicas may exceed that
            of another node's before a request goes there.
        prefixes: who has read what, for ``prefix``.
    """

    routing: Routing
    local_margin: float
    prefixes: ReadPrefixes

    def choose(
        self,
        replicas: Collection[R],
        avoid: frozenset[R],
        wanted: Wanted,
        *,
        random: Callable[[], float],
    ) -> Choice[R] | None:
        """Return the replica that takes a request; None: there is none at all.

        Args:
            replicas: all that can be asked.
            avoid: those that this request has failed on.
            wanted: the request.
            random: gives numbers in [0, 1).
        """
        best = min((_standing(r, avoid) for r in replicas), default=None)
        if best is None:
            return None
        able = [r for r in replicas if _standing(r, avoid) == best]
        if len(able) == 1:
            reason = "only" if len(replicas) == 1 else "only_free"
            return Choice(able[0], reason, len(replicas))
        chosen, reason = self._by_policy(able, wanted, random)
        return Choice(chosen, reason, len(replicas))

    def _by_policy(
        self, able: list[R], wanted: Wanted, random: Callable[[], float]
    ) -> tuple[R, str]:
        if self.routing is Routing.SESSION and wanted.session is not None:
            return _preferred(wanted.session, able), "session"
        if self.routing is Routing.PREFIX and wanted.blocks:
            return self._by_prefix(able, wanted)
        if self.routing is Routing.TWO_CHOICES:
            able = _two_of(able, random)
        by = Routing.LEAST_TOKENS if needs_request(self.routing) else self.routing
        return self._least(able, wanted), by.value

    def _by_prefix(self, able: list[R], wanted: Wanted) -> tuple[R, str]:
        least = self._least(able, wanted)
        _, owners = self.prefixes.longest(wanted.blocks)
        by_label = {replica.label: replica for replica in able}
        known = next((by_label[o] for o in owners if o in by_label), None)
        reason = "prefix"
        if known is None:
            # All nodes send the first of a kind to the same one.
            known, reason = _preferred(wanted.blocks[0], able), "prefix_new"
        if self._is_worse(known, least, wanted):
            return least, "prefix_busy"
        return known, reason

    def _least(self, able: Collection[R], wanted: Wanted) -> R:
        measure = self._measure
        local = [replica for replica in able if replica.is_local]
        others = [replica for replica in able if not replica.is_local]
        by_work = _by(measure)
        if not local:
            return min(others, key=by_work)
        here = min(local, key=by_work)
        if not others:
            return here
        there = min(others, key=by_work)
        return there if self._is_worse(here, there, wanted) else here

    def _is_worse(self, one: R, other: R, wanted: Wanted) -> bool:
        """Whether one has so much more to do that the other is worth the way."""
        own = wanted.tokens if self._counts_tokens else 1
        if self.routing is Routing.FASTEST:
            own = 0
        most = (self._measure(other) + own) * (1 + self.local_margin)
        return self._measure(one) > most

    @property
    def _counts_tokens(self) -> bool:
        return self.routing not in (Routing.LEAST_REQUESTS, Routing.TWO_CHOICES)

    def _measure(self, replica: Load) -> float:
        match self.routing:
            case Routing.LEAST_REQUESTS | Routing.TWO_CHOICES:
                return replica.outstanding
            case Routing.FASTEST:
                return replica.first_s * (replica.outstanding + 1)
            case Routing.WEIGHTED:
                return replica.tokens / max(replica.limit, 1)
            case _:
                return replica.tokens


def size_of(batch: ExecuteBatch) -> int:
    """Return about how many tokens a request has, prompt and answer.

    For comparing the work of replicas only; what was not said is guessed.
    """
    source = batch.source
    if source is not None:
        prompt = len(source.body) // _BYTES_PER_TOKEN
    else:
        prompt = estimate_prompt_tokens(batch)
    sampling = batch.sampling
    return prompt + (sampling.max_tokens or _ANSWER_TOKENS) * sampling.n


def cost_of_turn(batch: ExecuteBatch, whole: object) -> int:
    """Return about how many tokens a request has that waits for its turn, at least 1.

    Args:
        batch: the request, as far as it generates.
        whole: what is asked instead; texts to embed are counted.
    """
    if not isinstance(whole, EmbedRequest):
        return max(1, size_of(batch))
    query = 0 if whole.query is None else estimate_input_tokens(whole.query)
    return max(1, sum(query + estimate_input_tokens(text) for text in whole.inputs))


def needs_request(routing: Routing) -> bool:
    """Whether a policy looks at more of a request than its size."""
    return routing in (Routing.SESSION, Routing.PREFIX)


def _by(measure: Callable[[Load], float]) -> Callable[[Load], tuple[float, int]]:
    return lambda replica: (measure(replica), replica.outstanding)


def _standing(replica: R, avoid: frozenset[R]) -> tuple[bool, bool, bool]:
    """Return what is wrong with a replica, the worst first."""
    asleep = replica.asleep
    is_full = asleep or replica.outstanding >= replica.limit
    return (replica in avoid, not (replica.ready or asleep), is_full)


def _preferred(key: bytes, able: list[R]) -> R:
    by_label = {replica.label: replica for replica in able}
    return by_label[rendezvous(key, by_label)[0]]


def _two_of(able: list[R], random: Callable[[], float]) -> list[R]:
    first = int(random() * len(able))
    second = (first + 1 + int(random() * (len(able) - 1))) % len(able)
    return [able[first], able[second]]


@attrs.frozen(kw_only=True)
class Member:
    """What is known of one deployment of a group.

    Attributes:
        name: the deployment's.
        usable: False while its circuit is open, or none of its engines runs.
        outstanding: the work of its least loaded replica.
        turn: when it was chosen last; a higher number is later.
        weight: its share of the group's requests, beside the others' weights.
        is_full: True while a rate limit would keep the request waiting.
    """

    name: str
    usable: bool
    outstanding: int
    turn: int
    weight: float = 1.0
    is_full: bool = False


def next_member(members: Collection[Member], owed: dict[str, float]) -> str:
    """Return the deployment that a group's next request goes to.

    Of equal weights the one with the least work; equals take turns.  Where weights
    differ they say who gets which share of the requests, whatever the work is.  One
    that is full now is chosen when all are so, of those that can be used.  One that
    cannot be used now is chosen when all are so, and one of weight 0 when all others
    cannot be used.

    Args:
        members: at least one.
        owed: how much of its share each one lacks; it is changed.

    >>> busy = Member(name="a", usable=True, outstanding=2, turn=1)
    >>> next_member([busy, attrs.evolve(busy, name="b", outstanding=0, turn=9)], {})
    'b'
    >>> few = attrs.evolve(busy, name="few", weight=1)
    >>> many, owed = attrs.evolve(busy, name="many", weight=3), {}
    >>> [next_member([few, many], owed) for _ in range(8)].count("few")
    2
    """
    usable = [member for member in members if member.usable] or members
    able = [member for member in usable if member.weight] or usable
    able = [member for member in able if not member.is_full] or able
    if len({member.weight for member in able}) == 1:
        return min(able, key=lambda m: (m.outstanding, m.turn)).name
    for member in able:
        owed[member.name] = owed.get(member.name, 0.0) + member.weight
    chosen = max(able, key=lambda m: owed[m.name])
    owed[chosen.name] -= sum(member.weight for member in able)
    return chosen.name
