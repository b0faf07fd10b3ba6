"""Write pictures and documents as blocks of a Messages request.

A declared media type that is not what the bytes are is a common reason for a
400, so the bytes are looked at.

Pure.

Source: Anthropic API, "Vision", "PDF support".
"""

from __future__ import annotations

import base64

from atomr_infer.errors import InvalidRequestError, UnsupportedFeatureError
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    FileId,
    FilePart,
    ImagePart,
    Inline,
    MediaSource,
    Url,
)
from atomr_infer.wire.sniff import sniff

_PDF = "application/pdf"


def image_block(part: ImagePart, *, param: str, dialect: Dialect) -> dict[str, object]:
    """Return the block of a picture.

    Raises:
        InvalidRequestError: nobody can tell what the picture is, or it is
            another provider's file.
    """
    return {"type": "image", "source": _source(part.source, param, dialect)}


def document_block(
    part: FilePart, *, param: str, dialect: Dialect
) -> dict[str, object]:
    """Return the block of a document.

    Raises:
        InvalidRequestError: its text is no UTF-8, or it is another provider's.
        UnsupportedFeatureError: it is neither PDF nor text.
    """
    block: dict[str, object] = {"type": "document"}
    source = part.source
    if isinstance(source, Inline):
        block["source"] = _document_source(source, param)
    else:
        block["source"] = _source(source, param, dialect)
    if part.filename:
        block["title"] = part.filename
    return block


def _source(source: MediaSource, param: str, dialect: Dialect) -> dict[str, str]:
    if isinstance(source, Url):
        if not source.url.startswith("https://"):
            raise InvalidRequestError(
                f"'{param}' has a URL that Anthropic cannot fetch; use https",
                param=param,
            )
        return {"type": "url", "url": source.url}
    if isinstance(source, FileId):
        if dialect is not Dialect.ANTHROPIC:
            raise InvalidRequestError(
                f"'{param}' names a file of another provider; send its bytes",
                param=param,
            )
        return {"type": "file", "file_id": source.id}
    media_type = sniff(source.base64) or source.media_type
    if not media_type:
        raise InvalidRequestError(
            f"'{param}' has no media type, and its bytes do not tell", param=param
        )
    return {"type": "base64", "media_type": media_type, "data": source.base64}


def _document_source(source: Inline, param: str) -> dict[str, str]:
    media_type = sniff(source.base64) or source.media_type
    if media_type == _PDF:
        return {"type": "base64", "media_type": _PDF, "data": source.base64}
    if not media_type.startswith("text/"):
        raise UnsupportedFeatureError(
            f"this model reads PDF and text, not {media_type!r} ('{param}')",
            code="unsupported_parameter",
            param=param,
        )
    try:
        data = "".join(source.base64.split())
        text = base64.b64decode(data, validate=True).decode()
    except ValueError as error:
        raise InvalidRequestError(
            f"'{param}' is not text in base64 and UTF-8", param=param
        ) from error
    return {"type": "text", "media_type": "text/plain", "data": text}
