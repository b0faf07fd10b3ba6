"""The gate that keeps rate limits: permits before a request is sent, settled behind it.

A request needs permits of each limit that is given (requests, tokens, ...), and sends
at once when it has them all: permits count as used from when they are granted.  So
whoever waited for one of them takes the others anew.

Where they are all at hand, a request has them in place.  Else it comes to the end of a
line, in which the more urgent go first, and nobody overtakes.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from atomr import telemetry
from atomr.cluster.permits import Denied, Mode, Permits, PermitsError
from atomr_infer.errors import NotReadyError, RateLimitedError
from atomr_infer.model.rate_limits import LimitMode, OnLimit
from atomr_infer.policy.limits.rate_permits import Dimension, counted
from atomr_infer.policy.limits.rate_tuning import Tuning
from atomr_infer.policy.tenants.admission import UNCLAIMED, Claim
from atomr_infer.policy.waits import wait_in_words
from atomr_infer.serving.limits.gates import Outlook
from atomr_infer.serving.limits.known_full import KnownFull
from atomr_infer.serving.limits.rate_hold import RateHold, give_back
from atomr_infer.serving.limits.shadow import Shadow
from atomr_infer.serving.limits.turnstile import Turnstile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from atomr.cluster.permits import PermitService
    from atomr_infer.model.rate_limits import RateLimits
    from atomr_infer.policy.limits.demand import Demand
    from atomr_infer.policy.limits.rate_permits import Counted
    from atomr_infer.serving.limits.gates import Hold

log = logging.getLogger(__name__)

LIMITED = "rate_limit_exceeded"
"""The code of a request that was not made for a limit of ours."""

MODES = {
    LimitMode.ESCROW: Mode.ESCROW,
    LimitMode.STRICT: Mode.STRICT,
    LimitMode.SOFT: Mode.SOFT,
}

_GRACE_S = 1.0
"""Who does not queue waits so long: another node has to be asked, and may have to give
back what it has not used, which it says each quarter of a second.  As long as
:attr:`~atomr.gossip.escrow.Limit.ask_s`; in less, a busy machine refused a few of the
first requests of a limit that was nearly unused."""

_ANSWER_SHARE = 0.1
_ANSWER_S = 1.0
"""Who queues leaves that share of its time, and so long at most, for its answer."""

_STALE_S = 0.005
"""Permits that are older are taken anew before they are used."""

_MAX_REST_S = 60.0
"""Longest rest after a 429: then one request asks whether it is still true."""

_STRICT_WIDTH = 64
"""So many of a line ask at once where each has to ask another node anyway."""


def deaf(_: Mapping[str, str]) -> None:
    """Take what a provider says of limits that are not its own."""


class RateGate:
    """Keeps all rate limits of one owner.

    Attributes:
        owner: whose they are.
        called: the same, as people are told.
        limits: the terms.
        counted: what is counted, in the order in which it is taken.
        service: has the permits.
        longest_s: the longest that a request can take.
        shadow: what would have been refused.
        hear: takes the headers of a provider's answers.
    """

    is_timed = True

    def __init__(  # noqa: PLR0913 - most by keyword
        self,
        service: PermitService,
        limits: RateLimits,
        *,
        name: str,
        owner: str,
        longest_s: float,
        called: str = "",
        has_others: bool = True,
        hear: Callable[[Mapping[str, str]], None] = deaf,
    ) -> None:
        """Make a gate; its limits have been added to the service.

        Args:
            service: has the permits.
            limits: the terms.
            name: the limits' in the cluster, but for what they count.
            owner: whose they are.
            longest_s: the longest that a request can take.
            called: whose they are, as people are told; "": as ``owner``.
            has_others: whether other nodes may have permits.
            hear: takes the headers of a provider's answers.
        """
        self.hear = hear
        self.called = called or owner
        self.service = service
        self.owner = owner
        self.longest_s = longest_s
        self.shadow = Shadow()
        self._name = name
        self._has_others = has_others
        self.take(limits)
        width = _STRICT_WIDTH if limits.mode is LimitMode.STRICT else 1
        self._line = Turnstile(width)
        self._tuning = Tuning(limits.window_s)
        self._is_tuned = False
        self._owed: dict[Dimension, int] = {}
        self._rests_until_s = -math.inf

    def take(self, limits: RateLimits) -> None:
        """Keep these numbers from now on; the service has them, too."""
        self.limits = limits
        self.counted = counted(limits, longest_s=self.longest_s)
        self._named = tuple(
            (limit_name(self._name, each.dimension), each) for each in self.counted
        )
        needs = tuple(each.needs for each in self.counted)
        self._full = KnownFull(needs, has_others=self._has_others)

    # --- the gate -------------------------------------------------------------------

    def outlook(self, demand: Demand) -> Outlook:
        """Say whether permits would be waited for, as far as is known here."""
        if self.limits.shadow:
            return Outlook.OPEN
        is_full = self._line.length > 0 or self._is_resting or self._is_short(demand)
        return Outlook.FULL if is_full else Outlook.OPEN

    def _is_short(self, demand: Demand) -> bool:
        """Whether there are too few; of what others lend, their last refusal says."""
        if self._has_others and self.limits.mode is not LimitMode.SOFT:
            return self._full.refuses(demand, trio.current_time())
        try:
            return any(
                self.service.state(name).used + each.needs(demand) > each.permits
                for name, each in self._named
            )
        except PermitsError:
            return True  # they are being changed, for which it would be refused

    def try_enter(self, demand: Demand) -> Hold | None:
        """Take permits that are at hand; None: they must be waited for."""
        rests = self._rests_until_s > -math.inf and self._is_resting
        if self._line.length or rests:
            return self._passed_over(demand) if self.limits.shadow else None
        taken = self._take_all(demand)
        if taken is not None:
            return RateHold(self, taken)
        return self._passed_over(demand) if self.limits.shadow else None

    async def enter(self, demand: Demand, *, deadline_s: float) -> Hold:
        """Take permits, and wait for them as long as is allowed.

        Raises:
            RateLimitedError: there are none in time.
            NotReadyError: the limits were changed meanwhile.

        Cancellation: nothing is held.
        """
        now_s = trio.current_time()
        # Permits in the last moment would be used for an answer that nobody gets.
        deadline_s -= min(_ANSWER_S, _ANSWER_SHARE * (deadline_s - now_s))
        rejects = self.limits.on_exceeded is OnLimit.REJECT
        if rejects:
            deadline_s = min(deadline_s, now_s + _GRACE_S)
        try:
            if rejects and self._full.refuses(demand, now_s):
                await trio.lowlevel.checkpoint()
                raise self._error(demand)
            self._expect(demand)
            with trio.move_on_at(deadline_s):
                await self._line.come(demand.priority, _claim(demand))
                try:
                    return await self._at_the_front(demand, deadline_s)
                finally:
                    self._line.go()
            self._full.note(demand, trio.current_time())
            raise self._error(demand)
        except PermitsError as gone:
            problem = f"the rate limits of {self.called} are being changed"
            raise NotReadyError(problem) from gone
        except RateLimitedError:
            telemetry.emit(
                ("atomr_infer", "rate_limit", "refused"), {}, {"owner": self.owner}
            )
            raise

    def _expect(self, demand: Demand) -> None:
        for name, each in self._named:
            needed = each.needs(demand)
            if needed:
                self.service.expect(name, needed)

    async def _at_the_front(self, demand: Demand, deadline_s: float) -> Hold:
        """Take what is there, and wait for what is not.

        Raises:
            RateLimitedError: there is not enough in time.
        """
        if self._is_resting:
            await trio.sleep_until(self._rests_until_s)
        while True:
            there = self._take_all(demand, expected=True)
            if there is not None:
                return RateHold(self, there)
            taken: list[tuple[Counted, Permits]] = []
            first_s = math.inf
            try:
                for name, each in self._named:
                    needed = each.needs(demand)
                    if needed:
                        self._pay(name, each, needed)
                        got = await self._wait(name, needed, demand, deadline_s)
                        taken.append((each, got))
                        first_s = min(first_s, trio.current_time())
            except BaseException:
                give_back(self.service, taken)
                raise
            if trio.current_time() - first_s <= _STALE_S:
                return RateHold(self, taken)
            # The first ones are old by now: they count as used since then.
            give_back(self.service, taken)

    async def _wait(
        self, name: str, needed: int, demand: Demand, deadline_s: float
    ) -> Permits:
        found = await self.service.acquire(
            name,
            needed,
            deadline_s=deadline_s,
            priority=demand.priority,
            expected=True,
        )
        if isinstance(found, Denied):
            self._full.note(demand, trio.current_time())
            raise self._error(demand, found)
        return found

    def _take_all(
        self, demand: Demand, *, expected: bool = False
    ) -> list[tuple[Counted, Permits]] | None:
        """Take all that a request needs in place; None: there is not as much.

        Args:
            demand: the request's.
            expected: True where it was counted when it came.
        """
        taken: list[tuple[Counted, Permits]] = []
        service = self.service
        now_s = service.now_s()
        for name, each in self._named:
            needed = each.needs(demand)
            if not needed:
                continue
            if self._is_tuned:
                self._pay(name, each, needed)
            found = service.try_acquire(name, needed, expected=expected, now_s=now_s)
            if type(found) is not Permits:
                give_back(service, taken)
                return None
            taken.append((each, found))
        return taken

    # --- refusals -------------------------------------------------------------------

    def _error(self, demand: Demand, denied: Denied | None = None) -> RateLimitedError:
        wait_s = self._rests_until_s - trio.current_time()
        if denied is not None:
            wait_s = max(wait_s, denied.retry_after_s)
        else:
            for name, each in self._named:
                needed = each.needs(demand)
                if needed:
                    after_s = self.service.retry_after_s(name, needed)
                    wait_s = max(wait_s, after_s)
        wait_s = min(wait_s, self.limits.window_s)
        return RateLimitedError(
            f"the rate limit of {self.called} is reached; "
            f"come again in {wait_in_words(wait_s)}",
            code=LIMITED,
            retry_after_s=wait_s,
        )

    def _passed_over(self, demand: Demand) -> Hold:
        """Let somebody through whom a limit would have kept waiting, or refused."""
        self.shadow.tell(self.called, self._error(demand))
        return RateHold(self, [])

    # --- a provider that refuses ----------------------------------------------------

    @property
    def _is_resting(self) -> bool:
        return trio.current_time() < self._rests_until_s

    @property
    def withheld(self) -> float:
        """What share of the limits is withheld after refusals."""
        return self._tuning.share

    def refused(self, retry_after_s: float | None) -> None:
        """Take a provider's 429: rest as long as it says, and take less for a while."""
        now_s = trio.current_time()
        if retry_after_s is not None:
            rest_s = min(retry_after_s, _MAX_REST_S)
            self._rests_until_s = max(self._rests_until_s, now_s + rest_s)
        share = self._tuning.refused(now_s)
        if share:
            self._owe(share)
            log.warning(
                "%s refused although its limit was kept; %d %% of it is withheld",
                self.called,
                100 * self._tuning.share,
            )
            telemetry.emit(
                ("atomr_infer", "rate_limit", "tuned"),
                {"withheld": self._tuning.share},
                {"owner": self.owner},
            )

    def _owe(self, share: float) -> None:
        self._is_tuned = True
        for each in self.counted:
            if each.dimension is not Dimension.CONCURRENT:
                owed = self._owed.get(each.dimension, 0) + int(share * each.permits)
                self._owed[each.dimension] = owed

    def _pay(self, name: str, each: Counted, needed: int) -> None:
        """Use permits up that are to be withheld, as many as are taken for requests."""
        share = self._tuning.due(trio.current_time())
        if share:
            self._owed.clear()
            self._owe(share)
        owed = self._owed.get(each.dimension, 0)
        if owed:
            paid = min(owed, needed)
            if isinstance(self.service.try_acquire(name, paid, expected=True), Permits):
                self._owed[each.dimension] = owed - paid
        self._is_tuned = bool(self._tuning.share) or any(self._owed.values())

    # --- how it stands --------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many requests wait here."""
        return self._line.length

    def used(self, each: Counted) -> int:
        """Return how many permits are used here; of a soft limit, in all."""
        name = next(name for name, known in self._named if known == each)
        return self.service.state(name).used


def limit_name(name: str, dimension: Dimension) -> str:
    """Return what one limit is called in the cluster."""
    return f"{name} {dimension.value}"


def _claim(demand: Demand) -> Claim:
    """Return whose turn a request takes in the line: it costs its tokens."""
    if demand.asker is None:
        return UNCLAIMED
    tokens = demand.input_tokens + (demand.output_tokens or 0)
    return Claim(demand.asker.shares, max(1, tokens))
