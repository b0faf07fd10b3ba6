"""One answer on its way: from a step's logits to a chunk of text.

Decides when the answer ends: a token that ends texts, a stop string, or
``max_tokens``.  A token that ends texts is no part of the answer and is not
counted; every other token is, those of a stop string too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from atomr_infer.model.batch import FinishReason, TokenChunk
from atomr_infer.runtimes.decoding.speculation import SpeculativeDecoder
from atomr_infer.runtimes.decoding.text import Detokenizer, StopFinder

if TYPE_CHECKING:
    from atomr_infer.runtimes.decoding.sampling import Choice, Logits, Sampler
    from atomr_infer.runtimes.decoding.tokenizer import Tokenizer

_LEAST = -9999.0
"""What OpenAI writes for a token that was impossible; JSON has no infinity."""


@attrs.frozen(kw_only=True)
class Ends:
    """What ends an answer.

    Attributes:
        tokens: the model's own ends.
        stops: the request's stop strings.
        most: most tokens.
    """

    tokens: frozenset[int]
    stops: Sequence[str]
    most: int


class Answer:
    """One of a generation's answers.

    Args:
        index: which one.
        sampler: chooses its tokens.
        ends: what ends it.
        tokenizer: the model's.
        drafts: tokens that a draft may propose at once; 0: there is none.
        is_seeded: whether it has to be the same again.

    Attributes:
        index: which one.
        token: the newest token, which the model has not read yet.
        count: tokens that were made.
        finished: whether it has ended.
        drafts: what a draft proposes; None: nothing.
    """

    def __init__(
        self,
        index: int,
        sampler: Sampler,
        ends: Ends,
        tokenizer: Tokenizer,
        *,
        drafts: int = 0,
        is_seeded: bool = False,
    ) -> None:
        self.index = index
        self.token = -1
        self.count = 0
        self.finished = False
        self.drafts: SpeculativeDecoder | None = None
        # What constrains an answer follows its tokens, and cannot go back.
        if drafts and not sampler.is_constrained:
            # The likeliest token is the same, however it was found.
            is_steady = is_seeded and not sampler.is_greedy
            self.drafts = SpeculativeDecoder(sampler, most=drafts, is_steady=is_steady)
        self._sampler = sampler
        self._ends = ends
        self._tokenizer = tokenizer
        self._words = Detokenizer(tokenizer.decode)
        self._stops = StopFinder(ends.stops)
        self._made = 0  # characters that the tokens so far have given
        self._shown = 0  # characters of those that were told
        self._reports: deque[tuple[int, dict[str, Any]]] = deque()

    def take(self, logits: Logits) -> TokenChunk | None:
        """Choose the next token; return what is new to tell.

        Raises:
            EngineError: the model's output is no numbers.
        """
        return self.put(self._sampler.choose(logits))

    @property
    def left(self) -> int:
        """Tokens that it may still get."""
        return self._ends.most - self.count

    def put(self, choice: Choice) -> TokenChunk | None:
        """Take the next token; return what is new to tell."""
        self.token = choice.token
        if choice.token in self._ends.tokens:
            return self._finish(FinishReason.STOP, self._rest())
        self.count += 1
        self._note(choice)
        return self._tell(self._words.push(choice.token))

    def _tell(self, new: str) -> TokenChunk | None:
        self._made += len(new)
        told = self._stops.push(new)
        if told.stop is not None:
            return self._finish(FinishReason.STOP, told.text, told.stop)
        if self.count >= self._ends.most:
            return self._at_most(told.text)
        return self._chunk(told.text) if told.text else None

    def _at_most(self, text: str) -> TokenChunk:
        last = self._stops.push(self._words.flush())
        if last.stop is not None:
            return self._finish(FinishReason.STOP, text + last.text, last.stop)
        rest = last.text + self._stops.flush()
        return self._finish(FinishReason.LENGTH, text + rest)

    def _rest(self) -> str:
        """What was held back when the model ended by itself."""
        return self._stops.push(self._words.flush()).text + self._stops.flush()

    def _finish(
        self, reason: FinishReason, text: str, stop: str | None = None
    ) -> TokenChunk:
        self.finished = True
        return attrs.evolve(self._chunk(text), finish_reason=reason, stop_sequence=stop)

    def _chunk(self, text: str) -> TokenChunk:
        self._shown += len(text)
        return TokenChunk(text=text, index=self.index, logprobs=self._told_reports())

    # --- probabilities ----------------------------------------------------------

    def _note(self, choice: Choice) -> None:
        if choice.logprob is None:
            return
        report = _report(self._tokenizer, choice.token, choice.logprob)
        report["top_logprobs"] = [
            _report(self._tokenizer, token, logprob) for token, logprob in choice.top
        ]
        self._reports.append((self._made, report))

    def _told_reports(self) -> bytes | None:
        """Return the probabilities of the tokens whose text has been told."""
        told = []
        while self._reports and self._reports[0][0] < self._shown:
            told.append(self._reports.popleft()[1])
        if not told:
            return None
        return msgspec.json.encode({"content": told, "refusal": None})


def _report(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    # A part of a character has no text of its own; its bytes, joined to those of
    # the tokens beside it, have.
    data = tokenizer.bytes_of(token)
    return {
        "token": tokenizer.name_of(token),
        "logprob": max(logprob, _LEAST),
        "bytes": None if data is None else list(data),
    }
