"""How one deployment is asked, and where its chunks go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from atomr_infer.model.batch import RawChunk, TokenChunk
    from atomr_infer.serving.requests.delivery import Attempt


@attrs.frozen(kw_only=True)
class Terms:
    """How a leg is asked.

    Attributes:
        may_wait: whether its queue may be waited in.
        past_filter: True when an answer that a content filter ended is to be
            asked for elsewhere, as long as the client has seen nothing.
        continues: True when the request ends with the beginning of its answer.
    """

    may_wait: bool
    past_filter: bool
    continues: bool


class Receiver(Protocol):
    """Where the chunks of an attempt go."""

    @property
    def begun(self) -> bool:
        """Whether the sink has been told that an answer starts."""
        ...

    def admitted(self) -> None:
        """Take the news that the attempt has its permit."""
        ...

    async def chunk(self, chunk: TokenChunk | RawChunk, attempt: Attempt) -> None:
        """Take the next chunk."""
        ...
