"""Which member of a pool is asked, and which is left alone for a while.

::

    SERVES ──fails too often──▶ EJECTED ──its rest is over──▶ ON_TRIAL
       ▲                           ▲                            │   │
       │                           └───────── it fails ─────────┘   │
       └─────────────────────────── it answers ─────────────────────┘

A member on trial has one request at a time.  One that fails on trial rests again, for
one ``rest_s`` more than the last time, up to ``max_rest_s``; as many times ``rest_s``
without a failure take one back.  What was asked before an ejection says nothing after
it: an outcome carries the *life* of the member in which it was asked.

No more than ``most`` of the members rest at once, and never all.

Pure: ``now`` and the random numbers are arguments.

Source: Envoy, "Outlier detection", for what ejects and for how long; Mitzenmacher,
"The Power of Two Choices in Randomized Load Balancing"; nginx for the smooth weighted
round robin.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import (
    CircuitOpenError,
    ConfigError,
    InferenceError,
    ModelNotFoundError,
    NodeLostError,
    NotReadyError,
    UpstreamAuthError,
)
from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    non_empty,
    not_negative,
    positive,
)
from atomr_infer.pipeline.asking.options import from_table, one_of, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def _share(_: object, field: attrs.Attribute[float], value: float) -> None:
    not_negative(_, field, value)
    if value > 1:
        raise InvalidValueError(field.name, value, "is a share; it must be at most 1")


@attrs.frozen(kw_only=True)
class PoolMember:
    """Who may be asked.

    Attributes:
        model: the public name.
        weight: the share of the requests, beside the others' weights.
    """

    model: str = attrs.field(validator=non_empty)
    weight: float = attrs.field(default=1.0, validator=positive)


@attrs.frozen(kw_only=True)
class Ejection:
    """When a member is left alone, and for how long.

    Attributes:
        failures: so many in a row eject it; 0: none do.
        failed_share: what share of its last requests must fail to eject it; 1: only
            if all do.
        of_last: how many requests that share is of; fewer do not eject it.
        rest_s: how long it is left alone the first time; each time after another,
            as much longer.
        max_rest_s: the longest rest.
        most: what share of the members may rest at once.
    """

    failures: int = attrs.field(default=5, validator=at_least(0))
    failed_share: float = attrs.field(default=0.5, validator=[positive, _share])
    of_last: int = attrs.field(default=20, validator=at_least(1))
    rest_s: float = attrs.field(default=30.0, validator=positive)
    max_rest_s: float = attrs.field(default=300.0, validator=positive)
    most: float = attrs.field(default=0.5, validator=_share)


def _members(given: object) -> tuple[PoolMember, ...]:
    return tables(PoolMember, given, where="members")


def _ejection(given: object) -> Ejection:
    return from_table(Ejection, given, where="ejection")


@attrs.frozen(kw_only=True)
class PoolOptions:
    """Deployments that answer for each other.

    Attributes:
        members: at least one; each a table, or a model's name.
        policy: ``least_loaded``: who has the fewest requests of the pool under way,
            by weight; ``two_choices``: the better one of two that are drawn;
            ``round_robin``: by turns.
        attempts: how many members are asked for one request, until one answers.
        ejection: when a member is left alone.
    """

    members: tuple[PoolMember, ...] = attrs.field(converter=_members)
    policy: str = attrs.field(
        default="least_loaded",
        validator=one_of("least_loaded", "two_choices", "round_robin"),
    )
    attempts: int = attrs.field(default=2, validator=at_least(1))
    ejection: Ejection = attrs.field(factory=Ejection, converter=_ejection)

    def __attrs_post_init__(self) -> None:
        if not self.members:
            raise ConfigError("members: there must be one at least")
        if len(self.asks()) < len(self.members):
            raise ConfigError("members: one is named twice; give it a weight instead")

    def asks(self) -> tuple[str, ...]:
        """The models that may be asked, each once."""
        return tuple(dict.fromkeys(member.model for member in self.members))


class Standing(Enum):
    """What is thought of a member."""

    SERVES = "serves"
    EJECTED = "ejected"
    ON_TRIAL = "on trial"


class Ended(Enum):
    """What a request says of the member that was asked."""

    ANSWERED = "answered"
    FAILED = "failed"
    UNKNOWN = "unknown"


_SERVES_NOBODY = (
    CircuitOpenError,
    ModelNotFoundError,  # it was taken away
    NodeLostError,
    NotReadyError,
    UpstreamAuthError,
)


def ended_by(error: InferenceError) -> Ended:
    """Return what an error says of who was asked.

    A member that has no room, or a limit, is well; a request that it refuses shows
    that it is.
    """
    if error.breaker_failure or isinstance(error, _SERVES_NOBODY):
        return Ended.FAILED
    return Ended.UNKNOWN if error.status is None else Ended.ANSWERED


@attrs.frozen(eq=False)
class Asked:
    """A request at a member; report how it ended.

    Attributes:
        model: whom it asks.
        number: the member's.
        life: the member's when it was asked.
    """

    model: str
    number: int
    life: int


@attrs.frozen
class Ejected:
    """News of a member that is left alone.

    Attributes:
        model: who.
        rest_s: for how long.
        why: in words.
    """

    model: str
    rest_s: float
    why: str


@attrs.define(eq=False)
class _Member:
    """What is known of a member.

    Attributes:
        config: the member.
        number: its place among them.
        standing: what is thought of it.
        life: how often that has changed.
        outstanding: its requests that are under way.
        owed: what it lacks of its share of turns.
        failures: how many there were in a row.
        last: which of its last requests failed.
        until: when its rest is over.
        rests: how many times ``rest_s`` its last rest was.
        calm_since: since when it has been well.
    """

    config: PoolMember
    number: int
    last: deque[bool]
    standing: Standing = Standing.SERVES
    life: int = 0
    outstanding: int = 0
    owed: float = 0.0
    failures: int = 0
    until: float = 0.0
    rests: int = 0
    calm_since: float = 0.0

    def becomes(self, standing: Standing) -> None:
        """Begin another life, of which nothing is known."""
        self.standing = standing
        self.life += 1
        self.failures = 0
        self.last.clear()

    @property
    def load(self) -> float:
        """What it would have to do with one request more, by its weight."""
        return (self.outstanding + 1) / self.config.weight

    @property
    def is_able(self) -> bool:
        """Whether it may be asked now."""
        if self.standing is Standing.ON_TRIAL:
            return not self.outstanding
        return self.standing is Standing.SERVES


class Pool:
    """The members, and what their requests have said of them."""

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._rules = options.ejection
        self._members = [
            _Member(config, number, deque(maxlen=options.ejection.of_last))
            for number, config in enumerate(options.members)
        ]

    def standings(self, now: float) -> dict[str, Standing]:
        """What is thought of each member."""
        self._wake(now)
        return {member.config.model: member.standing for member in self._members}

    def take(
        self,
        now: float,
        *,
        tried: Collection[str] = (),
        random: Callable[[], float],
    ) -> Asked | None:
        """Return who is asked; None: all were tried.  Tell :meth:`ended` at its end.

        Where nobody may be asked, whose rest is over first is, all the same.

        Args:
            now: monotonic seconds.
            tried: the members that this request has failed at.
            random: gives numbers in [0, 1).
        """
        self._wake(now)
        left = [each for each in self._members if each.config.model not in tried]
        if not left:
            return None
        able = [member for member in left if member.is_able]
        if able:
            member = self._choose(able, random)
        else:
            member = min(left, key=lambda each: (each.until, each.load))
        member.outstanding += 1
        return Asked(member.config.model, member.number, member.life)

    def _wake(self, now: float) -> None:
        for member in self._members:
            if member.standing is Standing.EJECTED and member.until <= now:
                member.becomes(Standing.ON_TRIAL)

    def _choose(self, able: list[_Member], random: Callable[[], float]) -> _Member:
        if self._options.policy == "round_robin":
            return _next_turn(able)
        if self._options.policy == "two_choices" and len(able) > 2:
            first = int(random() * len(able))
            second = (first + 1 + int(random() * (len(able) - 1))) % len(able)
            able = [able[first], able[second]]
        least = min(member.load for member in able)
        # Equals take turns: else the first one had all of a quiet hour.
        return _next_turn([member for member in able if member.load == least])

    def ended(self, asked: Asked, ended: Ended, now: float) -> Ejected | None:
        """Note how a request ended; return the news that its member is ejected."""
        member = self._members[asked.number]
        member.outstanding -= 1
        if ended is Ended.UNKNOWN or asked.life != member.life:
            return None
        if member.standing is Standing.EJECTED:
            return None  # it was asked as there was nobody else
        failed = ended is Ended.FAILED
        member.failures = member.failures + 1 if failed else 0
        member.last.append(failed)
        if failed:
            why = self._too_often(member)
            return None if why is None else self._eject(member, why, now)
        if member.standing is Standing.ON_TRIAL:
            member.becomes(Standing.SERVES)
            member.calm_since = now
        return None

    def _too_often(self, member: _Member) -> str | None:
        rules = self._rules
        if member.standing is Standing.ON_TRIAL:
            return "it failed on trial"
        if rules.failures and member.failures >= rules.failures:
            return f"{member.failures} failures in a row"
        failed, known = sum(member.last), len(member.last)
        if known == rules.of_last and failed >= rules.failed_share * known:
            return f"{failed} of {known} requests failed"
        return None

    def _eject(self, member: _Member, why: str, now: float) -> Ejected | None:
        rules, all_members = self._rules, self._members
        resting = sum(each.standing is not Standing.SERVES for each in all_members)
        if member.standing is Standing.SERVES:
            most = min(int(rules.most * len(all_members)), len(all_members) - 1)
            if resting >= most:
                return None
            # The longer it was well, the less its rests of before count.
            calm = int((now - member.calm_since) / rules.rest_s)
            member.rests = max(0, member.rests - calm)
        member.rests += 1
        rest_s = min(member.rests * rules.rest_s, rules.max_rest_s)
        member.becomes(Standing.EJECTED)
        member.until = now + rest_s
        return Ejected(member.config.model, rest_s, why)


def _next_turn(able: list[_Member]) -> _Member:
    """Return whose turn it is, by weight, spread evenly."""
    for member in able:
        member.owed += member.config.weight
    chosen = max(able, key=lambda member: member.owed)
    chosen.owed -= sum(member.config.weight for member in able)
    return chosen
