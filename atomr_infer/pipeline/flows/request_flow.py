"""Requests as a stage of a flow: items go in, and what came of each comes out.

::

    questions = flow.from_iterable(rows)
    answers = answered(questions, lambda row: cluster.chat("auto", row.text))
    async with answers.open() as stream:
        async for each in stream:
            ...

No item is taken from its source before there is a place for its request, and no place
is free before what came of an item has been taken: so a slow consumer, a full
deployment and a fast source wait for each other.  A request that fails is a result
like any other; what is no :class:`~atomr_infer.errors.InferenceError` is a bug, and
ends the flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from atomr.core.checks import check_count
from atomr.flow import Retry
from atomr_infer.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr.flow import Flow

T = TypeVar("T")
R = TypeVar("R")

AGAIN = Retry(attempts=3, backoff_s=1.0, max_backoff_s=30.0, on=(InferenceError,))
"""Twice more, for errors after which that is worth while."""


@attrs.frozen
class Answered(Generic[T, R]):
    """What came of an item.

    Attributes:
        item: what was asked.
        answer: what it was answered; None: it failed.
        error: why it failed; None: it did not.
        attempts: requests that were made for it.
        took_s: from its first one to its end.
    """

    item: T
    answer: R | None
    error: InferenceError | None
    attempts: int
    took_s: float


def answered(
    items: Flow[T],
    ask: Callable[[T], Awaitable[R]],
    *,
    concurrency: int = 8,
    ordered: bool = True,
    retry: Retry = AGAIN,
) -> Flow[Answered[T, R]]:
    """Return the flow of what comes of items.

    Args:
        items: what is asked.
        ask: makes the request of an item, such as ``Cluster.chat`` of it.  A
            deployment's own retries are made before it raises.
        concurrency: requests under way at once.
        ordered: False passes each on as soon as it is there.
        retry: how often a request is made that fails in a way that may pass
            (``InferenceError.retryable``); what the upstream says of how long to wait
            goes before the pause that is said here.
    """
    check_count("concurrency", concurrency, least=1)

    async def asked(item: T) -> Answered[T, R]:
        return await _asked(item, ask, retry)

    return items.map_async(asked, concurrency=concurrency, ordered=ordered)


async def _asked(
    item: T, ask: Callable[[T], Awaitable[R]], retry: Retry
) -> Answered[T, R]:
    began_at, attempts = trio.current_time(), 0
    while True:
        attempts += 1
        try:
            answer = await ask(item)
        except InferenceError as error:
            wait_s = _wait_s(error, retry, attempts)
            if wait_s is None:
                took_s = trio.current_time() - began_at
                return Answered(item, None, error, attempts, took_s)
        else:
            return Answered(
                item, answer, None, attempts, trio.current_time() - began_at
            )
        await trio.sleep(wait_s)


def _wait_s(error: InferenceError, retry: Retry, attempts: int) -> float | None:
    if not error.retryable:
        return None
    wait_s = retry.wait_s(error, failed=attempts)
    if wait_s is None or error.retry_after_s is None:
        return wait_s
    return min(max(wait_s, error.retry_after_s), retry.max_backoff_s)
