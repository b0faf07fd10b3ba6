"""The versions of the Messages API, and what each one refuses.

A client says its version in the header ``anthropic-version``.  Since 2026-10-21
``temperature``, ``top_p`` and ``top_k`` are no members of a request any more,
an assistant's turn holds no document, and a user's text no citations.

Pure.

Source: Anthropic API, "Versions".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from atomr_infer.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = "anthropic-version"
"""The request header that says the version."""

BETA_HEADER = "anthropic-beta"
"""The request header that switches unfinished features on."""

OLD = "2023-06-01"
"""The version that takes sampling members."""

NEW = "2026-10-21"
"""The version that today's client libraries send."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def version_of(header: str | None) -> str:
    """Return the version that a request is in; without the header, the old one.

    Raises:
        InvalidRequestError: the header holds no date.
    """
    if header is None:
        return OLD
    if _DATE.fullmatch(header) is None:
        raise InvalidRequestError(
            f"the header {HEADER!r} must be a version such as {NEW}, not {header!r}",
            param=HEADER,
        )
    return header


def takes_sampling(version: str) -> bool:
    """Return True for a version before the members were removed.

    >>> takes_sampling("2023-06-01"), takes_sampling("2026-10-21")
    (True, False)
    """
    return version < NEW


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request that say how its body is read."""
    return {name: headers[name] for name in (HEADER, BETA_HEADER) if name in headers}
