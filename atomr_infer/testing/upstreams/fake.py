"""The fake upstream itself: connections, the script, and the record of requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import attrs
import msgspec
import trio

from atomr_infer.testing.upstream_script import Behaviour, Happy, Refused
from atomr_infer.testing.upstreams.call import Call, Media, Request
from atomr_infer.testing.upstreams.dialect import Dialect, Reply
from atomr_infer.testing.upstreams.http2_server import Http2Connection, Http2Stream
from atomr_infer.testing.upstreams.openai import OpenAIDialect
from atomr_infer.testing.upstreams.plan import plan, refuse
from atomr_infer.testing.upstreams.server import RequestHead, ServerConnection
from atomr_infer.testing.upstreams.steps import Step, answer_json

if TYPE_CHECKING:
    from atomr_infer.testing.upstreams.rate_limit import SlidingLimit


@attrs.define(eq=False)
class RecordedRequest:
    """A request as the upstream saw it.

    Attributes:
        method: ``POST``, ...
        path: with its query.
        headers: by lower-case name.
        body: the whole body.
        connection: which TCP connection it came on, counted from 0.
        received_at: trio's clock when the body was complete.
        call: what the dialect understood of it; None: it was refused, or asks
            for nothing that a script answers.
        client_left: set when the client ended or dropped the connection before
            the answer was complete.
        left_at: trio's clock then; None: it has not left.
        answered: set when the answer was sent to its end.
        ended_at: trio's clock when nothing more was to be sent; None: the
            answer is under way.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)
    connection: int
    received_at: float
    call: Call | None = None
    client_left: trio.Event = attrs.field(factory=trio.Event, repr=False)
    left_at: float | None = None
    answered: trio.Event = attrs.field(factory=trio.Event, repr=False)
    ended_at: float | None = None

    @property
    def is_check(self) -> bool:
        """Whether a gateway asks for the models, to see what becomes of its key."""
        ours = self.headers.get("user-agent") == "atomr-infer"
        return ours and self.method == "GET"

    @property
    def open(self) -> bool:
        """Whether the answer is under way, or a silence that stands for one."""
        return self.ended_at is None

    @property
    def json(self) -> Any:  # noqa: ANN401 - a JSON value has no narrower type
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    @property
    def media(self) -> tuple[Media, ...]:
        """What in the prompt is not text: media types, and sizes decoded."""
        return () if self.call is None else self.call.media


class FakeUpstream:
    """The upstream, as a test sees it.

    Attributes:
        dialect: what it speaks.
        origin: ``http://127.0.0.1:PORT``; "" while nothing listens.
        base_url: what a client of the dialect is given; ``{origin}/v1`` for
            OpenAI's.
        otherwise: what requests past the script's end get.
        limit: the rate limit that it keeps, before any script; None: there is none.
        api_keys: keys that it takes; empty: nobody is refused.  A test that
            rotates keys changes it.
        requests: every request so far, in order of arrival; without ``checks``.
        checks: requests by which a gateway finds out whether its key is taken.
        connections: TCP connections so far.
    """

    def __init__(
        self,
        script: Iterable[Behaviour] = (),
        *,
        dialect: Dialect | None = None,
        otherwise: Behaviour | None = None,
        api_key: str | None = None,
    ) -> None:
        """Make an upstream that no client can reach yet.

        Args:
            script: behaviours of the first requests.
            dialect: what it speaks; None: OpenAI's.
            otherwise: behaviour of all further ones; None: ``Happy()``.
            api_key: asked for; None: nobody is refused.
        """
        self._script = iter(script)
        self.otherwise: Behaviour = otherwise if otherwise is not None else Happy()
        self.limit: SlidingLimit | None = None
        self._arrival = trio.Event()
        self.dialect: Dialect = dialect if dialect is not None else OpenAIDialect()
        self.origin = ""
        self.api_keys: set[str] = set() if api_key is None else {api_key}
        self.requests: list[RecordedRequest] = []
        self.checks: list[RecordedRequest] = []
        self.connections = 0

    @property
    def base_url(self) -> str:
        """What a client of the dialect is given as its base URL."""
        return self.dialect.base_url(self.origin)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until so many requests have arrived in all."""
        while len(self.requests) < count:
            await self._arrival.wait()

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one HTTP/1.1 connection over any stream until either side ends it."""
        number = self._connected()
        connection = ServerConnection(stream)
        async with stream:
            while (head := await connection.receive_request()) is not None:
                if not await self._exchange(head, connection, number):
                    return

    async def serve_http2(self, stream: trio.abc.Stream) -> None:
        """Serve one HTTP/2 connection over any stream until either side ends it."""
        number = self._connected()

        async def answer(head: RequestHead, each: Http2Stream) -> None:
            await self._exchange(head, each, number)

        async with stream:
            await Http2Connection(stream).serve(answer)

    def _connected(self) -> int:
        self.connections += 1
        return self.connections - 1

    async def _exchange(
        self, head: RequestHead, answerer: ServerConnection | Http2Stream, number: int
    ) -> bool:
        recorded = RecordedRequest(
            method=head.method,
            path=head.path,
            headers=head.headers,
            body=head.body,
            connection=number,
            received_at=trio.current_time(),
        )
        steps = self._steps(head, recorded)
        self._record(recorded)
        return await self._answer(answerer, recorded, steps)

    def _record(self, request: RecordedRequest) -> None:
        if request.is_check:
            self.checks.append(request)
            return
        self.requests.append(request)
        self._arrival.set()
        self._arrival = trio.Event()

    async def _answer(
        self,
        connection: ServerConnection | Http2Stream,
        request: RecordedRequest,
        steps: Iterator[Step],
    ) -> bool:
        kept = await connection.perform(steps)
        request.ended_at = trio.current_time()
        if connection.complete:
            request.answered.set()
        elif connection.peer_left:
            request.left_at = trio.current_time()
            request.client_left.set()
        return kept

    def _steps(self, head: RequestHead, recorded: RecordedRequest) -> Iterator[Step]:
        asked = self.dialect.read(_request(head), self.api_keys)
        if isinstance(asked, Refused):
            return refuse(asked, self.dialect)
        if isinstance(asked, Reply):
            return answer_json(200, asked.members)
        recorded.call = asked
        refusal = None
        if self.limit is not None:
            refusal = self.limit.judge(recorded.received_at)
        behaviour = refusal or next(self._script, self.otherwise)
        dialect = self.dialect
        if self.limit is not None and isinstance(dialect, OpenAIDialect):
            dialect = attrs.evolve(dialect, limit=self.limit)
        return plan(behaviour, call=asked, dialect=dialect)


def _request(head: RequestHead) -> Request:
    path, _, query = head.path.partition("?")
    return Request(
        method=head.method,
        path=unquote(path),
        query=dict(reversed(parse_qsl(query, keep_blank_values=True))),
        headers=head.headers,
        body=head.body,
    )
