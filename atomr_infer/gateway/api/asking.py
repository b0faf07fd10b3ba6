"""Who asks, and for what: all that a request's head says to the routes.

It is worked out once for each head, and the heads of a connection mostly say the
same, so most requests find it in the notes of the one before.  A virtual key is not
judged here: it may be revoked before the next request.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import attrs

from atomr_infer.gateway.access.door import Door
from atomr_infer.gateway.exchanges.routes import (
    OPEN_TO_ALL,
    NoRoute,
    Target,
    WrongMethod,
    find,
)
from atomr_infer.model.asker import ANYBODY, Visitor
from atomr_infer.wire.anthropic.versions import BETA_HEADER

if TYPE_CHECKING:
    from atomr_infer.gateway.access.cors import Cors
    from atomr_infer.gateway.exchanges.exchange import Exchange
    from atomr_infer.serving.requests.meters import Meters


@attrs.frozen
class Asking:
    """What a head says.

    Attributes:
        headers: by lower-case name, without the body's length.
        query: by name.
        target: where it leads.
        visitor: who asks; None: nobody whom we know for good.
        digest: of the virtual key that it shows; None: it shows none.
        extra: headers of the answer, whichever it is.
        door: by which the visitor is known; another may know another.
    """

    headers: Mapping[str, str] = attrs.field(repr=False)
    query: Mapping[str, str] = attrs.field(repr=False)
    target: Target | NoRoute | WrongMethod
    visitor: Visitor | None
    digest: bytes | None = attrs.field(repr=False)
    extra: tuple[tuple[bytes, bytes], ...]
    door: Door


def asking(exchange: Exchange, *, door: Door, cors: Cors) -> Asking:
    """Return what a request's head says.

    Args:
        exchange: the request; noted in its notes.
        door: says who may come in.
        cors: which pages may ask.
    """
    known = exchange.notes.known
    if isinstance(known, Asking) and known.door is door:
        return known
    headers = _by_name(exchange.headers)
    query = _query(exchange.query)
    target = find(exchange.method, exchange.path, headers)
    visitor: Visitor | None = ANYBODY
    digest = None
    if isinstance(target, Target) and target.action not in OPEN_TO_ALL:
        visitor = door.visitor(headers, query)
        if visitor is None:
            digest = door.digest(headers, query)
    found = exchange.notes.known = Asking(
        headers=headers,
        query=query,
        target=target,
        visitor=visitor,
        digest=digest,
        extra=tuple(cors.headers(headers)),
        door=door,
    )
    return found


def note_answer(meters: Meters, exchange: Exchange) -> None:
    """Count how a request was answered: by its route, by no word of the client's."""
    known = exchange.notes.known
    action, dialect = "none", ""
    if isinstance(known, Asking) and isinstance(known.target, Target):
        action, dialect = known.target.action.value, known.target.dialect.value
    meters.answers[action, dialect, exchange.status] += 1


def _by_name(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    if len(found) != len(headers) and BETA_HEADER in found:
        beta = BETA_HEADER.encode()
        told = [value for name, value in headers if name == beta]
        found[BETA_HEADER] = b",".join(told).decode("latin-1")
    # Heads that say the same but for it share what is found here.
    found.pop("content-length", None)
    return found


def _query(raw: bytes) -> dict[str, str]:
    return dict(parse_qsl(raw.decode("latin-1"))) if raw else {}
