"""A node that lies, hangs or sends nonsense harms its own request and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest
import trio

from atomr.errors import LinkStreamError
from atomr.http2.setup import STREAM_WINDOW_BYTES
from atomr.http2.streams import BACKLOG_BYTES
from atomr_infer import errors
from atomr_infer.model.batch import ExecuteBatch, Message, Role, TokenChunk
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.serving.far import answering
from atomr_infer.serving.far.answering import Answering
from atomr_infer.serving.far.service import LOADS, TABLE
from atomr_infer.serving.requests import far_attempt
from atomr_infer.serving.requests.far_attempt import SERVICE
from atomr_infer.serving.requests.stages import Stage
from atomr_infer.wire.nodes.frames import (
    VERSION,
    Admitted,
    Ask,
    Count,
    Credit,
    Ended,
    Failed,
    Kind,
    Opening,
    Refused,
    Staged,
    StageTold,
    answer_of,
    encoded,
)
from atomr_infer.wire.nodes.loads import Entry, Load, Loads
from atomr_infer.wire.nodes.pieces import PIECE_BYTES, Joiner, cut
from tests.at_once import at_once, no_time
from tests.serving.acts import Player, fails, says
from tests.serving.conftest import Collected
from tests.serving.far.nodes import FarTree, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from atomr.http2 import LinkStream
    from tests.serving.far.conftest import OpenFar

M = Deployment(name="m", runtime="lab", retry=RetryPolicy(max_attempts=1))
BATCH = ExecuteBatch(
    request_id="evil", model="m", messages=(Message(Role.USER, "one two"),)
)
ASK = Ask(
    kind=Kind.GENERATE,
    deployment="m",
    replica=0,
    left_s=30.0,
    may_wait=True,
    request=BATCH,
)
STAGED = Staged(
    (
        StageTold(
            depth=0,
            model="small",
            deployment="small",
            runtime="mock",
            outcome="completed",
            verdict="",
            duration_s=0.5,
            spent=(),
            cost=None,
        ),
    )
)
HELLO = encoded(Admitted()), encoded(TokenChunk(text="Hello"))


def opening(ask: Ask) -> Opening:
    data = encoded(ask)
    return Opening(VERSION, len(data), data)


# --- a node that asks ---------------------------------------------------------------

_WHOLE = encoded(ASK)
OPENINGS = {
    "of another version": Opening("another", len(_WHOLE), _WHOLE),
    "that is no request": Opening(VERSION, 7, b"nothing"),
    "that says a length below its own": Opening(VERSION, 3, _WHOLE),
    "that says an endless length": Opening(VERSION, 2**40, b""),
    "that is another kind of value": Opening(
        VERSION, len(encoded(Count(3))), encoded(Count(3))
    ),
}


@pytest.mark.parametrize("kind", OPENINGS)
async def test_nonsense_is_not_answered_and_the_link_stays(
    open_far: OpenFar, kind: str
) -> None:
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player([says("Hello")]))
        link = a.link(b)
        stream = await link.begin_stream(SERVICE, OPENINGS[kind])
        with pytest.raises(LinkStreamError):
            await stream.receive()
        assert link.down is None
        assert (await b.ask()).texts == ["Hello"]
        await until(lambda: not len(link.dispatch.streams))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"deployment": "x"}, "the node does not know the deployment 'x'"),
        ({"replica": 7}, "m/7 is not on the node b"),
    ],
)
async def test_what_is_not_here_is_refused_and_said(
    open_far: OpenFar, change: dict[str, Any], told: str
) -> None:
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player())
        asked = opening(attrs.evolve(ASK, **change))
        async with a.link(b).open_stream(SERVICE, asked) as stream:
            message = await stream.receive()
            assert message is not None
            answer = answer_of(message[1:])
            assert isinstance(answer, Refused)
            assert (answer.error.kind, answer.error.message) == ("not_ready", told)
            stream.end()
            assert await stream.receive() is None


@pytest.mark.parametrize(
    "credit",
    [encoded(Credit(-1)), encoded(Credit(2**40)), b"x", encoded(Count(1))],
    ids=["below zero", "endless", "garbage", "of another kind"],
)
async def test_credit_that_makes_no_sense_ends_the_work(
    open_far: OpenFar, credit: bytes
) -> None:
    async with open_far("ab") as (a, b):
        player = Player([says(*("x" * 8_192,) * 64)])
        await b.deploy(M, player)
        stream = await a.link(b).begin_stream(SERVICE, opening(ASK))
        await stream.send(credit)
        with pytest.raises(LinkStreamError):
            while await stream.receive() is not None:
                pass
        await until(lambda: player.active == 0)
        (replica,) = b.serving.replicas("m")
        await until(lambda: (replica.outstanding, replica.tokens) == (0, 0))


async def test_a_last_word_that_nobody_takes_is_given_up(
    open_far: OpenFar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_PART_WITHIN_S", 0.05)
    more = (STREAM_WINDOW_BYTES + BACKLOG_BYTES) // 8_192 + 16
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player([says(*("x" * 8_192,) * more)]))
        asked = opening(attrs.evolve(ASK, left_s=0.3))
        stream = await a.link(b).begin_stream(SERVICE, asked)
        await stream.send(encoded(Credit(16 * STREAM_WINDOW_BYTES)))
        # It fills its window, and is late; that it is cannot be said either.
        await until(lambda: len(b.link(a).dispatch.streams) == 1)
        await until(lambda: len(b.link(a).dispatch.streams) == 0, within_s=10.0)
        with trio.fail_after(10):
            await b.serving.far.idle()
        assert a.link(b).down is None
        stream.abort()


async def test_a_request_that_never_comes_whole_is_given_up(
    open_far: OpenFar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_READ_WITHIN_S", 0.05)
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player())
        half = Opening(VERSION, 2 * PIECE_BYTES, b"x" * PIECE_BYTES)
        stream = await a.link(b).begin_stream(SERVICE, half)
        with pytest.raises(LinkStreamError):
            await stream.receive()
        assert await b.requests() == []


async def test_requests_that_are_read_at_once_have_a_bound(
    open_far: OpenFar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_READING_BYTES", 1_000_000)
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player([says("Hello")]))
        link = a.link(b)
        slow = await link.begin_stream(SERVICE, Opening(VERSION, 900_000, b""))
        await trio.sleep(0.05)
        late = await link.begin_stream(SERVICE, Opening(VERSION, 900_000, b""))
        with pytest.raises(LinkStreamError):
            await late.receive()
        slow.abort()
        with trio.fail_after(30):
            await b.serving.far.idle()
        text = "x" * 900_000
        a.know(M)
        await a.sees(1)
        assert (await a.ask(text)).texts == ["Hello"]


async def test_a_failure_whose_words_cannot_be_sent_is_told_all_the_same(
    open_far: OpenFar,
) -> None:
    odd = errors.UpstreamError("half a pair: \ud800", status=400)
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player([fails(odd)]))
        async with a.link(b).open_stream(SERVICE, opening(ASK)) as stream:
            last = answer_of((await stream.receive() or b"")[1:])
            if isinstance(last, Admitted):
                last = answer_of((await stream.receive() or b"")[1:])
        assert a.link(b).down is None
    assert isinstance(last, (Failed, Refused))
    assert last.error.kind == "upstream_protocol"


async def test_a_failure_is_told_though_its_stages_cannot_be(
    open_far: OpenFar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that cannot be sent: a pipeline's plugin may ask for any."""
    async with open_far("ab") as (a, b):
        odd = Stage("m", stages=[Stage("half a pair: \ud800")])
        monkeypatch.setattr(answering, "Stage", lambda *_: odd)
        monkeypatch.setattr(b.serving, "asked_by", lambda _: ("x",))
        await b.deploy(M, Player([fails(errors.UpstreamError("no", status=400))]))
        async with a.link(b).open_stream(SERVICE, opening(ASK)) as stream:
            first = answer_of((await stream.receive() or b"")[1:])
            last = answer_of((await stream.receive() or b"")[1:])
        assert a.link(b).down is None
    assert isinstance(first, Admitted)
    assert isinstance(last, Failed)
    assert (last.error.kind, last.error.message) == ("upstream", "no")


# --- a node that answers --------------------------------------------------------------


OpenLiar = Callable[..., AbstractAsyncContextManager[tuple[FarTree, FarTree]]]


@pytest.fixture
def open_liar(open_far: OpenFar, monkeypatch: pytest.MonkeyPatch) -> OpenLiar:
    """Open two nodes, of which the second has a replica and answers like this."""

    @asynccontextmanager
    async def open_it(
        act: Callable[[LinkStream], Awaitable[None]],
    ) -> AsyncIterator[tuple[FarTree, FarTree]]:
        async def serve(_: Answering, stream: LinkStream, __: Opening) -> None:
            await act(stream)

        monkeypatch.setattr(Answering, "serve", serve)
        async with open_far("ab") as (a, b):
            await b.deploy(M, Player())
            a.know(M)
            await a.sees(1)
            yield a, b
            for link in (a.link(b), b.link(a)):
                await until(lambda link=link: not len(link.dispatch.streams))
            assert a.serving.far_replicas["m"][0].sent == 0
            assert await a.requests() == []

    return open_it


def saying(*values: bytes) -> Callable[[LinkStream], Awaitable[None]]:
    async def act(stream: LinkStream) -> None:
        for value in values:
            for message in cut(value):
                await stream.send(message)

    return act


ENDED = encoded(Ended())
LIES = {
    "bytes that are nothing": saying(b"\xc1garbage"),
    "nothing at all": saying(),
    "a chunk before its permit": saying(HELLO[1]),
    "an end before its permit": saying(ENDED),
    "a count among chunks": saying(HELLO[0], encoded(Count(3))),
    "a second permit": saying(HELLO[0], HELLO[0]),
    "stages before its permit": saying(encoded(STAGED)),
    "stages of what has none": saying(HELLO[0], encoded(STAGED)),
    "stages again and again": saying(
        encoded(Admitted(composed=True)), *([encoded(STAGED)] * 9)
    ),
    "a stage inside of none": saying(
        encoded(Admitted(composed=True)),
        encoded(Staged((attrs.evolve(STAGED.stages[0], depth=1),))),
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_answer_that_makes_no_sense_is_a_node_that_is_lost(
    open_liar: OpenLiar, lie: str
) -> None:
    async with open_liar(LIES[lie]) as (a, b):
        sink = Collected()
        with pytest.raises(errors.NodeLostError, match="the node b"):
            await a.ask(sink=sink)
        assert sink.texts == []
        assert a.link(b).down is None


@pytest.mark.parametrize(
    "lie",
    [saying(*HELLO), saying(*HELLO, b"\xc1"), saying(*HELLO, ENDED)],
    ids=["no end", "garbage", "an end too early"],
)
async def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(
    open_liar: OpenLiar, lie: Callable[[LinkStream], Awaitable[None]]
) -> None:
    async with open_liar(lie) as (a, _):
        sink = Collected()
        with pytest.raises(errors.StreamCutError):
            await a.ask(sink=sink)
        assert sink.texts == ["Hello"]


async def test_a_node_that_hangs_costs_no_more_than_the_request_has(
    open_liar: OpenLiar, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    begun, gone = trio.Event(), trio.Event()

    async def hang(stream: LinkStream) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            gone.set()

    async with open_liar(hang) as (a, _):

        async def ask() -> None:
            with pytest.raises(errors.DeadlineError):
                await a.ask(timeout_s=0.2)

        async with trio.open_nursery() as nursery:
            with no_time(mock_clock):
                nursery.start_soon(ask)
                await at_once(begun.is_set, mock_clock)
                mock_clock.jump(0.2)
                await at_once(gone.is_set, mock_clock)


async def test_an_answer_without_an_end_is_cut_off(
    open_liar: OpenLiar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_attempt, "Joiner", partial(Joiner, max_bytes=1_000_000))

    async def endless(stream: LinkStream) -> None:
        await saying(*HELLO)(stream)
        while True:
            await stream.send(b"\x01" + b"x" * PIECE_BYTES)

    async with open_liar(endless) as (a, _):
        with pytest.raises(errors.NodeLostError):
            await a.ask()


async def test_a_node_that_sends_beyond_its_credit_fills_its_window_and_no_more(
    open_liar: OpenLiar,
) -> None:
    sent = 0
    stuck = trio.Event()
    chunk = cut(encoded(TokenChunk(text="x" * 8_192)))[0]

    async def flood(stream: LinkStream) -> None:
        nonlocal sent
        await saying(HELLO[0])(stream)
        while True:
            with trio.move_on_after(0.5) as late:
                await stream.send(chunk)
            if late.cancelled_caught:
                stuck.set()
                await trio.sleep_forever()
            sent += len(chunk)

    class Stops(Collected):
        async def chunk(self, chunk: Any) -> None:
            await trio.sleep_forever()

    async with open_liar(flood) as (a, _), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: a.ask(sink=Stops()))
        with trio.fail_after(30):
            await stuck.wait()
        assert sent <= STREAM_WINDOW_BYTES + 2 * BACKLOG_BYTES
        nursery.cancel_scope.cancel()


# --- what nodes tell of their replicas -----------------------------------------------


async def test_a_table_of_another_version_is_not_looked_at_and_told_once(
    open_far: OpenFar, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_far("ab") as (a, b):
        table = b.serving.node.replicator.open_owned(TABLE)
        table.put(("m", 0), msgspec.to_builtins(Entry("serving", "another")))
        table.put(("m", 1), {"phase": "serving", "version": VERSION, "new": 1})
        table.put("nonsense", 3)
        table.put(("m", 2), msgspec.to_builtins(Entry("of another version", VERSION)))
        table.put(("m", 3), msgspec.to_builtins(Entry("serving", VERSION)))
        far = a.serving.far_replicas
        await until(lambda: len(far.get("m", ())) == 2, "all that can be read is here")
        known = {r.number: r.phase.value for r in far["m"]}
        assert known == {2: "loading", 3: "serving"}
        await until(lambda: "another version" in caplog.text)
    told = [r.getMessage() for r in caplog.records if "another version" in r.message]
    assert len(told) == 1
    assert told[0].startswith("the node b#")


async def test_loads_of_replicas_that_nobody_knows_are_dropped(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player())
        a.know(M)
        await a.sees(1)
        (far,) = a.serving.far_replicas["m"]
        told = Loads((Load("m", 0, 7, 70, 9), Load("x", 5)))
        b.link(a).tell(LOADS, told)
        await until(lambda: (far.outstanding, far.tokens, far.limit) == (7, 70, 9))
