"""Whose is what upstreams keep: several clients behind one account.

To an upstream all clients are one, its account.  So a request that names what the
account keeps (a response to go on from, a file, a cached prompt) goes on only when
the gateway has seen it made for the same key; of everything else nobody here can
say whose it is, and the client gets the answer for what does not exist.

Without keys there is nobody to tell apart, and where each client brings its own
key to the upstream, the upstream does it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from atomr_infer.errors import (
    InferenceError,
    InvalidRequestError,
    UnknownReferenceError,
)
from atomr_infer.gateway.access.conversations import told
from atomr_infer.model.secret import HeaderSecret
from atomr_infer.store.trouble import StoreError
from atomr_infer.wire.references import references

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.shared import Serving
    from atomr_infer.store.responses import ResponseStore
    from atomr_infer.wire.ingress import Call
    from atomr_infer.wire.references import Reference

_PREVIOUS = "previous_response_id"


class _Named(msgspec.Struct):
    model: object = None


_decode = msgspec.json.Decoder(_Named).decode


class Tenants:
    """Tells the clients of one gateway apart."""

    def __init__(self, serving: Serving, store: ResponseStore) -> None:
        self._serving = serving
        self._store = store

    async def check(self, call: Call, *, owner: bytes) -> None:
        """Refuse a request that names what may be another client's.

        Args:
            call: the request, which could be read.
            owner: who asks.

        Raises:
            InvalidRequestError: as for what does not exist.
            NotReadyError: the store cannot be used.
        """
        named = references(call.body)
        if call.previous is not None:
            # What it goes on from is kept here, and is its owner's.
            named = tuple(each for each in named if each.param != _PREVIOUS)
        if not named or self._brings_own_key(call):
            return
        names = {reference.name for reference in named}
        now_s = int(time.time())
        with told():
            unknown = await self._store.unknown(names, owner=owner, now_s=now_s)
        for reference in named:
            if reference.name in unknown:
                raise _not_found(reference)

    async def note(self, names: tuple[str, ...], *, owner: bytes) -> bool:
        """Remember for whom an upstream made what it keeps.

        A store that cannot be written costs the client nothing but the way to go
        on; the log says why.

        Args:
            names: what the upstream calls it.
            owner: whose request it was.

        Returns:
            Whether it is remembered.
        """
        try:
            await self._store.remember(names, owner=owner, now_s=int(time.time()))
        except StoreError:
            return False
        return True

    def _brings_own_key(self, call: Call) -> bool:
        """Whether everyone who may answer is asked with the client's own key."""
        try:
            model = call.model or _decode(call.body).model
            route = self._serving.table.resolve(str(model))
        except (InferenceError, msgspec.DecodeError):
            return False  # whoever reads it says what is wrong with it
        names = [each.deployment for each in route.group]
        return all(
            isinstance(deployment.credential, HeaderSecret)
            for deployment in _reachable(self._serving.deployments, names)
        )


def _reachable(
    deployments: Mapping[str, Deployment], names: list[str]
) -> Iterator[Deployment]:
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name in seen or name not in deployments:
            continue
        seen.add(name)
        yield deployments[name]
        names += [fallback.to for fallback in deployments[name].fallbacks]


def _not_found(reference: Reference) -> InvalidRequestError:
    if reference.param == _PREVIOUS:
        return InvalidRequestError(
            f"Previous response with id {reference.name!r} not found.",
            code="previous_response_not_found",
            param=_PREVIOUS,
        )
    return UnknownReferenceError(
        f"{reference.param} names something that this gateway has not seen made for "
        "the key that asks; send the content itself",
        param=reference.param,
    )
