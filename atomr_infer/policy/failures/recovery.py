"""Taking up an answer whose stream broke after its first words.

A :class:`Transcript` is what the client has of the answer.  Another attempt can
take it up in one of two ways:

``restart_match``  The request is made again, and a :class:`Matcher` leaves out of
                   the new answer what the client has, for as long as the two
                   agree.  At the first difference it gives up: what the client
                   has cannot be taken back.
``continue``       The text so far is given to the model as the beginning of its
                   own turn, and it goes on from there.

Neither may follow what another attempt cannot repeat: a tool call, a signed
thought, a probability.

Pure.
"""

from __future__ import annotations

import attrs

from atomr_infer.model.batch import ExecuteBatch, Message, RawChunk, Role, TokenChunk

Channel = tuple[int, int | None]
"""The choice, and the number of a thought in it; None: the choice's text."""


class DivergedError(Exception):
    """The new answer is another one than the client has the beginning of."""


class Transcript:
    """What a client has of an answer."""

    def __init__(self) -> None:
        self._texts: dict[Channel, list[str]] = {}
        self._finished: set[int] = set()
        self._fixed = False

    @property
    def fixed(self) -> bool:
        """True when it holds what no other attempt can take up."""
        return self._fixed

    @property
    def finished(self) -> frozenset[int]:
        """The choices that have ended."""
        return frozenset(self._finished)

    def texts(self) -> dict[Channel, str]:
        """Return everything that was said, by channel."""
        return {channel: "".join(said) for channel, said in self._texts.items()}

    def add(self, chunk: TokenChunk | RawChunk) -> None:
        """Take a chunk that the client got."""
        if isinstance(chunk, RawChunk):
            self._fixed = True
            return
        if _is_fixed(chunk):
            self._fixed = True
        if chunk.text:
            self._texts.setdefault((chunk.index, None), []).append(chunk.text)
        if chunk.reasoning is not None and chunk.reasoning.text:
            channel = (chunk.index, chunk.reasoning.block)
            self._texts.setdefault(channel, []).append(chunk.reasoning.text)
        if chunk.finish_reason is not None:
            self._finished.add(chunk.index)


def _is_fixed(chunk: TokenChunk) -> bool:
    thought = chunk.reasoning
    signed = thought is not None and (thought.signature or thought.data)
    return bool(
        signed
        or chunk.tool_calls
        or chunk.refusal
        or chunk.logprobs
        or chunk.text_signature
        or chunk.extra
        or chunk.choice_extra
    )


class Matcher:
    """Leaves out of a new answer what the client has of the old one."""

    def __init__(self, transcript: Transcript) -> None:
        """Begin to compare.

        Args:
            transcript: what the client has; later changes do not count.
        """
        self._finished = transcript.finished
        self._left = {
            channel: text
            for channel, text in transcript.texts().items()
            if channel[0] not in self._finished
        }

    def take(self, chunk: TokenChunk) -> TokenChunk | None:
        """Return what of a chunk is new to the client; None: nothing.

        Raises:
            DivergedError: it says something else than the client has, or ends
                before all of that was said.
        """
        if chunk.usage is not None and self._left:
            raise DivergedError
        if chunk.index in self._finished:
            # The client has this choice whole; what is new is not for it.
            return TokenChunk(usage=chunk.usage) if chunk.usage else None
        if not self._left:
            return chunk
        if chunk.reasoning is not None:
            chunk = self._thought(chunk)
        if chunk.text:
            text = self._unsaid((chunk.index, None), chunk.text)
            chunk = attrs.evolve(chunk, text=text)
        ends = chunk.finish_reason or chunk.tool_calls or chunk.refusal
        if ends and any(index == chunk.index for index, _ in self._left):
            raise DivergedError
        return chunk if _says_something(chunk) else None

    def _thought(self, chunk: TokenChunk) -> TokenChunk:
        thought = chunk.reasoning
        assert thought is not None, "the caller has looked"
        if (chunk.index, None) in self._left and not self._has_thought(chunk.index):
            # It thinks about what has been said; the thought comes too late.
            return attrs.evolve(chunk, reasoning=None)
        text = self._unsaid((chunk.index, thought.block), thought.text)
        if not text and thought.signature is None and thought.data is None:
            return attrs.evolve(chunk, reasoning=None)
        return attrs.evolve(chunk, reasoning=attrs.evolve(thought, text=text))

    def _has_thought(self, index: int) -> bool:
        return any(at == index and block is not None for at, block in self._left)

    def _unsaid(self, channel: Channel, text: str) -> str:
        expected = self._left.get(channel, "")
        if expected.startswith(text):
            self._keep(channel, expected[len(text) :])
            return ""
        if text.startswith(expected):
            self._keep(channel, "")
            return text[len(expected) :]
        raise DivergedError

    def _keep(self, channel: Channel, left: str) -> None:
        if left:
            self._left[channel] = left
        else:
            self._left.pop(channel, None)


def _says_something(chunk: TokenChunk) -> bool:
    return bool(
        chunk.has_content
        or chunk.finish_reason
        or chunk.usage
        or chunk.choice_extra
        or chunk.logprobs
    )


def continued(batch: ExecuteBatch, transcript: Transcript) -> ExecuteBatch | None:
    """Return the request with the answer so far as the model's own beginning.

    Returns:
        None when it cannot be asked so: several answers, a thought, a text
        completion, or no text yet.
    """
    texts = transcript.texts()
    if batch.sampling.n != 1 or set(texts) != {(0, None)}:
        return None
    if batch.prompt is not None:
        return None
    said = Message(Role.ASSISTANT, texts[0, None])
    return attrs.evolve(batch, messages=(*batch.messages, said), source=None)
