"""One request to the Gemini API, with the key in the header that it belongs in."""

from __future__ import annotations

import math
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import UpstreamAuthError
from atomr_infer.model.deployment import Timeouts
from atomr_infer.model.secret import Secret
from atomr_infer.remote.answer import first_token_timeout, read_error_body, within
from atomr_infer.remote.blot import without_secret
from atomr_infer.remote.headers import check_header
from atomr_infer.remote.http import HttpClient
from atomr_infer.remote.phases import HttpTimeouts
from atomr_infer.remote.response import HttpResponse
from atomr_infer.remote.session import Session
from atomr_infer_gemini.faults import fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from atomr_infer.remote.tcp import Connect
    from atomr_infer_gemini.config import GeminiOptions

_OK = 200

_HEADERS = (
    ("content-type", "application/json"),
    # A compressor holds back the small pieces that a stream is made of.
    ("accept-encoding", "identity"),
    ("user-agent", "atomr-infer"),
)


def open_client(
    options: GeminiOptions, timeouts: Timeouts, connect: Connect | None
) -> HttpClient:
    """Return a client of the deployment's endpoint; it connects when it is used."""
    return HttpClient(
        options.endpoint,
        headers=_HEADERS,
        timeouts=HttpTimeouts(
            connect_s=timeouts.connect_s,
            write_s=timeouts.first_token_s,
            head_s=timeouts.first_token_s,
            # Silence is measured between chunks, not between reads.
            idle_s=math.inf,
        ),
        connect=connect,
    )


@attrs.frozen
class Answer:
    """An answer whose status is 200.

    Attributes:
        response: the answer.
        secret: the key that it was got with, to be blotted out of errors.
    """

    response: HttpResponse
    secret: Secret | None


@attrs.frozen(kw_only=True)
class Exchanges:
    """Makes requests for a runner.

    Attributes:
        session: the client and the keys.
        timeouts: the deployment's.
        is_vertex: True when the key is an access token.
        replay: whether a request may be sent again on a fresh connection.
    """

    session: Session[HttpClient]
    timeouts: Timeouts
    is_vertex: bool
    replay: bool

    @asynccontextmanager
    async def post(
        self,
        path: str,
        body: bytes,
        *,
        first_by: float,
        client_headers: Mapping[str, str],
    ) -> AsyncIterator[Answer]:
        """Send a request; the block begins with the head of its answer.

        Args:
            path: with its query.
            body: JSON.
            first_by: the instant by which the head is due.
            client_headers: where a client's own key may be.

        Raises:
            InferenceError: the upstream refuses, or cannot be reached.

        Cancellation: closes the connection before the block's exit returns.
        """
        begin = partial(self._begin, path, body, first_by)
        async with self.session.attempt(begin, headers=client_headers) as answer:
            yield answer

    @asynccontextmanager
    async def _begin(
        self,
        path: str,
        body: bytes,
        first_by: float,
        client: HttpClient,
        secret: Secret | None,
    ) -> AsyncIterator[Answer]:
        async with AsyncExitStack() as stack:
            with without_secret(secret):
                request = client.request(
                    "POST",
                    path,
                    headers=self._key_header(secret),
                    body=body,
                    replay=self.replay,
                )
                with within(first_by, first_token_timeout(self.timeouts)):
                    response = await stack.enter_async_context(request)
                if response.status != _OK:
                    raise fault(
                        response.status,
                        response.headers,
                        await read_error_body(response),
                        now_epoch_s=time.time(),
                        secret=secret,
                    )
            yield Answer(response, secret)

    def _key_header(self, secret: Secret | None) -> list[tuple[str, str]]:
        if secret is None:
            return []
        name, value = "x-goog-api-key", secret.reveal()
        if self.is_vertex:
            name, value = "authorization", f"Bearer {value}"
        try:
            check_header(name, value)
        except ValueError as error:
            raise UpstreamAuthError(
                "the API key holds a character that no HTTP header can carry;"
                " look for a line end or a space in it"
            ) from error
        return [(name, value)]
