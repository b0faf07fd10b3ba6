"""Responses that later ones go on from: found before a request, kept behind it.

What is kept is the conversation in the client's own items, so that going on is
reading a longer ``input``.  A response is kept before its last bytes are sent: a
client may go on from it the moment it has it.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import InvalidRequestError, NotReadyError
from atomr_infer.model.dialect import Dialect
from atomr_infer.store.responses import ResponseStore, StoredResponse
from atomr_infer.store.trouble import StoreError
from atomr_infer.wire.openai.responses_items import input_items, joined, output_items

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.wire.ingress import Asked, Call, Ingress

NOT_STORED = "this response was not stored: the gateway's store cannot be written"
"""What the client is told, who gets its answer all the same."""


class Conversations:
    """The stored responses of one gateway."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def resume(
        self, ingress: Ingress, call: Call, asked: Asked, *, owner: bytes
    ) -> tuple[Asked, Call]:
        """Return a request with the conversation that it goes on from.

        One that is not stored here may be stored by the provider: the request
        stays as it is, and who cannot pass it on refuses it.

        Args:
            ingress: reads requests.
            call: the request.
            asked: the request, read.
            owner: who asks.

        Raises:
            InvalidRequestError: the conversation cannot be read any more.
            NotReadyError: the store cannot be used.
        """
        if asked.previous is None:
            return asked, call
        now_s = int(time.time())
        with told():
            found = await self._store.get(asked.previous, owner=owner, now_s=now_s)
        if found is None:
            return asked, call
        resumed = attrs.evolve(call, previous=found.items)
        return ingress.parse(resumed), resumed

    async def keep(self, call: Call, response: bytes, *, owner: bytes) -> bool:
        """Keep a response with the conversation in front of it.

        A store that cannot be written costs the client nothing but the way to
        go on; the log says why.

        Args:
            call: the request, with what it went on from.
            response: the response object, JSON.
            owner: who asked.

        Returns:
            Whether it is kept.
        """
        identity, output = output_items(response)
        stored = StoredResponse(
            id=identity,
            owner=owner,
            created_s=int(time.time()),
            items=joined(call.previous, input_items(call.body), output),
            body=response,
        )
        try:
            await self._store.put(stored)
        except StoreError:
            return False
        return True

    async def fetch(self, name: str, *, owner: bytes) -> bytes:
        """Return a stored response object.

        Raises:
            InvalidRequestError: there is none of that name for its owner.
            NotReadyError: the store cannot be used.
        """
        with told():
            found = await self._store.get(name, owner=owner, now_s=int(time.time()))
        if found is None:
            raise _unknown(name)
        return found.body

    async def forget(self, name: str, *, owner: bytes) -> None:
        """Delete a stored response.

        Raises:
            InvalidRequestError: there is none of that name for its owner.
            NotReadyError: the store cannot be used.
        """
        with told():
            found = await self._store.delete(name, owner=owner)
        if not found:
            raise _unknown(name)


@contextmanager
def told() -> Iterator[None]:
    """Make a store's failure within the block an error that a client is told.

    Raises:
        NotReadyError: the store cannot be used; the log says why.
    """
    try:
        yield
    except StoreError as error:
        raise NotReadyError(
            "the gateway's store of responses cannot be used now",
            code="response_store_unavailable",
        ) from error


def is_kept(asked: Asked) -> bool:
    """Whether an answer to this request is to be stored."""
    return asked.store and asked.batch.dialect is Dialect.OPENAI_RESPONSES


def _unknown(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"there is no stored response {name!r}", code="response_not_found"
    )
