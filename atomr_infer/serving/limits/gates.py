"""Gates: what a request passes before it is sent, and holds something of until it ends.

A gate keeps a limit or a budget.  Who enters it gets a *hold*: permits of a rate
limit, a reservation of a budget.  A hold ends once: it is settled at what was used,
or cancelled where nobody was asked.

There are two kinds, by how often one request enters them:

=============  =======================================================
of a request   once: what the client's virtual key, or its team, may do
of an attempt  for each attempt, retries and hedges too: what the
               provider's key may do, what the deployment may spend
=============  =======================================================

Both ways go through them: the straight way in place, where no gate makes it wait, and
the ordinary way.  A request that no gate is for pays for one test.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import trio

from atomr_infer.policy.estimates.spending import interrupted_usage
from atomr_infer.policy.limits.demand import (
    Demand,
    TokenBound,
    Used,
    demand_at_a_glance,
    demand_of,
    demand_within,
    used_of,
    used_without_totals,
)
from atomr_infer.runtimes.contract import capabilities_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.usage import Usage
    from atomr_infer.runtimes.contract import ModelRunner
    from atomr_infer.serving.requests.delivery import Attempt
    from atomr_infer.serving.shared import Serving

# For who does not queue: long enough to ask another node, no longer.
_ASK_S = 1.0


class Hold(Protocol):
    """What a gate gave; end it once, by one of the two."""

    def settle(self, used: Used) -> None:
        """Take what was used; the rest is there for others."""
        ...

    def cancel(self) -> None:
        """Give all back: nobody was asked."""
        ...


class Outlook(Enum):
    """What is known of a request at a gate before it comes there."""

    OPEN = "nothing speaks against it"
    FULL = "it would have to wait"
    SHUT = "it would be refused, whenever it came"


class Gate(Protocol):
    """What keeps a limit or a budget."""

    @property
    def is_timed(self) -> bool:
        """Whether what it gives is to be used at once: such gates come last."""
        ...

    def outlook(self, demand: Demand) -> Outlook:
        """Return what is known of it here; nothing is taken, and nobody is asked."""
        ...

    def try_enter(self, demand: Demand) -> Hold | None:
        """Enter in place, without waiting.

        Returns:
            None when it must be waited for, or asked of another node.

        Raises:
            InferenceError: it is refused.
        """
        ...

    async def enter(self, demand: Demand, *, deadline_s: float) -> Hold:
        """Enter, and wait for it as long as is allowed.

        Args:
            demand: the most that may be used.
            deadline_s: when waiting is over, in trio's clock.

        Raises:
            InferenceError: it is refused.

        Cancellation: nothing is held.
        """
        ...


class Holds:
    """What several gates gave, which end together."""

    __slots__ = ("_holds", "add")

    def __init__(self) -> None:
        self._holds: list[Hold] = []
        self.add = self._holds.append

    def __iter__(self) -> Iterator[Hold]:
        """Iterate over what each gate gave."""
        return iter(self._holds)

    def end(self, used: Used | None) -> None:
        """End all; the first call counts.

        Args:
            used: what was used; None: nobody was asked.
        """
        holds = self._holds
        while holds:
            hold = holds.pop()
            try:
                if used is None:
                    hold.cancel()
                else:
                    hold.settle(used)
            except BaseException:
                self.end(used)  # each ends, whatever another one makes of it
                raise


class Entered:
    """What the gates of a request and those of its first attempt gave together.

    Attributes:
        of_request: ends with the request; None: it has no gates.
        of_attempt: ends with the attempt; None: it has no gates.
    """

    __slots__ = ("of_attempt", "of_request")

    def __init__(self, of_request: Holds | None, of_attempt: Holds | None) -> None:
        self.of_request = of_request
        self.of_attempt = of_attempt

    def cancel(self) -> None:
        """Give all back: nobody was asked."""
        for holds in (self.of_request, self.of_attempt):
            if holds is not None:
                holds.end(None)


NOTHING_HELD = Entered(None, None)


class Gates:
    """All gates: those of requests, and those of each deployment's attempts.

    Attributes:
        of_requests: say which gates a request has to pass.
        of_attempts: the gates of each deployment that has some, in their order.
    """

    def __init__(self) -> None:
        self.of_requests: tuple[Callable[[ExecuteBatch], Iterable[Gate]], ...] = ()
        self.of_attempts: dict[str, tuple[Gate, ...]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is no gate at all."""
        return not (self.of_requests or self.of_attempts)

    def add_for_requests(
        self, gates_of: Callable[[ExecuteBatch], Iterable[Gate]]
    ) -> None:
        """Let requests pass the gates that this says."""
        self.of_requests += (gates_of,)

    def add_for_attempts(self, deployment: str, gate: Gate) -> None:
        """Let each attempt at a deployment pass a gate."""
        gates = (*self.of_attempts.get(deployment, ()), gate)
        self.of_attempts[deployment] = _in_order(gates)

    def remove_for_attempts(self, deployment: str, gate: Gate) -> None:
        """Take a gate away; who has entered it holds on."""
        left = tuple(
            each for each in self.of_attempts.pop(deployment, ()) if each is not gate
        )
        if left:
            self.of_attempts[deployment] = left

    def for_request(self, batch: ExecuteBatch) -> tuple[Gate, ...]:
        """Return the gates that a request has to pass, in their order."""
        found = [gate for gates_of in self.of_requests for gate in gates_of(batch)]
        return _in_order(found)


def try_enter(gates: Iterable[Gate], demand: Demand) -> Holds | None:
    """Enter all gates in place, or none.

    Returns:
        None when one of them must be waited for.

    Raises:
        InferenceError: one of them refuses.
    """
    holds = Holds()
    add = holds.add
    try:
        for gate in gates:
            hold = gate.try_enter(demand)
            if hold is None:
                holds.end(None)
                return None
            add(hold)
    except BaseException:
        holds.end(None)
        raise
    return holds


def enter_both(
    of_request: Collection[Gate], of_attempt: Collection[Gate], demand: Demand
) -> Entered | None:
    """Enter the gates of a request and of its first attempt in place, or none.

    Returns:
        None when one of them must be waited for.

    Raises:
        InferenceError: one of them refuses.
    """
    request = None
    if of_request:
        request = try_enter(of_request, demand)
        if request is None:
            return None
    if not of_attempt:
        return Entered(request, None)
    attempt = None
    try:
        attempt = try_enter(of_attempt, demand)
    finally:
        if attempt is None and request is not None:
            request.end(None)
    return None if attempt is None else Entered(request, attempt)


async def enter(
    gates: Iterable[Gate],
    demand: Demand,
    *,
    deadline_s: float = math.inf,
    may_wait: bool = True,
) -> Holds:
    """Enter all gates, or none.

    Args:
        gates: in their order.
        demand: the most that may be used.
        deadline_s: when waiting is over, in trio's clock.
        may_wait: False for who does not queue; another node is asked all the same.

    Raises:
        InferenceError: one of them refuses.

    Cancellation: nothing is held.
    """
    if not may_wait:
        deadline_s = min(deadline_s, trio.current_time() + _ASK_S)
    holds = Holds()
    try:
        for gate in gates:
            hold = gate.try_enter(demand)
            if hold is None:
                hold = await gate.enter(demand, deadline_s=deadline_s)
            holds.add(hold)
    except BaseException:
        holds.end(None)
        raise
    return holds


def demand_for(
    serving: Serving,
    deployment: Deployment,
    batch: ExecuteBatch,
    *,
    runner: ModelRunner | None = None,
    bound: TokenBound | None = None,
    reread: Callable[[], ExecuteBatch] | None = None,
) -> Demand:
    """Return the most that a request may use at a deployment.

    Args:
        serving: knows the prices.
        deployment: who is to be asked.
        batch: the request, its model as its runtime knows it.
        runner: knows the model; None: nobody who does is there yet.
        bound: its tokens, where they are not those of a generation.
        reread: returns it with its conversation; None: it has it.
    """
    name, price = deployment.name, serving.prices.price(deployment, batch.model)
    if bound is not None:
        return demand_within(batch, name, price=price, bound=bound)
    most = None
    if runner is not None and batch.sampling.max_tokens is None:
        most = capabilities_of(runner, batch.model).max_output_tokens
    if reread is not None and not batch.messages:
        found = demand_at_a_glance(batch, name, price=price, max_output_tokens=most)
        if found is not None:
            return found
        batch = reread().asked_for(batch.model)
    return demand_of(batch, name, price=price, max_output_tokens=most)


def used_by(
    serving: Serving,
    deployment: Deployment,
    attempt: Attempt,
    error: BaseException | None,
    asked: Callable[[], ExecuteBatch],
) -> Used | None:
    """Return what an attempt used; None: nobody has heard of it.

    Args:
        serving: knows the prices.
        deployment: who was asked.
        attempt: what is known of it.
        error: why it ended; None: its answer is whole.
        asked: returns the request with its conversation.
    """
    price = serving.prices.price(deployment, attempt.model)
    if attempt.usage is not None:
        return used_of(attempt.usage, price, attempt.headers)

    def lost() -> Usage:
        return interrupted_usage(asked(), attempt.chars, attempt.counted)

    if attempt.is_under_way:
        return used_of(lost(), price)
    return used_without_totals(error, lost, price)


def _in_order(gates: Iterable[Gate]) -> tuple[Gate, ...]:
    return tuple(sorted(gates, key=lambda gate: gate.is_timed))
