"""A request that comes to one node is answered by a replica of another."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer import errors
from atomr_infer.gateway.admin.shown import shown_far_replica
from atomr_infer.model.batch import (
    ExecuteBatch,
    Message,
    RawChunk,
    Role,
    TokenChunk,
    Usage,
)
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.deployment import Deployment, Jitter, RetryPolicy, Serving
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.failover import HedgePolicy, OnCut
from atomr_infer.model.secret import HeaderSecret
from atomr_infer.model.tensors import (
    Datatype,
    Inferred,
    InferRequest,
    Signature,
    Tensor,
    TensorSpec,
)
from atomr_infer.serving.replicas.readiness import Readiness
from atomr_infer.serving.replicas.replica import Phase
from atomr_infer.serving.requests.elsewhere import know
from atomr_infer.serving.requests.far_attempt import CREDIT_BYTES
from atomr_infer.serving.requests.served import Tried
from atomr_infer.serving.requests.whole_calls import count_tokens, embed, infer
from tests.at_once import at_once, no_time, stand_still
from tests.serving.acts import STOP, USAGE, Act, Player, cut, fails, says, stalls
from tests.serving.conftest import Collected
from tests.serving.far.nodes import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from tests.serving.far.conftest import OpenFar
    from tests.serving.far.nodes import FarTree

RETRY = RetryPolicy(max_attempts=3, backoff_s=0.01, jitter=Jitter.NONE)
M = Deployment(name="m", runtime="lab", retry=RETRY)


class Counter(Player):
    """Reads, too."""

    async def embed(self, request: EmbedRequest) -> Embeddings:
        vectors = tuple((float(len(text)), 0.5) for text in request.inputs)
        return Embeddings(vectors=vectors, usage=Usage(input_uncached=5))

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        return len(batch.messages[0].text.split())


X = Tensor("x", Datatype.INT8, (2,), b"\x01\x02")
TAKES = Signature(
    inputs=(TensorSpec("x", Datatype.INT8, (2,)),),
    outputs=(TensorSpec("y", Datatype.INT8, (2,)),),
)


class Adder(Player):
    """Takes tensors."""

    def __init__(self) -> None:
        super().__init__()
        features = frozenset({Feature.INFER})
        self.capabilities = Capabilities(features=features, signature=TAKES)

    async def infer(self, request: InferRequest) -> Inferred:
        assert (request.model, request.describes) == ("m", False)
        [x] = request.inputs
        return Inferred(outputs=(attrs.evolve(x, name="y"),))


async def at_rest(*trees: FarTree) -> None:
    """Wait until no node holds anything of any request."""
    for tree in trees:
        serving = tree.serving
        await until(
            lambda serving=serving: all(
                replica.outstanding == replica.tokens == 0
                for replica in serving.replicas("m")
            ),
            f"{tree.name} holds {serving.replicas('m')}",
        )
        with trio.fail_after(30):
            while await tree.requests():  # noqa: ASYNC110 - it has no event
                await trio.sleep(0.005)
        for peer in serving.node.peers.all():
            link = serving.node.peers.link(peer)
            assert link is not None
            streams = link.dispatch.streams
            await until(lambda streams=streams: not len(streams), "streams are open")


async def test_an_answer_of_another_node_is_the_same_and_says_whose_it_is(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player([says("Hello", " you")] * 2))
        a.know(M)
        await a.sees(1)
        far = await a.ask()
        near = await b.ask()
        assert far.chunks == near.chunks
        assert [*far.texts] == ["Hello", " you"]
        assert far.result is not None
        assert far.result.attempts == (Tried("m"),)
        assert far.result.route == b"node=b; replica=0; reason=only; candidates=1"
        await at_rest(a, b)


async def test_the_node_that_answers_logs_whose_request_it_was(
    open_far: OpenFar, caplog: pytest.LogCaptureFixture
) -> None:
    refused = errors.ContextLengthError("too long", status=400)
    caplog.set_level("INFO", "atomr_infer.serving.far.answering")
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player([says("Hello"), fails(refused)]))
        a.know(M)
        await a.sees(1)
        await a.ask()
        with pytest.raises(errors.ContextLengthError):
            await a.ask()
        await at_rest(a, b)
    assert [
        record.getMessage()
        for record in caplog.records
        if record.name == "atomr_infer.serving.far.answering"
    ] == [
        "request a-0 of the node a: deployment=m/0 outcome=completed",
        "request a-1 of the node a: deployment=m/0 outcome=context_length",
    ]


async def test_what_fails_over_there_is_known_here_by_its_kind(
    open_far: OpenFar,
) -> None:
    refused = errors.ContextLengthError("too long", code="too_long", status=400)
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player([fails(refused), cut("Hel"), says("Hello")]))
        a.know(M)
        await a.sees(1)
        with pytest.raises(errors.ContextLengthError) as caught:
            await a.ask()
        assert errors.encode(caught.value) == errors.encode(refused)
        with pytest.raises(errors.StreamCutError):
            await a.ask()
        assert (await a.ask()).texts == ["Hello"]
        await at_rest(a, b)


async def test_before_its_first_words_a_request_is_tried_again_over_there(
    open_far: OpenFar,
) -> None:
    broken = errors.UpstreamError("broken", status=500)
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player([fails(broken), fails(broken), says("Hello")]))
        a.know(M)
        await a.sees(1)
        answer = await a.ask()
        assert answer.texts == ["Hello"]
        assert answer.result is not None
        assert [tried.error for tried in answer.result.attempts] == [
            "upstream",
            "upstream",
            None,
        ]
        await at_rest(a, b)


async def test_a_request_waits_in_the_queue_of_the_node_that_has_the_replica(
    open_far: OpenFar,
) -> None:
    one = attrs.evolve(M, serving=Serving(max_concurrency=1, max_queue=1))
    async with open_far("ab") as (a, b), trio.open_nursery() as nursery:
        gate = trio.Event()
        await b.deploy(one, Player([says("1", gate=gate), says("2")]))
        a.know(one)
        await a.sees(1)
        (replica,) = b.serving.replicas("m")
        answers = [Collected(), Collected()]
        for answer in answers:
            nursery.start_soon(partial(a.ask, sink=answer))
        await until(lambda: (replica.running, replica.waiting) == (1, 1))
        assert len(await b.requests()) == 2
        with pytest.raises(errors.OverloadedError, match="m is full"):
            await a.ask()
        gate.set()
        await until(lambda: all(answer.result for answer in answers))
        assert sorted(answer.texts for answer in answers) == [["1"], ["2"]]
        await at_rest(a, b)


async def test_a_client_that_leaves_ends_the_work_over_there_at_once(
    open_far: OpenFar, mock_clock: MockClock
) -> None:
    """No timer is waited for on the way: it takes as long as two writes take."""
    mock_clock.rate = 1.0
    async with open_far("ab") as (a, b):
        player = Player([stalls("Hel")])
        await b.deploy(M, player)
        a.know(M)
        await a.sees(1)
        sink = Collected()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: a.ask(sink=sink))
            await until(lambda: sink.texts == ["Hel"])
            stand_still(mock_clock)
            nursery.cancel_scope.cancel()
        await at_once(lambda: not player.active, mock_clock)
        mock_clock.rate = 1.0
        assert player.left == 1
        await at_rest(a, b)


async def test_vectors_and_counts_cross_as_well(open_far: OpenFar) -> None:
    async with open_far("ab") as (a, b):
        await b.deploy(M, Counter())
        a.know(M)
        await a.sees(1)
        found = []
        for tree in (a, b):
            request = EmbedRequest(
                request_id=f"e-{tree.name}", model="m", inputs=("one two", "three")
            )
            batch = ExecuteBatch(
                request_id=f"c-{tree.name}",
                model="m",
                messages=(Message(Role.USER, "one two three"),),
            )
            with tree.here():
                vectors = await embed(tree.serving, request)
                count = await count_tokens(tree.serving, batch)
            found.append((vectors.value, count.value, vectors.served.route))
        (far_vectors, far_count, route), (near_vectors, near_count, _) = found
        assert (far_vectors, far_count) == (near_vectors, near_count)
        assert route == b"node=b; replica=0; reason=only; candidates=1"
        await at_rest(a, b)


async def test_tensors_cross_as_well_and_what_a_model_takes(open_far: OpenFar) -> None:
    asked = InferRequest(request_id="i", model="m", inputs=(X,))
    wrong = attrs.evolve(asked, inputs=(attrs.evolve(X, name="z"),))
    async with open_far("ab") as (a, b):
        await b.deploy(M, Adder())
        a.know(M)
        await a.sees(1)
        for tree in (a, b):
            with tree.here():
                found = await infer(tree.serving, asked)
                told = await infer(tree.serving, attrs.evolve(asked, describes=True))
                with pytest.raises(errors.InvalidRequestError, match="'z' is no input"):
                    await infer(tree.serving, wrong)
            assert found.value == Inferred(outputs=(attrs.evolve(X, name="y"),))
            assert told.value == Inferred(signature=TAKES)
        await at_rest(a, b)


async def test_who_takes_no_tensors_says_so_over_there(open_far: OpenFar) -> None:
    asked = InferRequest(request_id="i", model="m", inputs=(X,))
    async with open_far("ab") as (a, b):
        await b.deploy(M, Counter())
        a.know(M)
        await a.sees(1)
        with a.here(), pytest.raises(errors.EndpointUnsupportedError, match="raw tens"):
            await infer(a.serving, asked)
        await at_rest(a, b)


async def test_a_request_has_no_more_time_over_there_than_it_has_here(
    open_far: OpenFar, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    async with open_far("ab") as (a, b):
        player = Player([Act(hangs=True)])
        await b.deploy(M, player)
        a.know(M)
        await a.sees(1)

        async def ask() -> None:
            with pytest.raises(errors.DeadlineError):
                await a.ask(timeout_s=0.2)

        async with trio.open_nursery() as nursery:
            with no_time(mock_clock):
                nursery.start_soon(ask)
                await at_once(lambda: player.active, mock_clock)
                mock_clock.jump(0.2)
        await until(lambda: player.left == 1)
        await at_rest(a, b)


async def test_a_clients_key_crosses_for_the_deployment_that_asks_for_it_alone(
    open_far: OpenFar,
) -> None:
    own = attrs.evolve(M, credential=HeaderSecret("x-key"))
    other = Deployment(name="o", runtime="lab", credential=HeaderSecret("x-other"))
    async with open_far("ab") as (a, b):
        player = Player()
        await b.deploy(own, player)
        a.know(own)
        a.know(other)
        await a.sees(1)
        headers = {"x-key": "k-1", "x-other": "o-1", "anthropic-beta": "b"}
        await a.ask(client_headers=headers)
        assert player.batches[0].client_headers == {
            "x-key": "k-1",
            "anthropic-beta": "b",
        }
        await at_rest(a, b)


# --- a node that goes ---------------------------------------------------------------


async def test_what_had_no_bytes_is_answered_by_another_node(open_far: OpenFar) -> None:
    async with open_far("abc") as (a, b, c), trio.open_nursery() as nursery:
        silent = Player([Act(hangs=True)] * 9)
        await b.deploy(M, silent)
        a.know(M)
        await a.sees(1)
        answer = Collected()
        nursery.start_soon(lambda: a.ask(sink=answer))
        await until(lambda: silent.active == 1)
        await c.deploy(M, Player([says("Hello")]))
        await a.sees(2)
        a.cut(b)
        await until(lambda: answer.result is not None)
        assert answer.result is not None
        assert answer.texts == ["Hello"]
        assert answer.result.attempts == (Tried("m", "node_lost"), Tried("m"))
        assert answer.result.route.startswith(b"node=c; replica=0; ")
        await until(lambda: silent.active == 0)
        await at_rest(a, b, c)


async def test_what_had_bytes_gets_an_explicit_error(open_far: OpenFar) -> None:
    async with open_far("ab") as (a, b):
        player = Player([stalls("Hel")])
        await b.deploy(M, player)
        a.know(M)
        await a.sees(1)
        sink = Collected()

        async def ask() -> None:
            with pytest.raises(errors.NodeLostError, match="the node b was lost"):
                await a.ask(sink=sink)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: sink.texts == ["Hel"])
            a.cut(b)
        await until(lambda: player.active == 0)
        await a.sees(1)  # the link comes up again, and the table with it
        assert (await a.ask()).texts == ["ok"]
        await at_rest(a, b)


async def test_or_goes_on_where_its_deployment_says_so(open_far: OpenFar) -> None:
    # Until the link is up again.
    later = attrs.evolve(RETRY, backoff_s=1.0, max_attempts=6)
    match = attrs.evolve(M, on_cut=OnCut.RESTART_MATCH, retry=later)
    async with open_far("ab") as (a, b):
        player = Player([stalls("Hel"), says("Hello", " you")])
        await b.deploy(match, player)
        a.know(match)
        await a.sees(1)
        sink = Collected()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: a.ask(sink=sink))
            await until(lambda: sink.texts == ["Hel"])
            a.cut(b)
        assert sink.texts == ["Hel", "lo", " you"]
        assert sink.result is not None
        assert sink.result.recovered
        await at_rest(a, b)


async def test_a_request_that_may_have_run_is_not_made_again_where_that_is_forbidden(
    open_far: OpenFar,
) -> None:
    once = attrs.evolve(M, retry=attrs.evolve(RETRY, idempotent=False))
    async with open_far("ab") as (a, b), trio.open_nursery() as nursery:
        player = Player([Act(hangs=True)])
        await b.deploy(once, player)
        a.know(once)
        await a.sees(1)
        caught: list[BaseException] = []

        async def ask() -> None:
            try:
                await a.ask()
            except errors.InferenceError as error:
                caught.append(error)

        nursery.start_soon(ask)
        await until(lambda: player.active == 1)
        a.cut(b)
        await until(lambda: bool(caught))
        assert isinstance(caught[0], errors.NodeLostError)
        assert len(player.batches) == 1
        await at_rest(a, b)


async def test_a_replica_that_ends_leaves_the_tables_of_all_nodes(
    open_far: OpenFar,
) -> None:
    async with open_far("abc") as (a, b, c):
        two = attrs.evolve(M, serving=Serving(replicas=2))
        await b.deploy(two, Player(), Player())
        await c.deploy(M, Player())
        a.know(M)
        await a.sees(3)
        with b.here():
            await b.serving.undeploy("m")
        far = a.serving.far_replicas
        await until(lambda: [r.label for r in far["m"]] == ["c/0"])
        await c.sees(0)
        assert (await a.ask()).texts == ["ok"]
        await at_rest(a, c)


async def test_a_node_that_drains_is_asked_no_more_and_ends_what_it_was_asked(
    open_far: OpenFar,
) -> None:
    async with open_far("abc") as (a, b, c), trio.open_nursery() as nursery:
        gate = trio.Event()
        await b.deploy(M, Player([says("slow", " answer", gate=gate)]))
        a.know(M)
        await a.sees(1)
        slow = Collected()
        nursery.start_soon(partial(a.ask, sink=slow))
        (replica,) = b.serving.replicas("m")
        await until(lambda: replica.running == 1)
        await c.deploy(M, Player())
        await a.sees(2)
        b.serving.far.leave()
        await a.sees(1)
        assert (await a.ask()).texts == ["ok"]
        gate.set()
        with trio.fail_after(30):
            await b.serving.far.idle()
        await until(lambda: slow.result is not None)
        assert slow.texts == ["slow", " answer"]
        b.serving.far.come_back()
        await a.sees(2)
        await at_rest(a, b, c)


# --- who is asked -------------------------------------------------------------------


async def test_this_nodes_replica_is_asked_until_it_has_no_place_left(
    open_far: OpenFar,
) -> None:
    one = attrs.evolve(M, serving=Serving(max_concurrency=1))
    async with open_far("ab") as (a, b), trio.open_nursery() as nursery:
        near = Player([stalls("here"), says("here")])
        await a.deploy(one, near)
        await b.deploy(one, Player([says("there")] * 2))
        await a.sees(1)
        first = Collected()
        nursery.start_soon(lambda: a.ask(sink=first))
        await until(lambda: first.texts == ["here"])
        second = await a.ask()
        assert second.texts == ["there"]
        assert second.result is not None
        told = b"node=b; replica=0; reason=only_free; candidates=2"
        assert second.result.route == told
        nursery.cancel_scope.cancel()
    assert near.left == 1


async def test_a_node_whose_circuit_is_open_lets_another_one_ask(
    open_far: OpenFar,
) -> None:
    remote = attrs.evolve(M, options={"endpoint": "there"})
    async with open_far("ab") as (a, b):
        near = Player()
        await a.deploy(remote, near)
        await b.deploy(remote, Player([says("there")] * 9))
        await a.sees(1)
        guard = a.serving.breakers.of("m")
        assert guard is not None
        guard.force_open()
        answer = await a.ask()
        assert answer.texts == ["there"]
        assert near.batches == []
        other = b.serving.breakers.of("m")
        assert other is not None
        other.force_open()
        with pytest.raises(errors.CircuitOpenError):
            await a.ask()
        await at_rest(a, b)


async def test_what_a_node_has_to_do_is_known_to_the_others(open_far: OpenFar) -> None:
    async with open_far("ab") as (a, b), trio.open_nursery() as nursery:
        await b.deploy(M, Player([stalls("x")] * 3, max_concurrency=5))
        a.know(M)
        await a.sees(1)
        (far,) = a.serving.far_replicas["m"]
        for _ in range(3):
            nursery.start_soon(lambda: b.ask("word " * 100))
        (near,) = b.serving.replicas("m")
        await until(lambda: (far.outstanding, far.limit) == (3, 5))
        await until(lambda: far.tokens == near.tokens)
        assert far.tokens > 300
        nursery.cancel_scope.cancel()


async def test_a_node_is_ready_where_another_one_answers(open_far: OpenFar) -> None:
    slept = attrs.evolve(M, serving=Serving(idle_stop_s=0.1))
    async with open_far("ab") as (a, b):

        def told() -> Readiness:
            a.serving.has_met = True  # the placer has no voters here to wait for
            return a.serving.readiness()

        know(a.serving, slept, ())  # as of what the catalogue has, and no node can run
        of_none = Readiness(ready=False, phases={"m": "elsewhere"}, not_ready=("m",))
        answers = attrs.evolve(of_none, ready=True, not_ready=())
        assert told() == of_none
        a.serving.node.is_starting = True  # nodes that start wait for no other
        assert told() == attrs.evolve(of_none, ready=True)
        a.serving.node.is_starting = False

        await b.deploy(slept, Player())
        await until(lambda: told() == answers)
        (far,) = a.serving.far_replicas["m"]
        await until(lambda: far.asleep)  # a request would have it started
        assert told() == answers
        with b.here():
            await b.serving.undeploy("m")
        await until(lambda: told() == of_none)


async def test_operators_see_what_a_node_has_heard_of_the_others(
    open_far: OpenFar,
) -> None:
    async with open_far("ab") as (a, b):
        await b.deploy(M, Player(max_concurrency=5))
        a.know(M)
        await a.sees(1)
        (far,) = a.serving.far_replicas["m"]
        await until(lambda: far.told_at is not None)
        shown = shown_far_replica(far)
        ago_s = shown.pop("told_ago_s")
        assert isinstance(ago_s, float)
        assert 0 <= ago_s < 60
        assert shown == {
            "node": "b",
            "number": 0,
            "phase": "serving",
            "reachable": True,
            "outstanding": 0,
            "tokens": 0,
            "limit": 5,
        }


async def test_a_slow_first_attempt_is_hedged_on_another_node(
    open_far: OpenFar,
) -> None:
    hedged = attrs.evolve(M, hedge=HedgePolicy(after_s=0.05, max_fraction=1.0))
    async with open_far("ab") as (a, b):
        slow = Player([Act(hangs=True)])
        await a.deploy(hedged, slow)
        await b.deploy(hedged, Player([says("there")]))
        await a.sees(1)
        answer = await a.ask()
        assert answer.texts == ["there"]
        assert slow.left == 1
        await at_rest(a, b)


# --- a client that reads slowly -------------------------------------------------------


async def test_a_slow_client_holds_up_its_own_answer_and_nothing_is_buffered(
    open_far: OpenFar,
) -> None:
    piece = TokenChunk(text="x" * 8_192)
    long = Act((*(piece,) * 200, STOP, USAGE))

    class Slow(Collected):
        async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
            await Collected.chunk(self, chunk)
            if len(self.chunks) == 3:
                await go_on.wait()

    async with open_far("ab") as (a, b), trio.open_nursery() as nursery:
        given = 0

        class Counting(Player):
            def act(self, batch: ExecuteBatch) -> Act:
                return long if batch.request_id == "a-0" else says("quick")

            @asynccontextmanager
            async def execute(self, batch: ExecuteBatch) -> AsyncIterator[Any]:
                async with Player.execute(self, batch) as chunks:

                    async def counted() -> AsyncIterator[Any]:
                        nonlocal given
                        async for chunk in chunks:
                            given += len(chunk.text)
                            yield chunk

                    yield counted()

        await b.deploy(M, Counting())
        a.know(M)
        await a.sees(1)
        go_on, sink = trio.Event(), Slow()
        nursery.start_soon(lambda: a.ask(sink=sink))
        await until(lambda: len(sink.chunks) == 3)
        await trio.sleep(0.2)
        assert given <= 3 * 8_192 + CREDIT_BYTES + 2 * 8_192
        quick = [await a.ask() for _ in range(5)]
        assert [answer.texts for answer in quick] == [["quick"]] * 5
        go_on.set()
        await until(lambda: sink.result is not None)
        assert sum(map(len, sink.texts)) == 200 * 8_192
        await at_rest(a, b)


async def test_a_large_request_and_a_large_answer_cross_in_pieces(
    open_far: OpenFar,
) -> None:
    text = "0123456789abcdef" * 150_000
    async with open_far("ab") as (a, b):
        player = Player([says(text)])
        await b.deploy(M, player)
        a.know(M)
        await a.sees(1)
        answer = await a.ask(text)
        assert answer.texts == [text]
        assert player.batches[0].messages == (Message(Role.USER, text),)
        await at_rest(a, b)


async def test_an_engine_of_another_node_that_rests_is_started_by_a_request_here(
    open_far: OpenFar, autojump_clock: MockClock
) -> None:
    rests = attrs.evolve(M, serving=Serving(idle_stop_s=1.0))
    async with open_far("ab") as (a, b):
        await b.deploy(rests, Player([says("Hello")]), Player([says("Hello", " you")]))
        a.know(rests)
        await a.sees(1)
        (replica,) = b.serving.replicas("m")
        await until(lambda: replica.phase is Phase.ASLEEP, "it does not rest")
        (far,) = a.serving.far_replicas["m"]
        await until(lambda: far.phase is Phase.ASLEEP, "nobody is told that it rests")
        assert (await a.ask()).texts == ["Hello", " you"]
        assert replica.starts == 2
        await at_rest(a, b)
