"""Nodes in processes of their own, over mutual TLS, a provider behind some of them."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.testing.upstream_script import (
    HangBeforeHeaders,
    HangMidStream,
    Happy,
    ToolCall,
)
from atomr_infer.testing.upstreams.rate_limit import SlidingLimit
from tests.gateway.dialects import EMBEDDINGS, PROVIDERS, ROUTES, Route
from tests.gateway.http import Answer, parse, until
from tests.serving.far.node_program import Model
from tests.serving.far.processes import open_fleet

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer.testing.upstream import FakeUpstream

pytestmark = pytest.mark.slow

CLOSE = "connection: close"
ASK_S = 60.0
TOOLS = Happy(
    text="Let me see",
    tool_calls=(ToolCall(name="look", arguments=('{"at":', ' "the sky"}')),),
    reasoning=("a", " thought"),
)
# What differs from one request to the next: ids of ours, and the time.
_OURS = re.compile(
    rb'"(id|response_id|responseId|item_id|created|created_at|completed_at|call_id)":'
    rb' ?("[^"]*"|\d+)'
)


def model_of(upstream: FakeUpstream, over: str, **more: Any) -> Model:
    _, model = PROVIDERS[over]
    return Model(
        runtime=over, model=model, endpoint=upstream.base_url, runs=True, **more
    )


def elsewhere(model: Model) -> Model:
    return attrs.evolve(model, runs=False)


async def ask(port: int, route: Route, *, stream: bool = False) -> Answer:
    with trio.fail_after(ASK_S):
        async with await trio.open_tcp_stream("127.0.0.1", port) as tcp:
            await tcp.send_all(route.request(CLOSE, stream=stream))
            return parse(b"".join([piece async for piece in tcp]))


def shown(answer: Answer) -> tuple[int, str, bytes]:
    """What of an answer is the same each time."""
    body = re.sub(rb"[0-9a-f]{24,}", b"", _OURS.sub(b"", answer.body))
    return answer.status, answer.headers["content-type"], body


@pytest.mark.parametrize("over", PROVIDERS)
async def test_all_dialects_get_the_same_answer_through_another_node(
    tmp_path: Path, over: str
) -> None:
    opens, _ = PROVIDERS[over]
    async with opens((), otherwise=TOOLS) as upstream, open_fleet(tmp_path) as fleet:
        model = model_of(upstream, over)
        b = await fleet.start("b", model)
        a = await fleet.start("a", elsewhere(model))
        await a.sees("b/0")
        for name, route in ROUTES.items():
            for stream in (True, False):
                near = await ask(b.port, route, stream=stream)
                far = await ask(a.port, route, stream=stream)
                assert near.status == 200, (name, near.body)
                assert shown(far) == shown(near), (name, stream)
                assert far.headers["x-atomr-route"] == (
                    "node=b; replica=0; reason=only; candidates=1"
                )
        if over == "openai":
            vectors = [shown(await ask(node.port, EMBEDDINGS)) for node in (b, a)]
            assert vectors[0] == vectors[1]
            assert vectors[0][0] == 200
        await a.is_at_rest()
        await b.is_at_rest()


async def test_a_client_that_leaves_one_node_closes_the_upstream_of_another(
    tmp_path: Path,
) -> None:
    opens, _ = PROVIDERS["openai"]
    async with (
        opens([HangMidStream(), HangBeforeHeaders()]) as upstream,
        open_fleet(tmp_path) as fleet,
    ):
        model = model_of(upstream, "openai", max_concurrency=1)
        b = await fleet.start("b", model)
        a = await fleet.start("a", elsewhere(model))
        await a.sees("b/0")
        for number in range(2):
            tcp = await trio.open_tcp_stream("127.0.0.1", a.port)
            await tcp.send_all(ROUTES["chat"].request(stream=True))
            await upstream.wait_for_requests(number + 1)
            if number == 0:
                assert await tcp.receive_some()
            await tcp.aclose()
            # That it waits for no timer is told where all nodes have one clock.
            with trio.fail_after(ASK_S):
                await upstream.requests[number].client_left.wait()
        await a.is_at_rest()
        await b.is_at_rest()
        assert (await ask(a.port, ROUTES["chat"])).status == 200


async def test_a_node_that_is_killed_under_load_costs_only_what_had_begun(
    tmp_path: Path,
) -> None:
    opens, _ = PROVIDERS["openai"]
    words = Happy(tokens=("word ",) * 20, delay_s=0.02)
    chat = ROUTES["chat"]
    route = attrs.evolve(chat, members={**chat.members, "max_tokens": 50})
    answers: list[Answer] = []
    async with opens((), otherwise=words) as upstream, open_fleet(tmp_path) as fleet:
        # It tells nothing that is below what is declared, or that would be kept.
        upstream.limit = SlidingLimit(60_000, 60.0)
        model = model_of(upstream, "openai", limited=True)
        b = await fleet.start("b", model)
        c = await fleet.start("c", model)
        a = await fleet.start("a", elsewhere(model))
        await a.sees("b/0", "c/0")
        first, others_first = await a.held(), await c.held()
        stop = False

        async def keep_asking() -> None:
            while not stop:
                answers.append(await ask(a.port, route, stream=True))

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(keep_asking)
            await until(lambda: len(answers) > 12, 30)
            await b.kill()
            before = len(answers)
            await until(lambda: len(answers) > before + 24, 30)
            stop = True
        routes = {answer.headers["x-atomr-route"].split(";")[0] for answer in answers}
        assert routes == {"node=b", "node=c"}
        whole = [each for each in answers if each.body.endswith(b"data: [DONE]\n\n")]
        cut = [each for each in answers if each not in whole]
        # Nobody saw a status but 200: what had no bytes was answered by the other.
        assert {answer.status for answer in answers} == {200}
        assert all(b"the node b was lost in the middle" in x.body for x in cut)
        assert all(x.headers["x-atomr-route"].startswith("node=b") for x in cut)
        assert all(x.body.count(b"word ") == 20 for x in whole)
        assert len(cut) <= 12
        await a.sees("c/0")
        await a.is_at_rest()
        await c.is_at_rest()
        # And it comes back, in a new life.
        again = await fleet.start("b", model)
        await a.sees("b/0", "c/0")
        await again.is_at_rest()
        # Nothing is left: not a process of requests or links, and of a's no socket.
        await a.until(lambda held: open_in(held) == open_in(first))
        await c.until(lambda held: held["processes"] == others_first["processes"])


def open_in(held: dict[str, Any]) -> tuple[int, int]:
    return held["processes"], held["sockets"]


async def test_a_node_that_stands_still_is_given_up_and_another_one_answers(
    tmp_path: Path,
) -> None:
    opens, _ = PROVIDERS["openai"]
    async with (
        opens([HangBeforeHeaders()], otherwise=Happy(text="here I am")) as upstream,
        open_fleet(tmp_path) as fleet,
    ):
        model = model_of(upstream, "openai")
        b = await fleet.start("b", model)
        a = await fleet.start("a", elsewhere(model))
        await a.sees("b/0")
        answers: list[Answer] = []

        async def ask_one() -> None:
            answers.append(await ask(a.port, ROUTES["chat"], stream=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_one)
            await upstream.wait_for_requests(1)
            c = await fleet.start("c", model)
            await a.sees("b/0", "c/0")
            b.child.send_signal(signal.SIGSTOP)
        (answer,) = answers
        assert answer.status == 200
        assert answer.headers["x-atomr-route"].startswith("node=c; replica=0; ")
        assert answer.headers["x-atomr-attempts"] == "2"
        assert answer.body.endswith(b"data: [DONE]\n\n")
        await a.sees("c/0")
        await a.is_at_rest()
        await c.is_at_rest()
        b.child.send_signal(signal.SIGCONT)
        # What it was asked is nobody's any more, and it is one of them again.
        await a.sees("b/0", "c/0")
        await b.is_at_rest()


async def test_a_cut_answer_is_made_whole_by_another_node_where_that_is_wanted(
    tmp_path: Path,
) -> None:
    opens, _ = PROVIDERS["openai"]
    words = Happy(tokens=("one", " two", " three", " four"))
    stalls = HangMidStream(after=2, answer=words)
    async with (
        opens([stalls], otherwise=words) as upstream,
        open_fleet(tmp_path) as fleet,
    ):
        model = model_of(upstream, "openai", on_cut="restart_match")
        b = await fleet.start("b", model)
        a = await fleet.start("a", elsewhere(model))
        await a.sees("b/0")
        async with await trio.open_tcp_stream("127.0.0.1", a.port) as tcp:
            await tcp.send_all(ROUTES["chat"].request(CLOSE, stream=True))
            raw = bytearray()
            with trio.fail_after(ASK_S):
                # An answer that nobody had a piece of would only be asked for again.
                while b'" two"' not in raw:
                    piece = await tcp.receive_some()
                    assert piece, raw
                    raw += piece
            await fleet.start("c", model)
            await a.sees("b/0", "c/0")
            await b.kill()
            with trio.fail_after(ASK_S):
                async for rest in tcp:
                    raw += rest
        answer = parse(bytes(raw))
        words_said = re.findall(rb'"content":"( ?\w+)"', answer.body)
        assert b"".join(words_said) == b"one two three four"
        assert answer.body.endswith(b"data: [DONE]\n\n")
        await a.is_at_rest()


async def test_a_client_that_does_not_read_costs_neither_node_memory(
    tmp_path: Path,
) -> None:
    opens, _ = PROVIDERS["openai"]
    # Nine megabytes each, if somebody took them.
    long = Happy(tokens=("x" * 30_000,) * 300)
    async with (
        opens([long] * 7, otherwise=Happy(text="quick")) as upstream,
        open_fleet(tmp_path) as fleet,
    ):
        model = model_of(upstream, "openai")
        b = await fleet.start("b", model)
        a = await fleet.start("a", elsewhere(model))
        await a.sees("b/0")
        before = [(await node.held())["rss_kib"] for node in (a, b)]
        stuck = []
        for number in range(7):
            tcp = await trio.open_tcp_stream("127.0.0.1", a.port)
            await tcp.send_all(ROUTES["chat"].request(stream=True))
            await upstream.wait_for_requests(number + 1)
            stuck.append(tcp)
        await trio.sleep(1.0)
        for _ in range(5):
            assert (await ask(a.port, ROUTES["chat"])).status == 200
        after = [(await node.held())["rss_kib"] for node in (a, b)]
        grown = [now - then for now, then in zip(after, before, strict=True)]
        assert max(grown) < 40_000, grown
        for tcp in stuck:
            await tcp.aclose()
        await a.is_at_rest()
        await b.is_at_rest()
