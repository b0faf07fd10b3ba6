"""Judges that have to be asked: a function of the operator's, or another model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import InferenceError
from atomr_infer.pipeline.asking.functions import (
    THREADS,
    call_function,
    find_function,
)
from atomr_infer.pipeline.asking.questions import filled, question
from atomr_infer.pipeline.asking.words import asked_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.pipeline.cascades.options import CascadeStage, Classifier
    from atomr_infer.runtimes.others import Asking

    Validator = Callable[[ExecuteBatch, str], object]


log = logging.getLogger(__name__)


class Judges:
    """The functions that a cascade's stages name, found once."""

    def __init__(self, stages: Sequence[CascadeStage]) -> None:
        """Import what the stages name.

        Raises:
            ConfigError: there is no such function.
        """
        named = {stage.validator for stage in stages if stage.validator is not None}
        self._validators = {
            name: find_function(name, what="stages: validator") for name in named
        }
        self._threads = trio.CapacityLimiter(THREADS)

    async def judge(
        self,
        stage: CascadeStage,
        batch: ExecuteBatch,
        chunks: Sequence[TokenChunk],
        asking: Asking,
    ) -> str | None:
        """Return why an answer is refused; None: it is accepted.

        A judge that fails accepts nothing.  What a model said is not in it, nor is
        what an error says: both may repeat what users wrote, and this is logged.

        Cancellation: ends what is asked; a plain function runs on in its thread, and
        what it says is not heard.
        """
        text = text_of(chunks)
        if stage.validator is not None:
            why = await self._validated(stage.validator, batch, text)
            if why is not None:
                return f"validator: {why}"
        if stage.classifier is not None:
            return await _classified(stage.classifier, batch, text, asking)
        return None

    async def _validated(self, name: str, batch: ExecuteBatch, text: str) -> str | None:
        function = self._validators[name]
        try:
            verdict = await call_function(function, batch, text, limiter=self._threads)
        except Exception as error:
            log.debug("the validator %s failed", name, exc_info=True)
            return type(error).__name__
        if verdict is True:
            return None
        return str(verdict) if isinstance(verdict, str) and verdict else "not accepted"


async def _classified(
    classifier: Classifier, batch: ExecuteBatch, text: str, asking: Asking
) -> str | None:
    prompt = filled(classifier.prompt, question=asked_of(batch), answer=text)
    stream = asking.generate(
        question(batch, classifier.model, prompt, max_tokens=classifier.max_tokens)
    )
    try:
        reply = text_of([chunk async for chunk in stream]).strip()
    except InferenceError as error:
        stream.judge("judge")
        return f"judge {classifier.model}: {error.kind}"
    finally:
        await stream.close()
    accepted = reply.casefold().startswith(classifier.accept.casefold())
    stream.judge(f"judge: {'accepted' if accepted else 'refused'}")
    return None if accepted else f"judge {classifier.model}: no {classifier.accept!r}"
