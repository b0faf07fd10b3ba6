"""What a request asks of limits and budgets, and what it took of them.

Before a request is sent it *demands* the most that it may use, so that no limit is
passed by what is under way; when it is over it says what it *used*, and the rest is
there for others.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import (
    InvalidRequestError,
    RateLimitedError,
    UpstreamAuthError,
    UpstreamConnectError,
)
from atomr_infer.model.asker import Asker
from atomr_infer.model.cost import (
    TEXT_BUCKETS,
    TokenRange,
    estimate_cost,
    most_for_text,
    pico_usd_of,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.prices import microusd_up
from atomr_infer.policy.estimates.cost_estimate import estimate_request
from atomr_infer.policy.estimates.token_estimate import estimate_prompt_tokens
from atomr_infer.policy.failures.key_pool import NOT_ASKED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.prices import Price
    from atomr_infer.model.usage import Usage


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
        cost_pico_usd: exactly, in pico-dollars; None: nobody knows.
        limited: True when the provider said that there were too many.
        retry_after_s: when it may be asked again, as it said; None: it did not.
        headers: of the answer, by lower-case name; None: there is none, or it is not
            a provider's.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost_pico_usd: int | None = 0
    limited: bool = False
    retry_after_s: float | None = None
    headers: Mapping[str, str] | None = attrs.field(default=None, eq=False, repr=False)

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
    high = None if estimate is None else estimate.high
    return Demand(
        deployment=deployment,
        model=batch.model,
        asker=batch.asker,
        priority=batch.priority,
        input_tokens=estimate_prompt_tokens(batch),
        output_tokens=None if most is None else most * batch.sampling.n,
        cost_microusd=None if high is None else microusd_up(high.pico_usd),
    )


def demand_within(
    batch: ExecuteBatch,
    deployment: str,
    *,
    price: Price | None,
    bound: TokenBound,
    caches: Collection[str] = (),
) -> Demand:
    """Return the most that a request may use whose tokens were counted elsewhere.

    Args:
        batch: the request; its conversation does not matter.
        deployment: who is to be asked.
        price: the model's; None: not known.
        bound: its tokens.
        caches: the buckets of caches that it may write to.
    """
    if caches:
        most = _most_with_caches(price, bound, caches)
    else:
        most = most_for_text(price, bound.input, bound.output)
    return Demand(
        deployment=deployment,
        model=batch.model,
        asker=batch.asker,
        priority=batch.priority,
        input_tokens=bound.input,
        output_tokens=bound.output,
        cost_microusd=None if most is None else microusd_up(most),
    )


def _most_with_caches(
    price: Price | None, bound: TokenBound, caches: Collection[str]
) -> int | None:
    estimate = estimate_cost(
        price,
        prompt=TokenRange(0, bound.input),
        output=TokenRange(0, bound.output),
        buckets=TEXT_BUCKETS.union(caches),
    )
    if estimate is None or estimate.high is None:
        return None
    return estimate.high.pico_usd


_BYTES_PER_TOKEN = 3
_TOOL, _PER_TOOL = b'"input_schema"', 16
"""Around a tool of Anthropic's is less than it is counted for."""

_MINUTES, _HOUR = ("cache_write_5m",), ("cache_write_1h",)


def demand_at_a_glance(
    batch: ExecuteBatch,
    deployment: str,
    *,
    price: Price | None,
    max_output_tokens: int | None,
) -> Demand | None:
    """Return the most that a request may use whose conversation was not read.

    Its bytes are a bound: what is written around each message is longer than what it
    is counted for.  To read an agent's conversation takes longer than all the rest.

    Args:
        batch: the request with its ``source``; its ``sampling`` says how long the
            answers may be.
        deployment: who is to be asked.
        price: the model's; None: not known.
        max_output_tokens: the longest answer that the model can give; None: not known.

    Returns:
        None when its bytes say nothing: there are pictures, or files.
    """
    source = batch.source
    if source is None or source.dialect not in (Dialect.OPENAI_CHAT, Dialect.ANTHROPIC):
        return None
    body = source.body
    if (
        b'"image' in body
        or b'"document"' in body
        or b'"file"' in body
        or b'"input_audio"' in body
    ):
        return None
    caches: tuple[str, ...] = ()
    if b'"cache_control"' in body:
        caches = (*_MINUTES, *_HOUR) if b'"1h"' in body else _MINUTES
    most = batch.sampling.max_tokens
    if most is None:
        most = max_output_tokens
    bound = TokenBound(
        -(-len(body) // _BYTES_PER_TOKEN) + _PER_TOOL * body.count(_TOOL),
        None if most is None else most * batch.sampling.n,
    )
    return demand_within(batch, deployment, price=price, bound=bound, caches=caches)


def used_of(
    usage: Usage, price: Price | None, headers: Mapping[str, str] | None = None
) -> Used:
    """Return what was used, by the tokens; ``headers`` are the answer's."""
    return Used(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        cost_pico_usd=pico_usd_of(usage, price),
        headers=headers,
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
