"""Turn URLs in a request into bytes, for a model whose provider fetches none."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.capabilities import is_fetched_there
from atomr_infer.model.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Inline,
    Part,
    ToolResultPart,
    Url,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.capabilities import Capabilities

    Fetch = Callable[[str], Awaitable[Inline]]

P = TypeVar("P", bound=Part)

# A few large files; a request's own bytes are bounded by as much (base64).
_MAX_CHARS = 64 * 1024 * 1024


async def inlined(
    batch: ExecuteBatch, capabilities: Capabilities, fetch: Fetch | None = None
) -> ExecuteBatch:
    """Return the request with all media fetched that its model does not fetch.

    A URL that stands twice is fetched once, but counts as often as it stands: a
    short request must not become a gigabyte.

    Args:
        batch: the request.
        capabilities: name the URLs that the model fetches itself.
        fetch: returns what a URL holds; None: asks its server.

    Raises:
        InvalidRequestError: one cannot be fetched, or all are too much together.

    Cancellation: closes the connection that is being read.
    """
    known: dict[str, Inline] = {}
    if fetch is None:
        # Here, so that a program without such URLs does not load an HTTP client.
        from atomr_infer.remote.media import fetch_media  # noqa: PLC0415

        fetch = fetch_media
    left = _MAX_CHARS

    async def media_of(part: P) -> P:
        nonlocal left
        if not isinstance(part, ImagePart | AudioPart | FilePart):
            return part
        if is_fetched_there(part, capabilities):
            return part
        assert isinstance(part.source, Url), "what is not named by URL is here"
        url = part.source.url
        if url not in known:
            known[url] = await fetch(url)
        left -= len(known[url].base64)
        if left < 0:
            raise _too_much()
        return attrs.evolve(part, source=known[url])

    async def part_of(part: Part) -> Part:
        if isinstance(part, ToolResultPart):
            content = [await media_of(inner) for inner in part.content]
            return attrs.evolve(part, content=tuple(content))
        return await media_of(part)

    messages = []
    for message in batch.messages:
        parts = [await part_of(part) for part in message.content]
        messages.append(attrs.evolve(message, content=tuple(parts)))
    # The client's own bytes still hold the URLs.
    return attrs.evolve(batch, messages=tuple(messages), source=None)


def _too_much() -> InvalidRequestError:
    return InvalidRequestError(
        "the URLs in the messages hold too much together: at most "
        f"{_MAX_CHARS // 1024 // 1024} MiB in base64",
        code="invalid_image_url",
    )
