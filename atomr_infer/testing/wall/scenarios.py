"""What fails, and what is to come of it: the table behind the wall.

Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.failover import (
    DEFAULT_REASONS,
    FallbackReason,
    OnCut,
)
from atomr_infer.model.prices import Rates
from atomr_infer.model.usage import Usage
from atomr_infer.testing import upstream_script as script

if TYPE_CHECKING:
    from collections.abc import Mapping

PRIMARY_TEXT = "The primary says that it is warm."
FALLBACK_TEXT = "Another one says so as well today."
PRIMARY_USAGE = Usage(input_uncached=11, cache_read=5, output_text=7, reasoning=2)
FALLBACK_USAGE = Usage(input_uncached=17, output_text=19)
MAX_ATTEMPTS = 2

PRICES: Mapping[str, Rates] = {
    "primary": Rates(input=1, cache_read=0.5, output=2),
    "fallback": Rates(input=3, output=5),
}
"""What each deployment costs, in dollars per million tokens."""

ANSWER = script.Happy(text=PRIMARY_TEXT, usage=PRIMARY_USAGE)
OTHER_ANSWER = script.Happy(text=FALLBACK_TEXT, usage=FALLBACK_USAGE)
SAME_ANSWER = script.Happy(text=PRIMARY_TEXT, usage=FALLBACK_USAGE)


class Dialect(Enum):
    """What a client speaks, and a provider.

    Attributes:
        RESPONSES: OpenAI's Responses API, which no provider is asked in here.
    """

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    RESPONSES = "responses"


PROVIDERS = (Dialect.OPENAI, Dialect.ANTHROPIC, Dialect.GEMINI)
"""What providers speak."""


class Unreachable(Enum):
    """Why a connection to the primary comes to nothing."""

    REFUSED = "refused"
    TLS = "tls"


class Kind(Enum):
    """What a client gets.

    Attributes:
        DELIVERED: a whole answer.
        ERROR: an error instead of an answer.
        BROKEN_OFF: the front part of an answer, and an error behind it.
        FILTERED: the news that the content was filtered.
    """

    DELIVERED = "delivered"
    ERROR = "error"
    BROKEN_OFF = "broken off"
    FILTERED = "filtered"


@attrs.frozen(kw_only=True)
class Expected:
    """What is to come of a cell.

    Attributes:
        kind: what the client gets.
        by: who answers; "": nobody.
        named: whom the answer's headers name, where that is not ``by``: they
            were sent before it took over.
        primary: requests that the primary gets.
        fallback: requests that the fallback gets.
        lost: attempts whose words were made and are to be paid for, though
            they are not the answer.
    """

    kind: Kind
    by: str = ""
    named: str = ""
    primary: int = 1
    fallback: int = 0
    lost: int = 0


@attrs.frozen(kw_only=True)
class Scenario:
    """A way to fail.

    Attributes:
        name: as the table prints it.
        primary: what the primary does with each request.
        fallback: what the fallback does with each request.
        unreachable: why the primary gets no request at all; None: it does.
        on_cut: the primary deployment's policy.
        reasons: the failures that the fallback is open for.
        streamed: what is to come of it when the client wants a stream.
        whole: and when it does not.
    """

    name: str
    primary: script.Behaviour = ANSWER
    fallback: script.Behaviour = OTHER_ANSWER
    unreachable: Unreachable | None = None
    on_cut: OnCut = OnCut.ERROR
    reasons: frozenset[FallbackReason] = DEFAULT_REASONS
    streamed: Expected
    whole: Expected

    @property
    def falls_silent(self) -> bool:
        """Whether a time limit has to pass before anything happens."""
        silences = (script.HangBeforeHeaders, script.HangMidStream)
        return isinstance(self.primary, silences)


@attrs.frozen(kw_only=True)
class Cell:
    """A scenario as one client meets it.

    Attributes:
        scenario: what fails.
        dialect: what the client speaks.
        provider: what the primary speaks.
        stream: whether the client wants a stream.
    """

    scenario: Scenario
    dialect: Dialect
    provider: Dialect
    stream: bool

    @property
    def expected(self) -> Expected:
        """What is to come of it."""
        return self.scenario.streamed if self.stream else self.scenario.whole

    @property
    def other_provider(self) -> Dialect:
        """What the fallback speaks: not what the primary does.

        Where the primary speaks the client's dialect its answers are passed on as
        bytes, and the fallback's go through the canonical form.
        """
        return PROVIDERS[(PROVIDERS.index(self.provider) + 1) % len(PROVIDERS)]

    @property
    def is_own(self) -> bool:
        """Whether the primary is of the client's own maker."""
        maker = self.dialect
        if maker is Dialect.RESPONSES:
            maker = Dialect.OPENAI
        return self.provider is maker

    @property
    def name(self) -> str:
        """Its coordinates in the table."""
        how = "stream" if self.stream else "whole"
        route = f"{self.dialect.value} to {self.provider.value}"
        return f"{self.scenario.name}, {route}, {how}"


def _taken_over(*, primary: int = MAX_ATTEMPTS, lost: int = 0) -> Expected:
    return Expected(
        kind=Kind.DELIVERED, by="fallback", primary=primary, fallback=1, lost=lost
    )


def _alike(name: str, expected: Expected, **more: object) -> Scenario:
    return Scenario(name=name, streamed=expected, whole=expected, **more)  # type: ignore[arg-type]


_BROKEN_OFF = Expected(kind=Kind.BROKEN_OFF, lost=1)
_REFUSED = Expected(kind=Kind.ERROR)
_FILTERED = Expected(kind=Kind.FILTERED)
_ALWAYS = frozenset(FallbackReason)

SCENARIOS: tuple[Scenario, ...] = (
    _alike("primary 500", _taken_over(), primary=script.server_error()),
    _alike(
        "429 with Retry-After",
        _taken_over(primary=1),
        primary=script.rate_limited("30"),
    ),
    _alike("429 without", _taken_over(), primary=script.rate_limited(None)),
    _alike("529", _taken_over(), primary=script.server_error(529)),
    _alike(
        "connection refused", _taken_over(primary=0), unreachable=Unreachable.REFUSED
    ),
    _alike("TLS failure", _taken_over(primary=0), unreachable=Unreachable.TLS),
    _alike(
        "silent before headers",
        _taken_over(primary=1),
        primary=script.HangBeforeHeaders(),
    ),
    _alike(
        "silent before first token",
        _taken_over(primary=1),
        primary=script.HangMidStream(after=0, answer=ANSWER),
    ),
    Scenario(
        name="cut after tokens",
        primary=script.CutMidStream(answer=ANSWER),
        streamed=_BROKEN_OFF,
        whole=_taken_over(),
    ),
    Scenario(
        name="stall after tokens",
        primary=script.HangMidStream(answer=ANSWER),
        streamed=_BROKEN_OFF,
        whole=_taken_over(primary=1),
    ),
    _alike(
        "malformed chunk",
        Expected(kind=Kind.DELIVERED, by="primary"),
        primary=attrs.evolve(ANSWER, malformed_after=2),
    ),
    Scenario(
        name="in-band error before first token",
        primary=script.ErrorInStream(after=0, answer=ANSWER),
        streamed=_taken_over(),
        whole=_taken_over(),
    ),
    Scenario(
        name="in-band error after tokens",
        primary=script.ErrorInStream(answer=ANSWER),
        streamed=_BROKEN_OFF,
        whole=_taken_over(),
    ),
    _alike("content filter", _FILTERED, primary=script.PromptBlocked()),
    _alike(
        "context too long",
        _taken_over(primary=1),
        primary=script.RefusedAs(script.Meaning.CONTEXT_TOO_LONG),
    ),
    Scenario(
        name="fallback refuses prefill",
        primary=script.CutMidStream(answer=ANSWER),
        on_cut=OnCut.CONTINUE,
        streamed=_BROKEN_OFF,
        whole=_taken_over(),
    ),
    _alike(
        "every target down",
        Expected(kind=Kind.ERROR, primary=MAX_ATTEMPTS, fallback=MAX_ATTEMPTS),
        primary=script.server_error(),
        fallback=script.server_error(503),
    ),
    # --- beyond the sixteen ---------------------------------------------------
    Scenario(
        name="cut, taken up by the same answer",
        primary=script.CutMidStream(answer=ANSWER),
        fallback=SAME_ANSWER,
        on_cut=OnCut.RESTART_MATCH,
        streamed=attrs.evolve(_taken_over(lost=MAX_ATTEMPTS), named="primary"),
        whole=_taken_over(),
    ),
    Scenario(
        name="cut, taken up by another answer",
        primary=script.CutMidStream(answer=ANSWER),
        on_cut=OnCut.RESTART_MATCH,
        streamed=Expected(
            kind=Kind.BROKEN_OFF, primary=MAX_ATTEMPTS, fallback=1, lost=3
        ),
        whole=_taken_over(),
    ),
    Scenario(
        name="cut, buffered",
        primary=script.CutMidStream(answer=ANSWER),
        on_cut=OnCut.BUFFER,
        streamed=_taken_over(lost=MAX_ATTEMPTS),
        whole=_taken_over(),
    ),
    Scenario(
        name="ends without a finish",
        primary=script.EndWithoutFinish(answer=ANSWER),
        streamed=_BROKEN_OFF,
        whole=_taken_over(),
    ),
    Scenario(
        name="half-closed after tokens",
        primary=script.HalfClose(answer=ANSWER),
        streamed=_BROKEN_OFF,
        whole=_taken_over(),
    ),
    _alike("a proxy's page", _taken_over(), primary=script.RawAnswer()),
    _alike(
        "a bad key",
        _taken_over(primary=1),
        primary=script.RefusedAs(script.Meaning.BAD_KEY),
    ),
    _alike(
        "content filter, opted in",
        _taken_over(primary=1),
        primary=script.PromptBlocked(),
        reasons=_ALWAYS,
    ),
)


def cells() -> tuple[Cell, ...]:
    """Return the wall, cell by cell: each dialect to each provider."""
    return tuple(
        Cell(scenario=scenario, dialect=dialect, provider=provider, stream=stream)
        for scenario in SCENARIOS
        for dialect in Dialect
        for provider in PROVIDERS
        for stream in (True, False)
    )
