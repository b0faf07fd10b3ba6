"""A fake OpenAI-like upstream on a real socket, with scripted faults.

It speaks real HTTP/1.1, so that a client under test cannot tell it from a
provider, and it remembers every request and when its client left::

    async with open_openai_upstream([rate_limited(), Happy()]) as upstream:
        ...  # a client of upstream.base_url
        assert upstream.requests[0].json["model"] == "gpt-4o"

Requests take behaviours in order of arrival; past the script's end they get
``otherwise``.  It serves ``POST /v1/chat/completions`` and ``GET /v1/models``.

As a process, for examples and for tests that need one::

    python -m atomr_infer.testing.upstream --port 0
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import click
import msgspec
import trio

from atomr_infer.testing.upstream_call import parse_call
from atomr_infer.testing.upstream_plan import (
    Step,
    answer_json,
    plan,
    refuse,
)
from atomr_infer.testing.upstream_script import BY_NAME, Behaviour, Happy, Refused
from atomr_infer.testing.upstream_server import ServerConnection

_CHAT = "/v1/chat/completions"
_MODELS = "/v1/models"


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
        client_left: set when the client ended or dropped the connection before
            the answer was complete.
        left_at: trio's clock then; None: it has not left.
        answered: set when the answer was sent to its end.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)
    connection: int
    received_at: float
    client_left: trio.Event = attrs.field(factory=trio.Event, repr=False)
    left_at: float | None = None
    answered: trio.Event = attrs.field(factory=trio.Event, repr=False)

    @property
    def json(self) -> Any:  # noqa: ANN401 - a JSON value has no narrower type
        """The body, decoded."""
        return msgspec.json.decode(self.body)


class FakeUpstream:
    """The upstream, as a test sees it.

    Attributes:
        base_url: what a client is given: ``http://127.0.0.1:PORT/v1``.
        requests: every request so far, in order of arrival.
        connections: TCP connections so far.
    """

    def __init__(
        self,
        script: Iterable[Behaviour] = (),
        *,
        otherwise: Behaviour | None = None,
        api_key: str | None = None,
        models: Sequence[str] = ("fake-model",),
    ) -> None:
        """Make an upstream that no client can reach yet.

        Args:
            script: behaviours of the first requests.
            otherwise: behaviour of all further ones; None: ``Happy()``.
            api_key: asked for in ``Authorization``; None: nobody is refused.
            models: what ``GET /v1/models`` lists.
        """
        self._script = iter(script)
        self._otherwise = otherwise if otherwise is not None else Happy()
        self._api_key = api_key
        self._models = models
        self._arrival = trio.Event()
        self.base_url = ""
        self.requests: list[RecordedRequest] = []
        self.connections = 0

    async def wait_for_requests(self, count: int) -> None:
        """Wait until so many requests have arrived in all."""
        while len(self.requests) < count:
            await self._arrival.wait()

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection over any stream until either side ends it."""
        number = self.connections
        self.connections += 1
        connection = ServerConnection(stream)
        async with stream:
            while (head := await connection.receive_request()) is not None:
                recorded = RecordedRequest(
                    method=head.method,
                    path=head.path,
                    headers=head.headers,
                    body=head.body,
                    connection=number,
                    received_at=trio.current_time(),
                )
                self._record(recorded)
                if not await self._answer(connection, recorded):
                    return

    def _record(self, request: RecordedRequest) -> None:
        self.requests.append(request)
        self._arrival.set()
        self._arrival = trio.Event()

    async def _answer(
        self, connection: ServerConnection, request: RecordedRequest
    ) -> bool:
        kept = await connection.perform(self._steps(request))
        if connection.complete:
            request.answered.set()
        elif connection.peer_left:
            request.left_at = trio.current_time()
            request.client_left.set()
        return kept

    def _steps(self, request: RecordedRequest) -> Iterator[Step]:
        path = request.path.partition("?")[0]
        if path not in (_CHAT, _MODELS):
            return refuse(Refused(status=404, message=f"Unknown path {path}"))
        if request.method != ("POST" if path == _CHAT else "GET"):
            return refuse(Refused(status=405, message="Method not allowed"))
        if self._api_key is not None and not self._has_key(request):
            return refuse(
                Refused(
                    status=401,
                    message="Incorrect API key provided",
                    code="invalid_api_key",
                )
            )
        if path == _MODELS:
            return self._model_list()
        call = parse_call(request.body)
        if call is None:
            return refuse(
                Refused(status=400, message="The body is not a chat completion")
            )
        return plan(next(self._script, self._otherwise), call)

    def _has_key(self, request: RecordedRequest) -> bool:
        return request.headers.get("authorization") == f"Bearer {self._api_key}"

    def _model_list(self) -> Iterator[Step]:
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "fake"}
            for name in self._models
        ]
        return answer_json(200, {"object": "list", "data": models})


@asynccontextmanager
async def open_openai_upstream(
    script: Iterable[Behaviour] = (),
    *,
    otherwise: Behaviour | None = None,
    api_key: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[FakeUpstream]:
    """Serve a fake upstream; the block's end closes it and its connections.

    Args:
        script: behaviours of the first requests.
        otherwise: behaviour of all further ones; None: ``Happy()``.
        api_key: asked for in ``Authorization``; None: nobody is refused.
        host: address to listen on.
        port: TCP port; 0: any free one.
    """
    upstream = FakeUpstream(script, otherwise=otherwise, api_key=api_key)
    listeners = await trio.open_tcp_listeners(port, host=host)
    upstream.base_url = f"http://{host}:{listeners[0].socket.getsockname()[1]}/v1"
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, upstream.serve_stream, listeners)
        yield upstream
        nursery.cancel_scope.cancel()


async def _serve_until_signalled(
    script: Sequence[Behaviour], api_key: str | None, host: str, port: int
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_openai_upstream(
            script, api_key=api_key, host=host, port=port
        ) as upstream:
            click.echo(upstream.base_url)
            async for _ in signals:
                return


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, help="0: any free port.")
@click.option("--api-key", default=None, help="Ask for this key.")
@click.option(
    "--script",
    "names",
    multiple=True,
    type=click.Choice(sorted(BY_NAME)),
    help="Behaviour of the next request; may be given several times.",
)
def main(host: str, port: int, api_key: str | None, names: tuple[str, ...]) -> None:
    """Serve a fake OpenAI upstream; prints its base URL on the first line."""
    script = [BY_NAME[name] for name in names]
    trio.run(_serve_until_signalled, script, api_key, host, port)


if __name__ == "__main__":
    main()
