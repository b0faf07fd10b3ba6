"""A node that has just started hears of keys, of secrets and of ends one by one."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.cluster.replicator import ReplicatorOptions
from atomr.cluster.replicator.frames import Carried
from atomr.cluster.replicator.options import REPLICATION
from atomr.crdt import GSet
from atomr.gossip.replication import Events, SnapshotPart
from atomr_infer.config.node import NodeConfig
from atomr_infer.model.key_secret import digest_of
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.limits import key_ring
from atomr_infer.serving.limits.key_errors import (
    KeyOverError,
    KeysUnheardError,
    KeyTakenError,
    NoSuchKeyError,
)
from atomr_infer.serving.limits.key_hearing import GIVES_UP_S, MEETS_S, KeyHearing
from atomr_infer.serving.node import ServingNode, make_node
from tests.gateway.http import until
from tests.serving.test_key_ring import is_open, open_ring, terms
from tests.serving.test_node import _Places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trio.testing import MockClock

    from atomr_infer.model.virtual_key import KeySecret
    from atomr_infer.serving.limits.key_ring import Issued, KeyRing

KEYS = 40
KEPT = 8


class Nodes:
    """Two nodes over mutual TLS; the second one starts later, with nothing."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._places = _Places(folder)
        self._stack = stack
        self._seed = ""

    def make(self, name: str) -> ServingNode:
        """Return a node that is not open yet."""
        cluster = self._places.cluster(signed_as=name, seed=self._seed)
        environ = {"COOKIE": "a secret of all nodes"}
        return make_node(NodeConfig(name=name), cluster, environ)

    async def open(self, node: ServingNode) -> KeyRing:
        """Open it, for the length of the test."""
        serving = await self._stack.enter_async_context(
            open_serving(environ={}, node=node)
        )
        assert node.cluster is not None
        self._seed = node.cluster.address
        return serving.key_ring


@asynccontextmanager
async def open_nodes(folder: Path) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        yield Nodes(folder, stack)


class Dam:
    """Holds back what a node is told of keys' ends; that there is some it hears."""

    def __init__(self, node: ServingNode) -> None:
        self._replicator = node.replicator
        self._pass: Callable[[Any, Any], None] = node.replicator._told
        self.held: list[tuple[Any, Any]] = []
        self.is_open = False
        node.replicator._told = self._told  # type: ignore[method-assign] # in between

    def _told(self, link: Any, message: Any) -> None:
        if self._is_held(message):
            self.held.append((link, message))
        else:
            self._pass(link, message)

    def _is_held(self, message: Any) -> bool:
        if self.is_open or not isinstance(message, Carried):
            return False
        core = self._replicator.running().core
        ends = core.shard_of(f"{GSet.KIND}/virtual key ends")
        is_told = isinstance(message.frame, Events | SnapshotPart)
        return is_told and message.shard == ends.number

    def open(self) -> None:
        """Let all of it through."""
        self.is_open = True
        for link, message in self.held:
            self._pass(link, message)


def is_new(ring: KeyRing) -> bool:
    return ring.is_newcomer


def digest(issued: Issued) -> str:
    return digest_of(issued.secret.reveal()).hex()


async def test_what_has_ended_opens_nothing_on_a_new_node_at_any_time(
    tmp_path: Path,
) -> None:
    async with open_nodes(tmp_path) as nodes:
        a = nodes.make("a")
        # One event in a frame: of each secret it is heard by itself that there is one.
        slow = attrs.evolve(REPLICATION, batch_events=1)
        a.replicator.options = ReplicatorOptions(replication=slow)
        here = await nodes.open(a)
        revoked = [await here.create(terms(here, f"k{n}")) for n in range(KEYS)]
        rotated = [await here.create(terms(here, f"r{n}")) for n in range(KEYS)]
        for number in range(KEYS):
            await here.revoke(f"k{number}")
        news = [await here.rotate(f"r{n}", grace_s=0) for n in range(KEYS)]
        there = await nodes.open(nodes.make("b"))
        ended = revoked + rotated
        early: set[bytes] = set()
        take = there.hear_secret

        def hear_secret(secret: KeySecret) -> None:
            take(secret)
            if any(is_open(there, each) for each in ended):
                early.add(secret.digest)

        there.hear_secret = hear_secret  # type: ignore[method-assign] # and looks
        with trio.fail_after(60):
            while not all(is_open(there, each) for each in news):
                assert not any(is_open(there, each) for each in ended)
                await trio.lowlevel.checkpoint()
        assert not early
        assert not any(is_open(there, each) for each in ended)


async def test_nothing_opens_and_nothing_is_made_before_all_has_been_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_nodes(tmp_path) as nodes:
        here = await nodes.open(nodes.make("a"))
        kept = [await here.create(terms(here, f"kept{n}")) for n in range(KEPT)]
        lost = await here.create(terms(here, "lost"))
        await here.revoke("lost")
        b = nodes.make("b")
        dam = Dam(b)
        there = await nodes.open(b)
        await until(lambda: b.replicator.told() == {"a": False}, within_s=20)
        await until(lambda: len(dam.held) > 0, within_s=20)
        # Of most it has heard: some are in the place that is held back.
        known = {digest(each) for each in kept}
        await until(lambda: len(set(there.facts.secrets) & known) > 1, within_s=20)
        assert is_new(there)
        assert not any(is_open(there, each) for each in kept)
        monkeypatch.setattr(key_ring, "_PATIENCE_S", 0.1)
        for refused in (
            partial(there.rotate, "kept0", grace_s=0),
            partial(there.change, "kept0", {"priority": 1}),
            partial(there.create, terms(there, "kept0")),
            partial(there.revoke, "kept0"),
        ):
            with pytest.raises(KeysUnheardError, match="and a may not have told it"):
                await refused()
        dam.open()
        await until(lambda: all(is_open(there, each) for each in kept))
        assert not is_new(there)
        assert not is_open(there, lost)


class FakeReplicator:
    """One of which a test says what it was told."""

    def __init__(self) -> None:
        self.nodes: dict[str, bool] = {}

    def told(self) -> dict[str, bool]:
        return self.nodes


def hearing_of(*others: str) -> tuple[KeyHearing, dict[str, bool]]:
    replicator: Any = FakeReplicator()
    hearing = KeyHearing(replicator, lambda: others)
    return hearing, replicator.nodes


def is_over(hearing: KeyHearing) -> bool:
    return hearing.is_over


async def test_a_newcomer_is_one_until_all_who_should_be_there_have_told_all(
    autojump_clock: MockClock,
) -> None:
    hearing, told = hearing_of("b", "c")
    await trio.sleep(100)
    assert not is_over(hearing), "its process does not run yet"
    hearing.begin()
    assert set(hearing.unheard) == {"b", "c"}
    told |= {"b": True, "c": False}
    assert not is_over(hearing)
    assert set(hearing.unheard) == {"c"}
    told["c"] = True
    assert is_over(hearing)
    assert set(hearing.unheard) == set()
    told["d"] = False
    assert is_over(hearing), "from then on for ever"


async def test_who_is_away_is_waited_for_as_long_as_connections_may_take(
    autojump_clock: MockClock,
) -> None:
    hearing, told = hearing_of("b", "c")
    hearing.begin()
    told["b"] = True
    await trio.sleep(MEETS_S - 0.1)
    hearing.begin()  # its process has started again
    assert not is_over(hearing)
    await trio.sleep(0.2)
    assert is_over(hearing)


async def test_who_tells_is_waited_for_for_longer_and_not_for_ever(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    hearing, told = hearing_of("b")
    slow, told_late = hearing_of("b")
    hearing.begin()
    slow.begin()
    told["b"] = told_late["b"] = False
    await trio.sleep(GIVES_UP_S - 0.1)
    assert not is_over(hearing)
    told["b"] = True
    assert is_over(hearing)
    assert not caplog.text
    await trio.sleep(0.2)
    assert is_over(slow)
    assert "b have not told all that they know for 60 s" in caplog.text


async def test_who_goes_away_in_the_middle_still_owes_the_rest(
    autojump_clock: MockClock,
) -> None:
    hearing, told = hearing_of("b")
    hearing.begin()
    told["b"] = False
    await trio.sleep(MEETS_S * 2)
    assert not is_over(hearing)
    del told["b"]  # its link is lost
    assert not is_over(hearing)
    assert hearing.unheard == ("b",)
    told["b"] = False
    assert not is_over(hearing)
    told["b"] = True
    assert is_over(hearing)


async def test_commands_of_a_new_node_wait_until_it_knows_what_they_are_about(
    tmp_path: Path,
) -> None:
    async with open_nodes(tmp_path) as nodes:
        here = await nodes.open(nodes.make("a"))
        old = await here.create(terms(here, "ci"))
        await here.create(terms(here, "gone"))
        await here.revoke("gone")
        there = await nodes.open(nodes.make("b"))
        # It has not even met the other one.
        assert len(there.table) == 0
        done: list[str] = []

        async def refused(error: type[Exception], call: Callable[..., Any]) -> None:
            with pytest.raises(error):
                await call()
            done.append(error.__name__)

        async with trio.open_nursery() as nursery:
            for error, call in (
                (KeyTakenError, partial(there.create, terms(there, "ci"))),
                (KeyOverError, partial(there.rotate, "gone", grace_s=0)),
                (KeyOverError, partial(there.change, "gone", {"priority": 1})),
                (NoSuchKeyError, partial(there.revoke, "nobody")),
            ):
                nursery.start_soon(refused, error, call)
        assert len(done) == 4
        new = await there.rotate("ci", grace_s=0)
        assert (is_open(there, old), is_open(there, new)) == (False, True)


async def test_a_node_whose_others_are_away_makes_keys_when_it_has_waited_for_them(
    tmp_path: Path,
) -> None:
    async with open_nodes(tmp_path) as nodes:
        here = await nodes.open(nodes.make("a"))
        assert is_new(here)
        first = await here.create(terms(here, "first"))
        assert not is_new(here)
        assert is_open(here, first)


async def test_a_name_that_two_nodes_give_at_once_is_told_and_both_keys_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_ring() as (ring, _), open_ring() as (other, _):
        made: list[Issued] = []
        for each in (ring, other):
            made.append(await each.create(terms(each)))
        one, two = made
        ids = " and ".join(sorted((one.key.id, two.key.id)))
        with caplog.at_level(logging.WARNING):
            for _ in range(2):  # it is told once
                ring.facts.say_key(two.key)
                for standing in other.table.standings(two.key.id):
                    ring.facts.say_secret(standing.secret)
                await until(lambda: is_open(ring, two))
        assert is_open(ring, one)
        told = [each.message for each in caplog.records if "are called" in each.message]
        assert told == [
            f"two virtual keys that open are called 'ci', as two nodes made them at "
            f"once: {ids}; name them by id, or revoke one"
        ]
        with pytest.raises(NoSuchKeyError, match="name one by id"):
            await ring.revoke("ci")
