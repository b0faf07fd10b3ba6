"""PubSub across nodes with real links."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest
import trio

from atomr import telemetry
from atomr.cluster.pubsub import ClusterPubSub, Reach
from atomr.cluster.pubsub.frames import Published
from atomr.cluster.replicator import NotReplicatingError, Replicator, ReplicatorOptions
from atomr.core.mailbox_limit import MailboxLimit, Overflow
from atomr.process import exit_process, kill, receive, spawn
from tests.atomr.cluster.replicator.lab import Lab, LabNode, open_lab
from tests.atomr.http2.conftest import Authority, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr.refs import Pid


class Rain(msgspec.Struct, frozen=True, tag="rain"):
    mm: int


class Snow(msgspec.Struct, frozen=True, tag="snow"):
    cm: int


@attrs.frozen
class Member:
    """A node with its pubsub.

    Attributes:
        heard: by its subscribers.
    """

    node: LabNode
    replicator: Replicator
    news: ClusterPubSub[Any]
    heard: list[Any]

    async def subscriber(self, *topics: str) -> Pid:
        """Start a process that subscribes."""
        ready = trio.Event()

        async def subscriber() -> None:
            for topic in topics:
                self.news.subscribe(topic)
            ready.set()
            while True:
                self.heard.append(await receive())

        pid = self.node.do(spawn, subscriber)
        await ready.wait()
        return pid

    def knows(self, topic: str, *others: Member) -> bool:
        """Return whether it is known here who has subscribers."""
        owners = {other.node.origin for other in others}
        return set(self.news.topics.owners(topic)) == owners


async def start(lab: Lab, name: str, messages: Any = Rain | Snow) -> Member:
    replicator = Replicator(ReplicatorOptions(shards=2))
    news: ClusterPubSub[Any] = ClusterPubSub("news", replicator, messages=messages)
    return Member(await lab.start(name, replicator, news), replicator, news, [])


@asynccontextmanager
async def members(authority: Authority, names: str) -> AsyncIterator[list[Member]]:
    async with open_lab(authority) as lab:
        started = [await start(lab, name) for name in names]
        await lab.link(*names)
        yield started


async def test_a_message_goes_once_to_each_node_with_subscribers(
    authority: Authority,
) -> None:
    async with members(authority, "abc") as (a, b, c):
        await a.subscriber("weather")
        await b.subscriber("weather", "weather")
        await b.subscriber("weather")
        await c.subscriber("sport")
        await until(lambda: a.knows("weather", a, b))
        assert a.news.broadcast("weather", Rain(3)) == Reach(1, 1, 0)
        await until(lambda: len(b.heard) == 3)
        assert (a.heard, b.heard, c.heard) == ([Rain(3)], [Rain(3)] * 3, [])
        await until(lambda: c.knows("weather", a, b))
        assert c.news.broadcast("weather", Snow(1)) == Reach(0, 2, 0)
        await until(lambda: len(a.heard) == 2 and len(b.heard) == 6)
        assert a.news.local_broadcast("weather", Rain(4)) == Reach(1, 0, 0)
        assert b.news.broadcast("nobody listens", Rain(5)) == Reach(0, 0, 0)
        await until(lambda: len(a.heard) == 3)
        assert a.heard == [Rain(3), Snow(1), Rain(4)]


async def test_what_one_publishes_arrives_in_order(authority: Authority) -> None:
    async with members(authority, "ab") as (a, b):
        await b.subscriber("weather")
        await until(lambda: a.knows("weather", b))
        for mm in range(1_000):
            assert a.news.broadcast("weather", Rain(mm)) == Reach(0, 1, 0)
        await until(lambda: len(b.heard) == 1_000)
        assert b.heard == [Rain(mm) for mm in range(1_000)]


async def test_who_unsubscribes_or_ends_gets_nothing_more(authority: Authority) -> None:
    async with members(authority, "ab") as (a, b):
        first = await b.subscriber("weather")
        await until(lambda: a.knows("weather", b))
        second = await b.subscriber("weather")
        kill(first)
        assert b.news.subscribers("weather") in {(second,), (first, second)}
        await until(lambda: b.news.subscribers("weather") == (second,))
        kill(second)
        await until(lambda: a.knows("weather"))
        assert b.news.local == {}
        assert a.news.broadcast("weather", Rain(1)) == Reach(0, 0, 0)


async def test_topics_outlive_a_crash_of_the_replicator(authority: Authority) -> None:
    async with members(authority, "ab") as (a, b):
        await b.subscriber("weather")
        await until(lambda: a.knows("weather", b))
        before = b.replicator.running()
        exit_process(before.pid, RuntimeError("a bug"))
        await until(lambda: b.replicator.server not in {None, before})
        await until(lambda: a.knows("weather", b))
        a.news.broadcast("weather", Rain(1))
        await until(lambda: b.heard)
        assert b.heard == [Rain(1)]


async def test_a_full_mailbox_loses_its_own_message_only(authority: Authority) -> None:
    async with members(authority, "a") as (a,):
        ready = trio.Event()
        lost: list[tuple[Any, Any]] = []

        async def full() -> None:
            a.news.subscribe("weather")
            ready.set()
            await trio.sleep_forever()

        limit = MailboxLimit(1, Overflow.REJECT)
        a.node.do(lambda: spawn(full, mailbox=limit))
        await ready.wait()
        await a.subscriber("weather")
        telemetry.attach("k", ("atomr", "pubsub"), lambda _, m, d: lost.append((m, d)))
        try:
            reaches = [a.news.broadcast("weather", Rain(n)) for n in range(2)]
        finally:
            telemetry.detach("k")
        assert reaches == [Reach(2, 0, 0), Reach(1, 0, 1)]
        assert lost == [({"count": 1}, {"name": "news", "topic": "weather"})]
        await until(lambda: len(a.heard) == 2)


async def test_a_message_of_another_type_is_refused_and_told(
    authority: Authority,
) -> None:
    async with open_lab(authority) as lab:
        a, b = await start(lab, "a", str), await start(lab, "b", int)
        await lab.link("a", "b")
        refused: list[Any] = []
        await b.subscriber("weather")
        await until(lambda: a.knows("weather", b))
        telemetry.attach("k", ("atomr", "pubsub"), lambda _, __, d: refused.append(d))
        try:
            a.news.broadcast("weather", "rain")
            await until(lambda: refused)
        finally:
            telemetry.detach("k")
        assert refused[0]["peer"] == a.node.origin
        assert b.heard == []


async def test_text_that_is_none_is_refused_without_a_word_in_the_log(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_lab(authority) as lab:
        a, b = await start(lab, "a", str), await start(lab, "b", str)
        await lab.link("a", "b")
        refused: list[Any] = []
        await b.subscriber("weather")
        await until(lambda: a.knows("weather", b))
        telemetry.attach("k", ("atomr", "pubsub"), lambda _, __, d: refused.append(d))
        try:
            for _ in range(5):
                no_text = Published("weather", msgspec.Raw(b"\xa1\xff"))
                a.node.peers.tell(b.node.origin, a.news.service_name, no_text)
            await until(lambda: len(refused) == 5)
        finally:
            telemetry.detach("k")
        assert b.heard == []
        assert caplog.text == ""
        a.news.broadcast("weather", "rain")
        await until(lambda: b.heard == ["rain"])


async def test_what_cannot_be_encoded_goes_nowhere_on_a_node_alone_too(
    authority: Authority,
) -> None:
    async with members(authority, "a") as (a,):
        await a.subscriber("weather")
        with pytest.raises(TypeError):
            a.news.broadcast("weather", object())
        a.news.broadcast("weather", Rain(1))
        await until(lambda: a.heard)
        assert a.heard == [Rain(1)]


async def test_a_pubsub_without_a_replicator_says_so() -> None:
    news = ClusterPubSub("news", Replicator(), messages=str)
    assert news.broadcast("weather", "rain") == Reach(0, 0, 0)
    with pytest.raises(NotReplicatingError):
        news.topics.owners("weather")
