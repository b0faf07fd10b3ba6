"""Media for a Gemini upstream: inside the request, or by a URI that it fetches.

Pure.

Source: Gemini API guides, "Image understanding" and "Files".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from atomr_infer.errors import InvalidRequestError, UnsupportedFeatureError
from atomr_infer.model.parts import FileId, Inline, Url
from atomr_infer.wire.sniff import sniff

if TYPE_CHECKING:
    from atomr_infer.model.parts import MediaSource

FETCHED_PREFIXES = (
    "gs://",
    "https://generativelanguage.googleapis.com/",
    "https://www.youtube.com/watch?v=",
    "https://youtu.be/",
)
"""The URLs that Google fetches itself; any other is fetched before it is asked."""

_FILE_NAME = re.compile(r"(?:files/)?[a-z0-9-]+")
_FILES_URL = "https://generativelanguage.googleapis.com/v1beta/"

_Part = dict[str, object]


def media_part(source: MediaSource, param: str) -> _Part:
    """Return the part for media.

    Raises:
        InvalidRequestError: nobody fetched it, or its type cannot be told.
        UnsupportedFeatureError: it was uploaded to another provider.
    """
    match source:
        case Inline():
            media_type = _media_type(source, param)
            return {"inlineData": {"mimeType": media_type, "data": source.base64}}
        case Url(url, media_type=media_type):
            if not url.startswith(FETCHED_PREFIXES):
                raise InvalidRequestError(
                    f"{param!r} is a URL that Gemini does not fetch; send its content",
                    code="unfetched_url",
                    param=param,
                )
            return _file(url, media_type)
        case FileId(name):
            if _FILE_NAME.fullmatch(name) is None or name.startswith("file-"):
                raise UnsupportedFeatureError(
                    f"{param!r} is not the name of a file uploaded to Gemini: {name}",
                    param=param,
                )
            return _file(_FILES_URL + "files/" + name.removeprefix("files/"), "")


def _file(uri: str, media_type: str) -> _Part:
    told: dict[str, object] = {"fileUri": uri}
    if media_type:
        told["mimeType"] = media_type
    return {"fileData": told}


def _media_type(source: Inline, param: str) -> str:
    """Return what the bytes say, where they say anything; else the client."""
    media_type = sniff(source.base64) or source.media_type
    if not media_type:
        raise InvalidRequestError(
            f"{param!r} has no media type, and its bytes do not tell", param=param
        )
    return media_type
