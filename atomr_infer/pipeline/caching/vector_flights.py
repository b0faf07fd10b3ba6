"""Texts that are being embedded: who wants the same vector waits for it, too.

What is asked of the other deployment is a :class:`VectorFlight`, in a task of the
cache.  The request that begins one pays for it; others that want some of its vectors
join it.  It ends early when nobody waits for it any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import (
    BudgetExceededError,
    InferenceError,
    InvalidRequestError,
    ModelNotAllowedError,
    NotReadyError,
    UpstreamProtocolError,
)
from atomr_infer.serving.replicas.fresh_error import fresh

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.embeddings import Embeddings, EmbedRequest, Vector
    from atomr_infer.runtimes.others import Others

Inputs = Mapping[bytes, str | tuple[int, ...]]
"""Texts, or their token ids, by what they are known by."""


class VectorFlight:
    """Some texts that are asked for together.

    Attributes:
        wanted: the texts.
    """

    def __init__(self, wanted: Inputs) -> None:
        self.wanted = wanted
        self._found: Embeddings | None = None
        self._failure: InferenceError | None = None
        self._waiting = 0
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def is_left(self) -> bool:
        """Whether it ends, as nobody waits for it any more."""
        return self._scope.cancel_called

    async def run(
        self,
        others: Others,
        request: EmbedRequest,
        keep: Callable[[Mapping[bytes, Vector]], None],
    ) -> None:
        """Ask; never raises what is asked's errors.

        Args:
            others: who is asked.
            request: what is asked, whatever its texts.
            keep: takes the vectors, before anybody else does.
        """
        asked = attrs.evolve(
            request,
            inputs=tuple(self.wanted.values()),
            # Those who wait have bounds of their own.
            timeout_s=None,
        )
        try:
            with self._scope:
                async with others.asking() as asking:
                    found = await asking.embed(asked)
                    keep(self._by_key(found))
                    self._found = found
        except InferenceError as error:
            self._failure = error
        finally:
            if self._found is None and self._failure is None:
                self._failure = NotReadyError("the cache was stopped")
            self._ended.set()

    def _by_key(self, found: Embeddings) -> Mapping[bytes, Vector]:
        """Return the vectors by what their texts are known by.

        Raises:
            UpstreamProtocolError: they are not as many as the texts.
        """
        if len(found.vectors) != len(self.wanted):
            told = f"{len(found.vectors)} vectors for {len(self.wanted)} texts"
            raise UpstreamProtocolError(f"who was asked returned {told}")
        return dict(zip(self.wanted, found.vectors, strict=True))

    def join(self) -> None:
        """Want it, until :meth:`leave`."""
        self._waiting += 1

    async def leave(self) -> None:
        """Want it no more; end it if nobody else does."""
        self._waiting -= 1
        if not self._waiting and not self._ended.is_set():
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self._ended.wait()

    async def result(self) -> tuple[Embeddings, Mapping[bytes, Vector]]:
        """Wait for the vectors.

        Raises:
            InferenceError: it failed; each who waits has an error of its own.
        """
        await self._ended.wait()
        if self._failure is not None:
            error = fresh(self._failure)
            error.final = True
            raise error
        assert self._found is not None, "it has found something, or failed"
        return self._found, self._by_key(self._found)


def is_of_who_began(error: InferenceError) -> bool:
    """Whether a flight may have failed for who began it, and not for who joined.

    One of its texts may be wrong, or its key have spent what it may.
    """
    return isinstance(
        error, InvalidRequestError | BudgetExceededError | ModelNotAllowedError
    )
