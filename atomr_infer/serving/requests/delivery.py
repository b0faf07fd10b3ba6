"""The answer on its way to the sink: begun once, held back, or taken up again.

Chunks of the attempt that runs come in, and what the sink shall see goes out:

- Before the first content nothing goes out, so that an early error still finds
  the answer unbegun; raw bytes from before it are kept and go out with it (S8).
- An answer that is not streamed, or one under ``on_cut = "buffer"``, is held until
  it is whole.  So a cut one is made again without the client noticing.
- After a restart (``on_cut = "restart_match"``) what the client has is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import AnswerDivergedError
from atomr_infer.model.batch import RawChunk, TokenChunk, Usage
from atomr_infer.model.failover import OnCut
from atomr_infer.policy.failures.recovery import DivergedError, Matcher, Transcript
from atomr_infer.policy.failures.route_plan import Sent
from atomr_infer.serving.requests.served import Served, Sink, Tried

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.serving.requests.report import Report

# What comes before the first content is small: a role, an id, a ping.
_MAX_EARLY = 64
_MAX_EARLY_BYTES = 256 * 1024

# Longer than any model's answer; what is held beyond it goes out as it comes.
_MAX_HELD_CHARS = 16 * 1024 * 1024

# A piece that is no text (of a tool call, or raw bytes) is about one token.
_CHARS_OF_OTHERS = 4


@attrs.define(eq=False)
class Attempt:
    """What is known of the attempt that runs.

    Attributes:
        deployment: who is asked.
        model: what its runtime is asked for.
        ignored: request members that have no effect on the model.
        reported_model: what the upstream says it is.
        chars: how much text has come.
        usage: the totals, when they have come.
        counted: what the upstream had told by its end; None: nothing, or the
            totals say it.
        heard: whether something has come that is no content.
        finished: the choices that have ended.
        begun: the choices of which something has come.
        billed: whether its cost has been noted.
        warnings: what was approximated for its upstream.
        route: which replica it is made on and why, for the client.
        composed: whether another node answers it by asking others, who are paid.
    """

    deployment: str
    model: str
    ignored: tuple[str, ...] = ()
    reported_model: str | None = None
    chars: int = 0
    usage: Usage | None = None
    counted: Usage | None = None
    heard: bool = False
    finished: set[int] = attrs.field(factory=set)
    begun: set[int] = attrs.field(factory=set)
    billed: bool = False
    warnings: tuple[str, ...] = ()
    route: bytes = b""
    composed: bool = False
    _answer: object = None

    def note(self, chunk: TokenChunk | RawChunk) -> bool:
        """Take a chunk; return whether it is the first one with content."""
        self.reported_model = chunk.model or self.reported_model
        self.warnings += chunk.warnings
        if chunk.finish_reason is not None:
            self.finished.add(chunk.index)
        if chunk.usage is not None:
            self.usage = chunk.usage
        if not chunk.has_content:
            self.heard = True
            return False
        first = not self.begun
        self.begun.add(chunk.index)
        self.chars += len(chunk.text) or _CHARS_OF_OTHERS
        return first

    def end(self, chunks: object) -> None:
        """Ask who gave the chunks what was counted, where no totals have come."""
        self._answer = chunks
        if self.usage is None:
            self.counted = getattr(chunks, "counted", None)

    @property
    def headers(self) -> Mapping[str, str] | None:
        """The headers of the upstream's answer; None: it has none that are known."""
        return getattr(self._answer, "headers", None)

    @property
    def is_under_way(self) -> bool:
        """Whether its upstream has taken up its work, as far as can be told."""
        return self.chars > 0 or self.heard or self.counted is not None

    @property
    def complete(self) -> bool:
        """Whether every choice that has begun has ended."""
        return bool(self.finished) and self.begun <= self.finished


class Delivery:
    """Passes chunks on to a sink.

    Attributes:
        first_chunk_at: when the first content came, in trio's clock; None: not.
        recovered: True once an answer that was cut goes on.
    """

    def __init__(
        self, sink: Sink, report: Report, *, on_cut: OnCut, stream: bool
    ) -> None:
        """Begin with nothing sent.

        Args:
            sink: where the answer goes.
            report: what the sink is told of the request comes from here.
            on_cut: what becomes of a broken stream.
            stream: False: the client waits for the whole answer anyway.
        """
        self._sink = sink
        self._report = report
        self._hold = not stream or on_cut is OnCut.BUFFER
        self._held: list[TokenChunk | RawChunk] = []
        self._held_chars = 0
        self._early: list[RawChunk] = []
        self._early_bytes = 0
        recovers = on_cut in (OnCut.RESTART_MATCH, OnCut.CONTINUE)
        self._transcript = Transcript() if recovers and not self._hold else None
        self._matcher: Matcher | None = None
        self._spoilt = False
        self._begun = False
        self.first_chunk_at: float | None = None
        self.recovered = False

    @property
    def sent(self) -> Sent:
        """What the client has seen."""
        if not self._begun:
            return Sent.NOTHING
        if self._spoilt or self._transcript is None or self._transcript.fixed:
            return Sent.MORE
        return Sent.TEXT

    @property
    def begun(self) -> bool:
        """Whether the sink has been told that an answer starts."""
        return self._begun

    @property
    def transcript(self) -> Transcript | None:
        """What the client has; None: it is not kept."""
        return self._transcript

    def restart(self, *, continued: bool) -> None:
        """Prepare for another attempt.

        Args:
            continued: True: the new attempt goes on where the client is; False:
                it begins anew.
        """
        cut = self._begun or any(chunk.has_content for chunk in self._held)
        self.recovered = self.recovered or cut
        self._held.clear()
        self._held_chars = 0
        self._early.clear()
        self._early_bytes = 0
        self._matcher = None
        if self._begun and not continued:
            assert self._transcript is not None, "only what is kept is matched"
            self._matcher = Matcher(self._transcript)

    def admitted(self) -> None:
        """Nothing to do: chunks will come, or not."""

    async def chunk(self, chunk: TokenChunk | RawChunk, attempt: Attempt) -> None:
        """Take the next chunk of the attempt that runs.

        Raises:
            AnswerDivergedError: the new answer is not the one that the client has
                the beginning of.
        """
        if not _says_something(chunk):
            await self._take_early(chunk, attempt)
            return
        if self.first_chunk_at is None:
            self.first_chunk_at = trio.current_time()
        if self._hold:
            await self._hold_back(chunk, attempt)
        elif self._matcher is None:
            await self._pass_on(chunk, attempt)
        else:
            await self._pass_on_new(chunk, self._matcher, attempt)

    def served(self, attempt: Attempt) -> Served:
        """Return what is told of who answers."""
        report = self._report
        tried = tuple(report.tried)
        if not tried or tried[-1].error is not None:
            tried = (*tried, Tried(attempt.deployment))
        return Served(
            request_id=report.request_id,
            deployment=attempt.deployment,
            model=attempt.reported_model or report.model,
            attempts=tried,
            ignored=attempt.ignored,
            warnings=attempt.warnings,
            recovered=self.recovered,
            downgraded=report.downgraded,
            spent=tuple(report.spent),
            cost=report.cost,
            asked_at=report.asked_at,
            route=report.told_route(attempt.route),
            stages=tuple(map(str, report.stages)),
        )

    async def finish(self, attempt: Attempt) -> None:
        """Let go what is held: the answer is whole."""
        held, self._held = self._held, []
        for chunk in held:
            await self._pass_on(chunk, attempt)

    async def _pass_on(self, chunk: TokenChunk | RawChunk, attempt: Attempt) -> None:
        if not self._begun:
            self._begun = True
            await self._sink.begin(self.served(attempt))
            await self._let_early_go()
        if self._transcript is not None:
            self._transcript.add(chunk)
        await self._sink.chunk(chunk)

    async def _let_early_go(self) -> None:
        early, self._early = self._early, []
        for chunk in early:
            await self._sink.chunk(chunk)

    async def _pass_on_new(
        self, chunk: TokenChunk | RawChunk, matcher: Matcher, attempt: Attempt
    ) -> None:
        assert isinstance(chunk, TokenChunk), "a restart takes the canonical form"
        try:
            new = matcher.take(chunk)
        except DivergedError as error:
            self._spoilt = True
            raise AnswerDivergedError(
                f"{attempt.deployment} gives another answer than the one that was "
                "cut; what was sent is incomplete"
            ) from error
        if new is not None:
            await self._pass_on(new, attempt)

    async def _hold_back(self, chunk: TokenChunk | RawChunk, attempt: Attempt) -> None:
        self._held.append(chunk)
        self._held_chars += _size(chunk)
        if self._held_chars > _MAX_HELD_CHARS:
            self._hold = False
            await self.finish(attempt)

    async def _take_early(self, chunk: TokenChunk | RawChunk, attempt: Attempt) -> None:
        if isinstance(chunk, TokenChunk):
            return  # the sink makes such things up by itself
        if self._hold:
            await self._hold_back(chunk, attempt)
        elif self._begun:
            await self._sink.chunk(chunk)
        else:
            await self._keep_early(chunk, attempt)

    async def _keep_early(self, chunk: RawChunk, attempt: Attempt) -> None:
        self._early_bytes += len(chunk.data)
        if len(self._early) < _MAX_EARLY and self._early_bytes <= _MAX_EARLY_BYTES:
            self._early.append(chunk)
        else:
            await self._pass_on(chunk, attempt)


def _size(chunk: TokenChunk | RawChunk) -> int:
    """Return how much a chunk holds, whatever it is that it holds."""
    if isinstance(chunk, RawChunk):
        return len(chunk.data)
    size = len(chunk.text) + len(chunk.refusal) + len(chunk.logprobs or b"")
    size += sum(len(call.arguments) for call in chunk.tool_calls)
    if chunk.reasoning is not None:
        size += len(chunk.reasoning.text)
    return size + sum(map(len, chunk.extra.values()))


def _says_something(chunk: TokenChunk | RawChunk) -> bool:
    if chunk.has_content or chunk.finish_reason or chunk.usage:
        return True
    # A logprob or a choice's member alone is nothing that a reader has seen.
    return isinstance(chunk, TokenChunk) and bool(chunk.choice_extra or chunk.logprobs)
