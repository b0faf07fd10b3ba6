"""The media type that a file's first bytes show.

A wrong declared type is a common reason for an upstream's refusal.

Pure.
"""

from __future__ import annotations

import base64
import binascii

# base64 of 24 bytes, more than any mark below needs.
_CHARS = 32

# What a file begins with, and at which byte.
_MARKS = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF87a", 0, "image/gif"),
    (b"GIF89a", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"ftypheic", 4, "image/heic"),
    (b"ftypmif1", 4, "image/heif"),
    (b"%PDF-", 0, "application/pdf"),
    (b"WAVE", 8, "audio/wav"),
    (b"ID3", 0, "audio/mp3"),
    (b"fLaC", 0, "audio/flac"),
)


def sniff(data: str) -> str | None:
    """Return the media type that base64 text begins like; None: not known.

    >>> sniff("iVBORw0KGgoAAAANSUhEUg==")
    'image/png'
    """
    try:
        head = base64.b64decode(data[:_CHARS])
    except (binascii.Error, ValueError):
        return None
    for mark, at, media_type in _MARKS:
        if head.startswith(mark, at):
            return media_type
    return None
