"""Each fault looks in each dialect as that dialect's answers look, over sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import h11
import msgspec
import pytest
import trio

from atomr_infer.testing import upstream as kit
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstreams.scripts import BY_NAME
from atomr_infer.wire.sse import SseReader

if TYPE_CHECKING:
    from atomr_infer.testing.upstream import FakeUpstream

PROMPT = "one two three"
TURN = {"role": "user", "content": PROMPT}
PARTS = {"contents": [{"parts": [{"text": PROMPT}]}]}
STUDIO = "/v1beta/models/gemini-2.5-flash"
VERTEX = "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash"
VERTEX_PARTS = {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}]}
AZURE = "/openai/deployments/d"


@attrs.frozen(kw_only=True)
class Route:
    """A streaming route of a fake.

    Attributes:
        open: opens the fake.
        path: of the route.
        members: of the request.
        key: the header with the key.
    """

    open: Callable[..., Any]
    path: str
    members: dict[str, Any]
    key: tuple[str, str] = ("authorization", "Bearer k")


ROUTES = {
    "chat": Route(
        open=kit.open_openai_upstream,
        path="/v1/chat/completions",
        members={"model": "m", "messages": [TURN], "stream": True},
    ),
    "completions": Route(
        open=kit.open_openai_upstream,
        path="/v1/completions",
        members={"model": "m", "prompt": PROMPT, "stream": True},
    ),
    "responses": Route(
        open=kit.open_openai_upstream,
        path="/openai/v1/responses",
        members={"model": "m", "input": PROMPT, "stream": True},
    ),
    "azure": Route(
        open=kit.open_openai_upstream,
        path=f"{AZURE}/chat/completions?api-version=2024-10-21",
        members={"messages": [TURN], "stream": True},
        key=("api-key", "k"),
    ),
    "litellm": Route(
        open=kit.open_litellm_upstream,
        path="/v1/chat/completions",
        members={"model": "m", "messages": [TURN], "stream": True},
    ),
    "anthropic": Route(
        open=kit.open_anthropic_upstream,
        path="/v1/messages",
        members={"model": "m", "messages": [TURN], "max_tokens": 99, "stream": True},
        key=("x-api-key", "k"),
    ),
    "gemini": Route(
        open=kit.open_gemini_upstream,
        path=f"{STUDIO}:streamGenerateContent?alt=sse",
        members=PARTS,
        key=("x-goog-api-key", "k"),
    ),
    "gemini array": Route(
        open=kit.open_gemini_upstream,
        path=f"{STUDIO}:streamGenerateContent?key=k",
        members=PARTS,
        key=("x-unused", "k"),
    ),
    "vertex": Route(
        open=kit.open_gemini_upstream,
        path=f"{VERTEX}:streamGenerateContent?alt=sse",
        members=VERTEX_PARTS,
    ),
}
EVENT_ROUTES = [name for name in ROUTES if name != "gemini array"]
in_each_route = pytest.mark.parametrize("route", ROUTES.values(), ids=list(ROUTES))
in_each_event_route = pytest.mark.parametrize(
    "route", [ROUTES[name] for name in EVENT_ROUTES], ids=EVENT_ROUTES
)


@attrs.frozen
class Got:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool

    @property
    def data(self) -> list[bytes]:
        return [event.data for event in SseReader().feed(self.body)]


class Session:
    """A connection to a fake."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def send(self, route: Route, **changes: Any) -> None:
        body = msgspec.json.encode({**route.members, **changes})
        fields = [("host", "x"), route.key, ("content-length", str(len(body)))]
        fields.append(("anthropic-version", "2023-06-01"))
        request = h11.Request(method="POST", target=route.path, headers=fields)
        data = (self._h11.send(request) or b"") + (
            self._h11.send(h11.Data(data=body)) or b""
        )
        await self._stream.send_all(data + (self._h11.send(h11.EndOfMessage()) or b""))

    async def receive(self, *, enough: int | None = None) -> Got:
        status, body = 0, bytearray()
        headers: dict[str, str] = {}
        with trio.fail_after(5):
            while enough is None or len(body) < enough:
                try:
                    event = self._h11.next_event()
                except h11.RemoteProtocolError:
                    return Got(status, headers, bytes(body), complete=False)
                if event is h11.NEED_DATA:
                    self._h11.receive_data(await self._stream.receive_some(65536))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    headers = {k.decode(): v.decode() for k, v in event.headers}
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return Got(status, headers, bytes(body), complete=True)
                else:
                    return Got(status, headers, bytes(body), complete=False)
        return Got(status, headers, bytes(body), complete=False)


async def connect(fake: FakeUpstream) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", int(fake.origin.rpartition(":")[2]))


async def ask(route: Route, behaviour: script.Behaviour, **changes: Any) -> Got:
    async with (
        route.open([behaviour], api_key="k") as fake,
        await connect(fake) as stream,
    ):
        session = Session(stream)
        await session.send(route, **changes)
        return await session.receive()


async def front(route: Route, after: int) -> bytes:
    """Return what an answer of a route is in front of a piece."""
    cut = await ask(route, script.CutMidStream(after=after))
    assert (cut.status, cut.complete) == (200, False)
    return cut.body


@in_each_route
async def test_cut_answer_is_the_front_part_of_a_whole_one(route: Route) -> None:
    whole = await ask(route, script.Happy())
    assert whole.complete
    fronts = [await front(route, after) for after in range(8)]
    assert all(whole.body.startswith(each) for each in fronts)
    # Six pieces: the fronts grow with each, and none has the answer's end.
    assert [len(each) for each in fronts[:7]] == sorted({len(f) for f in fronts})
    assert fronts[7] == fronts[6]
    assert len(fronts[6]) < len(whole.body)


@in_each_route
async def test_answer_without_a_finish_ends_as_if_it_were_whole(route: Route) -> None:
    got = await ask(route, script.EndWithoutFinish(after=2))
    assert (got.status, got.complete) == (200, True)
    assert got.body == await front(route, 2)


@in_each_route
@pytest.mark.parametrize("after", [0, 2])
async def test_silent_answer_stays_silent_until_its_client_leaves(
    route: Route, after: int
) -> None:
    expected = await front(route, after)
    async with route.open([script.HangMidStream(after=after)], api_key="k") as fake:
        async with await connect(fake) as stream:
            session = Session(stream)
            await session.send(route)
            await fake.wait_for_requests(1)
            got = await session.receive(enough=len(expected))
            assert (got.status, got.body) == (200 if expected else 0, expected)
            assert not fake.requests[0].client_left.is_set()
        with trio.fail_after(5):
            await fake.requests[0].client_left.wait()
        assert not fake.requests[0].answered.is_set()


@in_each_route
async def test_half_closed_answer_ends_and_its_fake_still_listens(route: Route) -> None:
    async with route.open([script.HalfClose(after=1)], api_key="k") as fake:
        async with await connect(fake) as stream:
            session = Session(stream)
            await session.send(route)
            got = await session.receive()
            assert (got.complete, got.body) == (False, await front(route, 1))
            assert not fake.requests[0].client_left.is_set()
        with trio.fail_after(5):
            await fake.requests[0].client_left.wait()


@in_each_route
async def test_error_in_the_middle_follows_the_front_part(route: Route) -> None:
    for after in (0, 2):
        got = await ask(route, script.ErrorInStream(after=after))
        before = await front(route, after)
        assert got.complete
        assert got.body.startswith(before)
        assert b"The server had an error" in got.body.removeprefix(before)


async def test_array_with_an_error_in_it_is_an_array() -> None:
    for after in (0, 2):
        got = await ask(ROUTES["gemini array"], script.ErrorInStream(after=after))
        items = msgspec.json.decode(got.body)
        assert [min(item) for item in items] == ["candidates"] * after + ["error"]
        assert items[-1]["error"]["status"] == "INTERNAL"
        assert got.headers["content-type"] == "application/json; charset=UTF-8"


async def test_whole_array_is_an_array() -> None:
    got = await ask(ROUTES["gemini array"], script.Happy())
    assert len(msgspec.json.decode(got.body)) == 7


@in_each_event_route
async def test_error_of_another_shape_is_sent_as_it_is_given(route: Route) -> None:
    given = script.ErrorInStream(data=b'{"object":"error"}', event="odd")
    got = await ask(route, given)
    assert got.body.endswith(b'event: odd\ndata: {"object":"error"}\n\n')


@in_each_event_route
async def test_malformed_event_is_one_too_many_and_the_rest_is_whole(
    route: Route,
) -> None:
    whole = await ask(route, script.Happy())
    broken = await ask(route, script.Happy(malformed_after=2))
    (odd,) = [data for data in broken.data if data not in whole.data]
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(odd)
    assert [data for data in broken.data if data != odd] == whole.data


@in_each_route
async def test_split_answer_has_the_bytes_of_a_whole_one(route: Route) -> None:
    whole = await ask(route, script.Happy())
    for size in (100, 1000):
        split = await ask(route, script.Happy(split_bytes=size))
        assert (split.body, split.complete) == (whole.body, True)


@in_each_route
async def test_answer_without_its_end_is_shorter(route: Route) -> None:
    whole, short = [await ask(route, script.Happy(done=done)) for done in (True, False)]
    assert whole.body.startswith(short.body)
    if route.path.endswith("alt=sse"):
        # Google's streams end where they end.
        assert short.body == whole.body
    else:
        assert len(short.body) < len(whole.body)


@in_each_route
async def test_slow_tokens_wait_before_each_piece(route: Route) -> None:
    began_at = trio.current_time()
    got = await ask(route, script.Happy(tokens=("a", "b", "c"), delay_s=0.02))
    assert got.complete
    assert trio.current_time() - began_at >= 0.06


@in_each_route
async def test_request_that_is_hung_up_on_gets_no_byte(route: Route) -> None:
    got = await ask(route, script.CloseBeforeHeaders())
    assert (got.status, got.body, got.complete) == (0, b"", False)


@in_each_route
async def test_page_of_a_proxy_comes_as_a_page(route: Route) -> None:
    got = await ask(route, script.RawAnswer())
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    assert got.body == b"<html><body>welcome to the proxy</body></html>"


@in_each_route
async def test_huge_line_is_as_long_as_it_was_asked_to_be(route: Route) -> None:
    got = await ask(route, script.HugeLine(size_bytes=100_000))
    assert got.body == b"data: " + b"x" * 100_000 + b"\n\n"


@in_each_route
async def test_comments_alone_keep_coming(route: Route) -> None:
    behaviour = script.CommentsOnly(after=0, every_s=0.001)
    silence = await front(route, 0)
    async with (
        route.open([behaviour], api_key="k") as fake,
        await connect(fake) as stream,
    ):
        session = Session(stream)
        await session.send(route)
        got = await session.receive(enough=len(silence) + 20)
    kept_alive = got.body.removeprefix(silence)
    events = SseReader().feed(kept_alive)
    assert {event.event for event in events} <= {"ping"}


LONG = {
    "half_close",
    "hang_before_headers",
    "hang_mid_stream",
    "huge_line",
    "slow_tokens",
    "split_bytes",
}


@pytest.mark.parametrize("stream", [True, False])
@in_each_route
async def test_whatever_the_script_the_next_request_is_answered(
    route: Route, stream: bool
) -> None:
    if "stream" not in route.members and not stream:
        return
    changes = {"stream": stream} if "stream" in route.members else {}
    behaviours = [
        each for name in BY_NAME if name not in LONG for each in BY_NAME[name]()
    ]
    async with route.open(behaviours, api_key="k") as fake:
        for _ in behaviours:
            async with await connect(fake) as connection:
                session = Session(connection)
                await session.send(route, **changes)
                await session.receive()
        async with await connect(fake) as connection:
            session = Session(connection)
            await session.send(route, **changes)
            got = await session.receive()
        assert (got.status, got.complete) == (200, True)
        assert len(fake.requests) == len(behaviours) + 1
        with trio.fail_after(5):
            await fake.requests[-1].answered.wait()
        assert not any(request.open for request in fake.requests)


async def test_bytes_that_are_no_http_end_their_own_connection_only() -> None:
    async with kit.open_openai_upstream() as fake:
        host, _, port = fake.origin.removeprefix("http://").partition(":")
        for hello in (b"\x16\x03\x01\x02\x00\x01", b"no http at all\r\n\r\n"):
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(hello)
                answer = b""
                with trio.fail_after(5):
                    while more := await stream.receive_some():
                        answer += more
            assert answer.startswith(b"HTTP/1.1 400 ")
        assert (fake.connections, fake.requests) == (2, [])
