"""`InferenceCascade`: a cheap model first, and a dearer one where that will not do.

Each stage is a request of its own at another deployment (see
:mod:`atomr_infer.runtimes.others`).  Its answer is held until it has been judged;
what is refused is followed by the next stage, and so is a stage that fails in a way
that another model may not.  The last stage is not judged, and its chunks pass on as
they come.

Nothing here holds a scope or a task open between two chunks: those are in the block
of :meth:`Others.asking`, which is the generation's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import (
    InferenceError,
    UpstreamError,
)
from atomr_infer.model.batch import TokenChunk
from atomr_infer.pipeline.asking.runner import GeneratingRunner, goes_on_after
from atomr_infer.pipeline.asking.words import one_line
from atomr_infer.pipeline.cascades.judging import judge, judge_beginning

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.pipeline.cascades.judges import Judges
    from atomr_infer.pipeline.cascades.options import CascadeOptions, CascadeStage
    from atomr_infer.runtimes.others import Asking, Others, Stream


@attrs.frozen
class _Refused:
    """An answer that was not accepted.

    Attributes:
        model: whose it is.
        why: in words.
        chunks: all of it.
    """

    model: str
    why: str
    chunks: Sequence[TokenChunk]


class InferenceCascade(GeneratingRunner):
    """Asks one stage after the other until an answer is accepted."""

    def __init__(self, options: CascadeOptions, others: Others, judges: Judges) -> None:
        super().__init__(others)
        self._options = options
        self._judges = judges

    def _chunks(
        self, batch: ExecuteBatch, asking: Asking
    ) -> AsyncGenerator[TokenChunk, None]:
        return _Run(self._options, asking, self._judges, batch).chunks()


class _Run:
    """One request on its way down the stages."""

    def __init__(
        self,
        options: CascadeOptions,
        asking: Asking,
        judges: Judges,
        batch: ExecuteBatch,
    ) -> None:
        self._options = options
        self._asking = asking
        self._judges = judges
        self._batch = batch
        self._refused: _Refused | None = None
        self._passed_on = False

    async def chunks(self) -> AsyncGenerator[TokenChunk, None]:
        """Yield the chunks of the answer that is accepted."""
        failure: InferenceError | None = None
        for stage in self._options.stages:
            stream = self._asking.generate(self._asked(stage))
            try:
                async with aclosing(self._of_stage(stage, stream)) as chunks:
                    async for chunk in chunks:
                        self._passed_on = True
                        yield chunk
            except InferenceError as error:
                if self._passed_on or not goes_on_after(error):
                    raise
                failure = error
            finally:
                await stream.close()
            if self._passed_on:
                return
        for chunk in self._left_over(failure):
            yield chunk

    def _asked(self, stage: CascadeStage) -> ExecuteBatch:
        batch = attrs.evolve(self._batch, model=stage.model)
        if stage.timeout_s is not None:
            bounds = [b for b in (batch.timeout_s, stage.timeout_s) if b is not None]
            batch = attrs.evolve(batch, timeout_s=min(bounds))
        if stage.min_logprob is not None and batch.sampling.top_logprobs is None:
            sampling = attrs.evolve(batch.sampling, top_logprobs=0)
            batch = attrs.evolve(batch, sampling=sampling)
        return batch

    def _of_stage(
        self, stage: CascadeStage, stream: Stream
    ) -> AsyncGenerator[TokenChunk, None]:
        is_last = stage is self._options.stages[-1]
        if is_last and self._options.exhausted == "answer":
            return self._unjudged(stream)
        if self._options.stream == "commit" and self._batch.stream:
            return self._committed(stage, stream)
        return self._judged(stage, stream)

    async def _unjudged(self, stream: Stream) -> AsyncGenerator[TokenChunk, None]:
        async for chunk in stream:
            yield chunk

    async def _judged(
        self, stage: CascadeStage, stream: Stream
    ) -> AsyncGenerator[TokenChunk, None]:
        held = [chunk async for chunk in stream]
        why = await self._verdict(stage, held)
        self._say(stage, stream, why, held)
        if why is None:
            for chunk in held:
                yield self._shown(chunk)

    async def _committed(
        self, stage: CascadeStage, stream: Stream
    ) -> AsyncGenerator[TokenChunk, None]:
        held: list[TokenChunk] = []
        chars = 0
        async for chunk in stream:
            held.append(chunk)
            # What calls a tool, or thinks, has begun an answer as well as a text.
            chars += len(chunk.text) + sum(len(c.arguments) for c in chunk.tool_calls)
            if chars >= self._options.commit_chars:
                break
        is_whole = chars < self._options.commit_chars
        why = judge(stage, self._batch, held) if is_whole else None
        why = why or judge_beginning(stage, held)
        self._say(stage, stream, why, held)
        if why is None:
            for chunk in held:
                yield self._shown(chunk)
            async for chunk in stream:
                yield self._shown(chunk)

    async def _verdict(
        self, stage: CascadeStage, held: Sequence[TokenChunk]
    ) -> str | None:
        why = judge(stage, self._batch, held)
        if why is not None:
            return why
        return await self._judges.judge(stage, self._batch, held, self._asking)

    def _say(
        self,
        stage: CascadeStage,
        stream: Stream,
        why: str | None,
        held: Sequence[TokenChunk],
    ) -> None:
        if why is None:
            stream.judge("accepted")
            return
        # A function of the operator's, or names in an answer, may say anything.
        why = one_line(why)
        stream.judge(f"refused: {why}")
        # What has no chunk cannot be given; an earlier one's answer can.
        if held or self._refused is None or not self._refused.chunks:
            self._refused = _Refused(stage.model, why, held)

    def _shown(self, chunk: TokenChunk) -> TokenChunk:
        """Return a chunk without what only we asked for."""
        if chunk.logprobs is None or self._batch.sampling.top_logprobs is not None:
            return chunk
        return attrs.evolve(chunk, logprobs=None)

    def _left_over(self, failure: InferenceError | None) -> Sequence[TokenChunk]:
        """Return the latest answer that was not accepted, or raise.

        Raises:
            InferenceError: there is none, or it shall not be given.
        """
        refused = self._refused
        if refused and refused.chunks and self._options.exhausted == "answer":
            told = "" if failure is None else f"; the next one failed: {failure.kind}"
            warning = f"{refused.model} was refused ({refused.why}){told}"
            chunks = [self._shown(chunk) for chunk in refused.chunks]
            return [attrs.evolve(chunks[0], warnings=(warning,)), *chunks[1:]]
        if failure is None:
            assert refused is not None, "a stage fails, is refused, or answers"
            told = f"no answer was accepted; {refused.model}: {refused.why}"
            failure = UpstreamError(told, code="answer_refused")
        # Each stage was tried as often as its own deployment says.
        failure.final = True
        raise failure
