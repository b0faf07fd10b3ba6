"""An answer that breaks off in the middle of a read: what came before counts.

One read can hold half an answer and the error behind it.  The half was said by
the upstream, so the client gets it, and then the error.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from atomr_infer.errors import InferenceError, UpstreamProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.usage import Usage

E = TypeVar("E")
C = TypeVar("C")


class BreaksOff:
    """A reader of an answer, event by event.

    Attributes:
        error: what broke the answer behind the chunks that were returned last;
            None: nothing did.
        ended: True once the answer is over.
        streams_json: True for a dialect in which a stream may be JSON.
    """

    error: InferenceError | None = None
    ended: bool = False
    streams_json: bool = False

    @property
    def counted(self) -> Usage | None:
        """What the upstream has said up to here that it used; None: nothing."""
        return None

    def take_all(
        self, events: Iterable[E], take: Callable[[E], Iterable[C]]
    ) -> list[C]:
        """Return the chunks of all events, up to the answer's end or error.

        Args:
            events: in order.
            take: makes the chunks of one.

        Raises:
            InferenceError: the error, when nothing came before it; otherwise
                it is kept in ``error``.
        """
        chunks: list[C] = []
        for event in events:
            if self.ended:
                break
            try:
                chunks += take(event)
            except InferenceError as error:
                if not chunks:
                    raise
                self.error = error
                break
        return chunks


def refuse_unasked(batch: ExecuteBatch) -> None:
    """Refuse events for a client that asked for one object, where bytes are passed on.

    Raises:
        UpstreamProtocolError: nobody asked for a stream.
    """
    if not batch.stream:
        raise UpstreamProtocolError(
            "the upstream streams an answer that was asked for whole",
            code="unasked_stream",
        )
