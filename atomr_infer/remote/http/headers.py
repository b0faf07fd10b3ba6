"""Request headers, checked before a secret in one could show in an error.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Headers = Sequence[tuple[str, str]]
"""Names and values, in order."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")


def check_header(name: str, value: str) -> None:
    """Refuse a header that HTTP/1.1 cannot carry.

    Raises:
        ValueError: names the header and never shows its value, which may be
            a secret.
    """
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not the name of an HTTP header")
    if _FIELD_VALUE.fullmatch(value) is None:
        raise ValueError(
            f"the value of the header {name!r} holds a character that HTTP does not"
            " allow: only visible ASCII with spaces in between"
        )


def encode_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return checked headers as bytes.

    Raises:
        ValueError: as :func:`check_header`.
    """
    for name, value in headers:
        check_header(name, value)
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
