"""What every client of a provider does alike: ask, with a key, under the limits.

A plugin says what is asked (:class:`ProviderRequest`), how a key is shown, and
what an answer that is none means; this moves the bytes, keeps the time and
counts.  A generation is one exchange, so leaving its block closes its
connection, and the upstream stops.

Time: ``first_token_s`` runs from the start of the attempt, connecting
included, to its first chunk; for an answer that is not streamed that is the
whole of it.  ``idle_s`` runs between chunks.  Comments that a proxy sends to
keep a connection open are no chunks, so a hung engine behind one is noticed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import attrs
import trio

from atomr_infer.errors import (
    InferenceError,
    InvalidRequestError,
    UpstreamAuthError,
)
from atomr_infer.model.secret import Secret
from atomr_infer.remote.answer import (
    AnswerChunks,
    AnswerReader,
    first_token_timeout,
    is_late,
    read_error_body,
    within,
)
from atomr_infer.remote.blot import blot, without_secret
from atomr_infer.remote.counted import Counted
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.headers import Headers, check_header
from atomr_infer.remote.http.phases import HttpTimeouts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import Timeouts
    from atomr_infer.remote.http.dialing.tcp import Connect
    from atomr_infer.remote.http.exchange import Call
    from atomr_infer.remote.http.response import HttpResponse
    from atomr_infer.remote.session import Session

C = TypeVar("C")
T = TypeVar("T")

_OK = 200


@attrs.frozen(kw_only=True)
class ProviderRequest(Generic[C]):
    """A request that can be sent.

    Attributes:
        path: behind the endpoint, with its query.
        body: JSON.
        headers: beside those of every request and the key's.
        reader: makes what reads the answer, for the key that is used.
        warnings: what was approximated in it, for the client.
        method: of HTTP.
    """

    path: str
    body: bytes = attrs.field(repr=False)
    headers: Headers = ()
    reader: Callable[[Secret | None], AnswerReader[C]]
    warnings: tuple[str, ...] = ()
    method: str = "POST"


class Fault(Protocol):
    """Says what an answer other than 200 means."""

    def __call__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        now_epoch_s: float,
        secret: Secret | None = None,
    ) -> InferenceError:
        """Return the error of inference."""
        ...


def open_provider_client(
    endpoint: str,
    *,
    headers: Mapping[str, str],
    timeouts: Timeouts,
    http2: str = "off",
    connect: Connect | None = None,
) -> HttpClient:
    """Return a client of an endpoint; it connects when it is used.

    Args:
        endpoint: base URL, with its version.
        headers: the deployment's own; they win over the usual ones.
        timeouts: the deployment's.
        http2: one of ``HTTP2``.
        connect: opens streams; None: TCP and TLS.
    """
    usual = {
        "content-type": "application/json",
        # A compressor holds back the small pieces that a stream is made of.
        "accept-encoding": "identity",
        "user-agent": "atomr-infer",
    }
    return HttpClient(
        endpoint,
        headers=list((usual | dict(headers)).items()),
        timeouts=HttpTimeouts(
            connect_s=timeouts.connect_s,
            # Silence is measured between chunks, not between reads: see due_by.
            write_s=math.inf,
            head_s=math.inf,
            idle_s=math.inf,
        ),
        http2=http2,
        connect=connect,
    )


def key_header(name: str, value: str) -> Headers:
    """Return the header that shows a key.

    Raises:
        UpstreamAuthError: the key holds what no header can carry.
    """
    try:
        check_header(name, value)
    except ValueError as error:
        raise UpstreamAuthError(
            "the API key holds a character that no HTTP header can carry;"
            " look for a line end or a space in it"
        ) from error
    return [(name, value)]


class ProviderClient:
    """Makes a runner's requests.

    Attributes:
        active: requests now on a connection.
        session: the HTTP client and the keys.
        timeouts: the deployment's.
    """

    def __init__(
        self,
        session: Session[HttpClient],
        *,
        timeouts: Timeouts,
        replay: bool,
        show_key: Callable[[Secret], Headers],
        fault: Fault,
    ) -> None:
        """Take over a session.

        Args:
            session: the HTTP client and the keys.
            timeouts: the deployment's.
            replay: whether a request may be sent again on a fresh connection.
            show_key: the headers that carry a key.
            fault: what an answer other than 200 means.
        """
        self.session = session
        self.timeouts = timeouts
        self._replay = replay
        self._show_key = show_key
        self._fault = fault
        self._last_shown: tuple[Secret, Headers] | None = None
        self.active = 0

    def __repr__(self) -> str:
        return f"<ProviderClient {self.session.client!r}>"

    def generation(
        self, batch: ExecuteBatch, request: ProviderRequest[C]
    ) -> AbstractAsyncContextManager[AnswerChunks[C]]:
        """Return a block that runs one generation; its end is the generation's end.

        Raises:
            InferenceError: from entering the block or from the iteration.

        Cancellation: leaving the block before the last chunk closes the
            connection before the block's exit returns.
        """
        return Counted(self, self._chunks(batch, request))

    def _chunks(
        self, batch: ExecuteBatch, request: ProviderRequest[C]
    ) -> AbstractAsyncContextManager[AnswerChunks[C]]:
        first_by = trio.current_time() + self.timeouts.first_token_s

        def read(response: HttpResponse, secret: Secret | None) -> AnswerChunks[C]:
            return AnswerChunks(
                batch,
                response,
                request.reader(secret),
                timeouts=self.timeouts,
                first_by=first_by,
                secret=secret,
                warnings=request.warnings,
            )

        begin = partial(_Answered, self, request, first_by, read)
        return self.session.attempt(begin, headers=batch.client_headers)

    def call(
        self,
        client: HttpClient,
        request: ProviderRequest[C],
        by: float,
        secret: Secret | None,
    ) -> Call:
        """Return a request with its key, ready to be sent.

        Raises:
            InvalidRequestError: a header of the client's cannot be sent.
        """
        key = () if secret is None else self._shown(secret)
        try:
            return client.call(
                request.method,
                request.path,
                headers=[*request.headers, *key],
                body=request.body,
                replay=self._replay,
                due_by=by,
            )
        except ValueError as error:
            # Ours were checked when they were read; these are the client's.
            raise InvalidRequestError(str(error)) from error

    async def ask(
        self,
        path: str,
        body: bytes,
        *,
        headers: Headers = (),
        client_headers: Mapping[str, str],
        method: str = "POST",
    ) -> bytes:
        """Make a request whose whole answer is wanted; return its body.

        Args:
            path: behind the endpoint, with its query.
            body: JSON.
            headers: beside those of every request and the key's.
            client_headers: where a client's own key may be.
            method: of HTTP.

        Raises:
            InferenceError: it failed, or took longer than ``first_token_s``.

        Cancellation: closes the connection.
        """
        by = trio.current_time() + self.timeouts.first_token_s
        request: ProviderRequest[bytes] = ProviderRequest(
            path=path, body=body, headers=headers, reader=_no_reader, method=method
        )
        begin = partial(self._read_all, request, by)
        async with Counted(
            self, self.session.attempt(begin, headers=client_headers)
        ) as answer:
            return answer

    @asynccontextmanager
    async def _read_all(
        self,
        request: ProviderRequest[bytes],
        by: float,
        client: HttpClient,
        secret: Secret | None,
    ) -> AsyncIterator[bytes]:
        late = first_token_timeout(self.timeouts)
        block = _Answered(self, request, by, _as_it_is, client, secret)
        with without_secret(secret), within(by, late):
            async with block as response:
                answer = await response.read()
        yield answer

    def exchange(
        self,
        client: HttpClient,
        request: ProviderRequest[C],
        by: float,
        secret: Secret | None,
    ) -> AbstractAsyncContextManager[HttpResponse]:
        """Return the block of a request's exchange.

        Raises:
            InvalidRequestError: a header of the client's cannot be sent.
        """
        return client.exchange(self.call(client, request, by, secret))

    def _shown(self, secret: Secret) -> Headers:
        """Return the headers that carry a key, which are checked once for each."""
        if self._last_shown is None or self._last_shown[0] is not secret:
            self._last_shown = secret, self._show_key(secret)
        return self._last_shown[1]

    async def fault_of(
        self, response: HttpResponse, secret: Secret | None
    ) -> InferenceError:
        """Return what an answer means whose status is not 200."""
        return self._fault(
            response.status,
            response.headers,
            await read_error_body(response),
            now_epoch_s=time.time(),
            secret=secret,
        )


class _Answered(Generic[C, T]):
    """The block of an exchange whose answer has status 200; by hand, as Counted is."""

    __slots__ = ("_block", "_by", "_client", "_http", "_read", "_request", "_secret")

    def __init__(
        self,
        client: ProviderClient,
        request: ProviderRequest[C],
        by: float,
        read: Callable[[HttpResponse, Secret | None], T],
        http: HttpClient,
        secret: Secret | None,
    ) -> None:
        self._client = client
        self._request = request
        self._by = by
        self._read = read
        self._http = http
        self._secret = secret
        self._block: AbstractAsyncContextManager[HttpResponse]

    async def __aenter__(self) -> T:
        client, secret = self._client, self._secret
        try:
            block = client.exchange(self._http, self._request, self._by, secret)
            response = await block.__aenter__()
        except InferenceError as error:
            blot(error, secret)
            if is_late(error):
                raise first_token_timeout(client.timeouts) from error
            raise
        try:
            value = await self._value(response)
        except BaseException as error:
            if isinstance(error, InferenceError):
                blot(error, secret)
            await block.__aexit__(type(error), error, error.__traceback__)
            raise
        self._block = block
        return value

    async def _value(self, response: HttpResponse) -> T:
        if response.status != _OK:
            raise await self._client.fault_of(response, self._secret)
        return self._read(response, self._secret)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._block.__aexit__(exc_type, exc, traceback)


def _as_it_is(response: HttpResponse, _: Secret | None) -> HttpResponse:
    return response


def _no_reader(_: Secret | None) -> AnswerReader[bytes]:
    raise AssertionError("the answer is read as one body")
