"""What a file is, by its first bytes."""

from __future__ import annotations

from base64 import b64encode

import pytest

from atomr_infer.wire.sniff import sniff


@pytest.mark.parametrize(
    ("front", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBP", "image/webp"),
        (b"\x00\x00\x00\x18ftypheic", "image/heic"),
        (b"%PDF-1.7", "application/pdf"),
        (b"RIFF\x00\x00\x00\x00WAVE", "audio/wav"),
        (b"ID3\x04", "audio/mp3"),
        (b"fLaC", "audio/flac"),
        (b"hello", None),
        (b"", None),
    ],
)
def test_media_type_is_what_the_first_bytes_show(
    front: bytes, media_type: str | None
) -> None:
    assert sniff(b64encode(front + b"\0" * 40).decode()) == media_type
    assert sniff(b64encode(front).decode()) == media_type


@pytest.mark.parametrize("text", ["a", "é", "====", "not base64 at all"])
def test_text_that_is_no_base64_is_of_no_known_kind(text: str) -> None:
    assert sniff(text) is None
