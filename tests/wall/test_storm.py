"""Many clients at once before upstreams that do anything: nobody is lied to.

A seed decides what each request meets, so a storm that finds something can be
had again: ``make test-slow ARGS="tests/wall/test_storm.py -k 17"``.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import attrs
import pytest
import trio

from atomr import telemetry
from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy, Timeouts
from atomr_infer.model.failover import BreakerPolicy, HedgePolicy, OnCut
from atomr_infer.model.secret import Secret
from atomr_infer.testing import upstream as kit
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import FakeUpstream
from atomr_infer.testing.wall.asking import MODEL, ask
from atomr_infer.testing.wall.heard import hear
from atomr_infer.testing.wall.scenarios import (
    ANSWER,
    FALLBACK_TEXT,
    OTHER_ANSWER,
    PRIMARY_TEXT,
    PROVIDERS,
    SCENARIOS,
    Cell,
    Dialect,
)
from tests.at_length import times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


CLIENTS, AT_ONCE = 40, 10
TIMEOUTS = Timeouts(connect_s=5, first_token_s=0.4, idle_s=0.4, total_s=5)
RETRY = RetryPolicy(max_attempts=2, backoff_s=0.001, max_backoff_s=0.5)
# An open circuit would keep the storm from the upstreams.
NEVER = BreakerPolicy(max_failures=0)
OPENS: dict[Dialect, Callable[..., Any]] = {
    Dialect.OPENAI: kit.open_openai_upstream,
    Dialect.ANTHROPIC: kit.open_anthropic_upstream,
    Dialect.GEMINI: kit.open_gemini_upstream,
}
MODELS = {
    Dialect.OPENAI: "gpt-4o",
    Dialect.ANTHROPIC: "claude-opus-4-8",
    Dialect.GEMINI: "gemini-2.5-flash",
}
ODD_EVENTS = (
    b'{"object":"error","message":"x","code":400}',
    b'{"error":"x"}',
    b'{"error":{}}',
    b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}',
    b'{"choices":null}',
    b'{"candidates":[{}]}',
    b'{"type":5}',
    b"nonsense",
    b"null",
    b"[]",
)
ODD_BODIES = (b"", b"{}", b"null", b"data: {}\n\n", b"\xff\xfe", b"[]")


def weather(chance: random.Random, answer: script.Happy) -> Iterator[script.Behaviour]:
    """Yield what an upstream does, request by request, for ever."""
    pick = chance.choice
    while True:
        after = chance.randrange(9)
        yield pick(
            (
                answer,
                answer,
                answer,
                attrs.evolve(answer, split_bytes=pick((1, 2, 3, 7, 50))),
                attrs.evolve(answer, malformed_after=after),
                attrs.evolve(answer, done=False),
                attrs.evolve(answer, usage=False),
                attrs.evolve(answer, then_close=True),
                attrs.evolve(answer, delay_s=0.002),
                attrs.evolve(answer, native_finish=pick(("odd", "STOP", "stop", ""))),
                script.CutMidStream(after=after, answer=answer),
                script.HalfClose(after=after, answer=answer),
                script.EndWithoutFinish(after=after, answer=answer),
                script.HangMidStream(after=after, answer=answer),
                script.HangBeforeHeaders(),
                script.CloseBeforeHeaders(),
                script.SlowHeaders(0.001),
                script.CommentsOnly(after=after, every_s=0.05, answer=answer),
                script.ErrorInStream(after=after, answer=answer),
                script.ErrorInStream(
                    after=after,
                    answer=answer,
                    data=pick(ODD_EVENTS),
                    event=pick((None, "error")),
                ),
                script.rate_limited(pick((None, "0", "junk", "99999", "-1"))),
                script.server_error(pick((500, 502, 503, 504, 529, 599))),
                script.Refused(status=pick((400, 401, 402, 403, 404, 413, 422, 451))),
                script.RefusedAs(pick(tuple(script.Meaning))),
                script.PromptBlocked(),
                script.ToolCall(),
                script.RawAnswer(
                    status=pick((200, 301, 404, 500)),
                    content_type=pick(("application/json", "text/event-stream", "x")),
                    body=pick(ODD_BODIES),
                ),
                script.RawAnswer(body=b'{"a":', withheld_bytes=50),
                script.HugeLine(size_bytes=100),
            )
        )


@attrs.define
class Storm:
    """A gateway over two upstreams, and what was wrong with what it said."""

    chance: random.Random
    cluster: Cluster
    upstreams: tuple[FakeUpstream, FakeUpstream]
    provider: Dialect
    address: tuple[str, int]
    wrong: list[object] = attrs.field(factory=list)

    async def client(self, limit: trio.CapacityLimiter) -> None:
        """Ask once; one in five leaves before the answer is whole."""
        dialect, stream = self.chance.choice(list(Dialect)), self.chance.random() < 0.6
        patience_s = self.chance.random() * 0.1 if self.chance.random() < 0.2 else 60
        cell = Cell(
            scenario=SCENARIOS[0],
            dialect=dialect,
            provider=self.provider,
            stream=stream,
        )
        async with limit:
            with trio.move_on_after(patience_s):
                reply = await ask(cell, *self.address)
                heard = hear(dialect, reply, stream=stream)
                faults = [*heard.faults, *_lies(heard.text, heard.error, heard.ended)]
                if faults:
                    self.wrong.append((cell.name, faults, reply.body[-300:]))

    async def settle(self) -> None:
        """Wait until no permit is held and no upstream's answer is under way."""
        held = still_open = 0
        with trio.move_on_after(5):
            while True:
                held, still_open = await self._held(), self._open()
                if not held and not still_open:
                    return
                await trio.sleep(0.01)
        self.wrong.append(f"{held} permits held, {still_open} answers open")

    async def _held(self) -> int:
        replicas = [
            replica
            for name in ("first", "second")
            for replica in await self.cluster.replicas(name)
        ]
        return sum(r.running + r.waiting + r.arriving for r in replicas)

    def _open(self) -> int:
        return sum(r.open for up in self.upstreams for r in up.requests)


def _lies(text: str, error: str | None, ended: bool) -> list[str]:
    """The text is all of one upstream's, or its front part with an error behind it."""
    texts = (PRIMARY_TEXT, FALLBACK_TEXT, "")
    if error is None:
        whole = ended and text in texts
        return [] if whole else [f"said {text!r}, ended: {ended}"]
    told = any(each.startswith(text) for each in texts)
    return [] if told else [f"said {text!r} before the error"]


async def run_storm(stack: AsyncExitStack, chance: random.Random) -> Storm:
    provider, other = chance.choice(PROVIDERS), chance.choice(PROVIDERS)
    first = await stack.enter_async_context(OPENS[provider](weather(chance, ANSWER)))
    second = await stack.enter_async_context(
        OPENS[other](weather(chance, OTHER_ANSWER))
    )
    cluster = await stack.enter_async_context(Cluster.connect("inproc://storm"))

    def deployment(name: str, speaks: Dialect, upstream: FakeUpstream) -> Deployment:
        return Deployment(
            name=name,
            runtime=speaks.value,
            model=MODELS[speaks],
            credential=Secret("k"),
            options={"endpoint": upstream.base_url},
            timeouts=TIMEOUTS,
            retry=RETRY,
            breaker=NEVER,
        )

    await cluster.deploy(deployment("second", other, second))
    await cluster.deploy(
        attrs.evolve(
            deployment("first", provider, first),
            serves=(MODEL,),
            fallbacks=["second"],
            on_cut=chance.choice(list(OnCut)),
            hedge=HedgePolicy(after_s=chance.choice((None, 0.05)), max_fraction=1.0),
        )
    )
    url = urlsplit((await cluster.serve("127.0.0.1:0")).url)
    assert url.hostname is not None
    assert url.port is not None
    address = (url.hostname, url.port)
    return Storm(chance, cluster, (first, second), provider, address)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(times(8)))
async def test_nobody_is_lied_to_in_a_storm(seed: int) -> None:
    ends = []

    def note(event: telemetry.Event, _: object, metadata: Mapping[str, object]) -> None:
        if event[-1] == "stop":
            ends.append(metadata["request_id"])

    telemetry.attach("storm", ("atomr_infer", "request"), note)
    try:
        async with AsyncExitStack() as stack:
            storm = await run_storm(stack, random.Random(seed))
            limit = trio.CapacityLimiter(AT_ONCE)
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(storm.client, limit)
            await storm.settle()
    finally:
        telemetry.detach("storm")
    assert storm.wrong == []
    assert len(ends) == len(set(ends))
