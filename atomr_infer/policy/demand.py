"""What a request asks of limits and budgets, and what it took of them.

Before a request is sent it *demands* the most that it may use, so that no limit is
passed by what is under way; when it is over it says what it *used*, and the rest is
there for others.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import (
    InvalidRequestError,
    RateLimitedError,
    UpstreamAuthError,
    UpstreamConnectError,
)
from atomr_infer.model.asker import Asker
from atomr_infer.model.cost import TokenRange, cost_of, estimate_cost
from atomr_infer.policy.cost_estimate import estimate_request
from atomr_infer.policy.key_pool import NOT_ASKED
from atomr_infer.policy.token_estimate import estimate_prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.cost import Cost
    from atomr_infer.model.prices import Price
    from atomr_infer.model.usage import Usage

_PICO_PER_MICRO = 1_000_000


@attrs.frozen(kw_only=True)
class Demand:
    """The most that a request, or one attempt at it, may use.

    Attributes:
        deployment: who is to be asked.
        model: what its runtime is asked for.
        asker: who asks; None: nobody whom we know.
        priority: who goes first where there is not enough; higher first.
        input_tokens: of its prompt, rather too many than too few.
        output_tokens: of all its answers; None: nobody can say.
        cost_microusd: of all that; None: it has no bound, or no known price.
    """

    deployment: str
    model: str
    asker: Asker | None = None
    priority: int = 0
    input_tokens: int = 0
    output_tokens: int | None = 0
    cost_microusd: int | None = None


@attrs.frozen(kw_only=True)
class Used:
    """What a request, or one attempt at it, used in the end.

    Attributes:
        input_tokens: of its prompt, cached ones included.
        output_tokens: of its answers, reasoning included.
        cost_microusd: rounded up; None: nobody knows.
        limited: True when the provider said that there were too many.
        retry_after_s: when it may be asked again, as it said; None: it did not.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int | None = 0
    limited: bool = False
    retry_after_s: float | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@attrs.frozen
class TokenBound:
    """The most tokens that there may be of both kinds.

    Attributes:
        input: of the prompt.
        output: of the answers; None: nobody can say.
    """

    input: int
    output: int | None = 0


def demand_of(
    batch: ExecuteBatch,
    deployment: str,
    *,
    price: Price | None,
    max_output_tokens: int | None,
) -> Demand:
    """Return the most that a generation may use.

    Args:
        batch: the request with its conversation, its model as its runtime knows it.
        deployment: who is to be asked.
        price: the model's; None: not known.
        max_output_tokens: the longest answer that the model can give; None: not
            known.  The request's own limit goes before it.
    """
    most = batch.sampling.max_tokens
    if most is None:
        most = max_output_tokens
    estimate = estimate_request(batch, price, max_output_tokens=max_output_tokens)
    return Demand(
        deployment=deployment,
        model=batch.model,
        asker=batch.asker,
        priority=batch.priority,
        input_tokens=estimate_prompt_tokens(batch),
        output_tokens=None if most is None else most * batch.sampling.n,
        cost_microusd=None if estimate is None else microusd(estimate.high),
    )


def demand_within(
    batch: ExecuteBatch, deployment: str, *, price: Price | None, bound: TokenBound
) -> Demand:
    """Return the most that a request may use whose tokens were counted elsewhere."""
    output = TokenRange(0, bound.output)
    estimate = estimate_cost(price, prompt=TokenRange(0, bound.input), output=output)
    return Demand(
        deployment=deployment,
        model=batch.model,
        asker=batch.asker,
        priority=batch.priority,
        input_tokens=bound.input,
        output_tokens=bound.output,
        cost_microusd=None if estimate is None else microusd(estimate.high),
    )


def microusd(cost: Cost | None) -> int | None:
    """Return a cost in whole microdollars, rounded up; None: it is not known."""
    return None if cost is None else -(-cost.pico_usd // _PICO_PER_MICRO)


def used_of(usage: Usage, price: Price | None) -> Used:
    """Return what was used, by the tokens."""
    return Used(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        cost_microusd=microusd(cost_of(usage, price)),
    )


def used_without_totals(
    error: BaseException | None, lost: Callable[[], Usage], price: Price | None
) -> Used | None:
    """Return what an attempt used whose totals nobody has told.

    What a provider refused used nothing.  Of what was cut off, cancelled or not
    understood nobody knows how far it came, so its prompt counts as read.

    Args:
        error: why it ended; None: its answer is whole.
        lost: returns what is estimated to be lost.
        price: the model's; None: not known.

    Returns:
        None when nobody has heard of it.
    """
    if isinstance(error, RateLimitedError):
        if error.code in NOT_ASKED:
            return None
        return Used(limited=True, retry_after_s=error.retry_after_s)
    if isinstance(error, UpstreamConnectError):
        return None
    if isinstance(error, (InvalidRequestError, UpstreamAuthError)):
        return Used()
    return used_of(lost(), price)
