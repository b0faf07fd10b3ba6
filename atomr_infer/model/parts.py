"""What a message is made of, independent of any dialect.

A part that the canonical form does not know is a :class:`RawPart`: its JSON
reaches a runtime of the dialect that it came in, and is refused by any other
before the request starts.

What a provider signs (``signature``, ``data``) is opaque text that must go back
to the same provider on the same part in the same order; ``origin`` says whose
it is, so that a runtime of another provider drops it instead of sending it.

Pure.
"""

from __future__ import annotations

import attrs

from atomr_infer.model.dialect import Dialect

RawJson = bytes
"""One JSON value, UTF-8, as it was received."""


@attrs.frozen(kw_only=True)
class CacheHint:
    """Ask the provider to cache the prompt up to and including this part.

    Attributes:
        ttl: how long: ``"5m"`` or ``"1h"``; None: the provider's default.
    """

    ttl: str | None = None


@attrs.frozen
class Signature:
    """Opaque text by which a provider recognizes what it said before.

    Attributes:
        text: as it was received.
        origin: the dialect of the provider that made it.
    """

    text: str
    origin: Dialect


@attrs.frozen
class Url:
    """Media that somebody must fetch.

    Attributes:
        url: ``https://...``, or a provider's own scheme (``gs://...``).
        media_type: ``image/png``, ...; "" when the client did not say.
    """

    url: str
    media_type: str = attrs.field(default="", kw_only=True)


@attrs.frozen
class Inline:
    """Media inside the request.

    Attributes:
        media_type: ``image/png``, ...; "" when the client did not say.
        base64: the bytes in standard base64, as received.
    """

    media_type: str
    base64: str = attrs.field(repr=False)


@attrs.frozen
class FileId:
    """Media that was uploaded to the provider before.

    Attributes:
        id: the provider's name for it.
    """

    id: str


MediaSource = Url | Inline | FileId


@attrs.frozen
class TextPart:
    """Text.

    Attributes:
        text: the text.
        cache: a prompt-cache border behind it.
        signature: what Gemini attaches to a text that ends a thought.
    """

    text: str
    cache: CacheHint | None = attrs.field(default=None, kw_only=True)
    signature: Signature | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(kw_only=True)
class ImagePart:
    """A picture.

    Attributes:
        source: where its bytes are.
        detail: OpenAI's ``low``, ``high``, ``auto``; None: not said.
        cache: a prompt-cache border behind it.
    """

    source: MediaSource
    detail: str | None = None
    cache: CacheHint | None = None


@attrs.frozen(kw_only=True)
class AudioPart:
    """Recorded sound.

    Attributes:
        source: where its bytes are; its media type is ``audio/...``.
        cache: a prompt-cache border behind it.
    """

    source: MediaSource
    cache: CacheHint | None = None


@attrs.frozen(kw_only=True)
class FilePart:
    """A document: a PDF mostly; also a video for providers that watch it.

    Attributes:
        source: where its bytes are.
        filename: the client's name for it.
        cache: a prompt-cache border behind it.
    """

    source: MediaSource
    filename: str | None = None
    cache: CacheHint | None = None


@attrs.frozen(kw_only=True)
class ReasoningPart:
    """What the model thought, as it was shown in an earlier turn.

    Attributes:
        text: the readable thought or its summary; "" when it was redacted.
        signature: proves it to the provider.
        data: an encrypted thought that only its provider can read.
        id: the provider's name for the item (OpenAI Responses).
    """

    text: str = ""
    signature: Signature | None = None
    data: Signature | None = None
    id: str | None = None


@attrs.frozen(kw_only=True)
class ToolCallPart:
    """A tool that the assistant asked to run.

    Attributes:
        id: names the call; a result refers to it.
        name: the tool's.
        arguments: JSON text, as the model wrote it; it may be no valid JSON.
        signature: what Gemini attaches to a call.
        cache: a prompt-cache border behind it.
    """

    id: str
    name: str
    arguments: str
    signature: Signature | None = None
    cache: CacheHint | None = None


@attrs.frozen(kw_only=True)
class ToolResultPart:
    """What a tool returned.

    Attributes:
        call_id: the call's ``id``.
        content: text, and pictures or documents where the provider takes them.
        name: the tool's name, when the client said it.
        is_error: True when the tool failed.
        cache: a prompt-cache border behind it.
    """

    call_id: str
    content: tuple[TextPart | ImagePart | FilePart, ...] = ()
    name: str | None = None
    is_error: bool = False
    cache: CacheHint | None = None

    @property
    def text(self) -> str:
        """All text of the result, joined."""
        return "".join(p.text for p in self.content if isinstance(p, TextPart))


@attrs.frozen
class RefusalPart:
    """What the assistant said instead of an answer."""

    text: str


@attrs.frozen
class RawPart:
    """A content part that the canonical form does not know.

    Attributes:
        kind: its ``type``, or the member that tells what it is.
        json: the whole part as received.
    """

    kind: str
    json: RawJson


Part = (
    TextPart
    | ImagePart
    | AudioPart
    | FilePart
    | ReasoningPart
    | ToolCallPart
    | ToolResultPart
    | RefusalPart
    | RawPart
)
"""Anything that a message holds."""
