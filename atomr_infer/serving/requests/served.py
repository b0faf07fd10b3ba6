"""What a request's sink learns of who answers, and what a sink is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import attrs

from atomr_infer.model.batch import Usage
from atomr_infer.model.cost import Cost

if TYPE_CHECKING:
    from atomr_infer.model.batch import RawChunk, TokenChunk


@attrs.frozen
class Tried:
    """One attempt at a request.

    Attributes:
        deployment: who was asked.
        error: the ``kind`` of the error that it failed with; None: it answers.
    """

    deployment: str
    error: str | None = None


@attrs.frozen
class Spent:
    """What an attempt cost, the answer's own or a lost one's.

    Attributes:
        deployment: who is paid.
        model: what its runtime was asked for.
        usage: the tokens; ``estimated`` and ``interrupted`` where the attempt
            ended before it could say.
    """

    deployment: str
    model: str
    usage: Usage


@attrs.frozen(kw_only=True)
class Served:
    """Who answers a request.

    Attributes:
        request_id: the request's.
        deployment: the deployment's name.
        model: the model that serves, as the client should see it.
        attempts: what was tried, oldest first; the last one answers.
        ignored: request members that have no effect on this model.
        warnings: what was approximated or left out, in one phrase each.
        recovered: True when a stream broke after its first words, and the
            answer is whole all the same.
        downgraded: why another model answers than the one that was asked for: the
            budget that is spent; empty: none is.
        spent: what the attempts used; known at the end only.
        cost: what they cost together, likewise; None: nobody knows.
        asked_at: when somebody was asked first, in trio's clock.
        route: which replica answers and why, for the client.
        stages: the requests inside it, each in words, as far as they have come.
    """

    request_id: str
    deployment: str
    model: str
    attempts: tuple[Tried, ...]
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    recovered: bool = False
    downgraded: str = ""
    spent: tuple[Spent, ...] = ()
    cost: Cost | None = None
    asked_at: float = attrs.field(default=math.nan, eq=False)
    route: bytes = attrs.field(default=b"", eq=False)
    stages: tuple[str, ...] = attrs.field(default=(), eq=False)


class Sink(Protocol):
    """Where an answer goes."""

    async def begin(self, served: Served) -> None:
        """Take the news that an answer starts; once, before the first chunk."""
        ...

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        """Take a chunk; returning late is back-pressure.

        Raw ones come only for a request with a ``source``.
        """
        ...
