"""A request read by a dialect, without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from atomr_infer.testing.upstreams.call import Call, Request

if TYPE_CHECKING:
    from atomr_infer.testing.upstream_script import Refused
    from atomr_infer.testing.upstreams.dialect import Dialect, Reply

HEADERS = {
    "authorization": "Bearer k",
    "x-goog-api-key": "k",
    "anthropic-version": "2023-06-01",
}


def read(
    dialect: Dialect,
    path: str,
    members: Any = None,
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    keys: tuple[str, ...] = ("k",),
) -> Call | Refused | Reply:
    """Read a request whose body is ``members``, or the bytes that they are."""
    path, _, query = path.partition("?")
    body = members if isinstance(members, bytes) else msgspec.json.encode(members)
    request = Request(
        method=method,
        path=path,
        query=dict(part.split("=") for part in query.split("&") if part),
        headers=HEADERS if headers is None else headers,
        body=body,
    )
    return dialect.read(request, keys)


def understood(dialect: Dialect, path: str, members: Any, **more: Any) -> Call:
    """Return what a dialect understood of a request that it must take."""
    asked = read(dialect, path, members, **more)
    assert isinstance(asked, Call), asked
    return asked
