"""Virtual keys on nodes: made, heard of, revoked, kept."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.cluster.replicator import Replicator, ReplicatorError
from atomr.cluster.replicator.errors import ShardStoreError
from atomr.process import kill
from atomr_infer.config.node import NodeConfig
from atomr_infer.model.key_secret import digest_of, is_whole
from atomr_infer.model.team import Team
from atomr_infer.model.virtual_key import KeySecret, VirtualKey
from atomr_infer.policy.tenants.key_records import secret_record, terms_record
from atomr_infer.policy.tenants.key_table import End
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.limits.key_errors import (
    KeyOverError,
    KeysNotKeptError,
    KeyTakenError,
    NoSuchKeyError,
    NoSuchTeamError,
)
from atomr_infer.serving.limits.key_ring import KeyRing
from atomr_infer.serving.node import ServingNode, make_node
from tests.gateway.http import until
from tests.serving.test_node import _Places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

    from atomr_infer.policy.tenants.key_table import Standing
    from atomr_infer.serving.limits.key_ring import Issued
    from atomr_infer.serving.shared import Serving

NOW_S = 1_800_000_000
REVOKED_WITHIN_S = 1.0
# So long nothing happens on any socket of this process before all wait for a timer.
IDLE_S = 0.02


class Wall:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def open_ring(folder: Path | None = None) -> AsyncIterator[tuple[KeyRing, Wall]]:
    config = NodeConfig(name="a", state_dir=None if folder is None else str(folder))
    async with open_serving(environ={}, node=ServingNode(config)) as serving:
        ring, wall = serving.key_ring, Wall()
        ring.wall_s = wall
        yield ring, wall


def terms(ring: KeyRing, name: str = "ci", **more: object) -> VirtualKey:
    return VirtualKey(id=ring.new_id(), name=name, created_at_s=NOW_S, **more)  # type: ignore[arg-type] # the caller's


def found(ring: KeyRing, issued: Issued) -> Standing | None:
    return ring.find(digest_of(issued.secret.reveal()))


def is_open(ring: KeyRing, issued: Issued) -> bool:
    standing = found(ring, issued)
    return standing is not None and standing.is_open(ring.wall_s())


async def test_a_key_opens_as_soon_as_it_is_made() -> None:
    async with open_ring() as (ring, _):
        key = terms(ring, models=("gpt-*",), priority=3)
        issued = await ring.create(key)
        standing = found(ring, issued)
        assert (issued.key, issued.is_stored) == (key, False)
        assert is_whole(issued.secret.reveal())
        assert standing is not None
        assert standing.key == key
        assert standing.secret.shown == issued.secret.reveal()[:13] + "..."


async def test_a_name_is_taken_until_its_key_is_over() -> None:
    async with open_ring() as (ring, wall):
        await ring.create(terms(ring, expires_at_s=NOW_S + 10))
        with pytest.raises(KeyTakenError, match="a key 'ci' already, key_"):
            await ring.create(terms(ring))
        wall.now_s += 10
        await ring.create(terms(ring))
        await ring.revoke("ci")
        await ring.create(terms(ring))
        assert len(ring.table) == 3


async def test_a_team_that_is_not_there_is_refused() -> None:
    async with open_ring() as (ring, _):
        ring.take_teams([Team(name="web"), Team(name="ops")])
        with pytest.raises(NoSuchTeamError, match=r"'wen'; there are: ops, web; teams"):
            await ring.create(terms(ring, team="wen"))
        assert is_open(ring, await ring.create(terms(ring, team="web")))


async def test_rotation_keeps_the_old_secret_for_its_grace() -> None:
    async with open_ring() as (ring, wall):
        old = await ring.create(terms(ring))
        new = await ring.rotate("ci", grace_s=60)
        assert new.key == old.key
        wall.now_s += 59
        assert (is_open(ring, old), is_open(ring, new)) == (True, True)
        wall.now_s += 1
        assert (is_open(ring, old), is_open(ring, new)) == (False, True)
        standing = found(ring, old)
        assert standing is not None
        assert (standing.end, standing.ended_at_s) == (End.ROTATED, NOW_S + 60)


async def test_rotation_without_grace_ends_all_older_secrets() -> None:
    async with open_ring() as (ring, _):
        made = [await ring.create(terms(ring)), await ring.rotate("ci", grace_s=3600)]
        last = await ring.rotate("ci", grace_s=0)
        assert [is_open(ring, each) for each in (*made, last)] == [False, False, True]


async def test_a_key_that_is_over_is_not_rotated() -> None:
    async with open_ring() as (ring, _):
        issued = await ring.create(terms(ring))
        await ring.revoke(issued.key.id)
        with pytest.raises(KeyOverError, match=r"'ci', key_.*, is over; create"):
            await ring.rotate("ci", grace_s=0)
        assert await ring.revoke("ci") == issued.key, "twice is once"


def hear(ring: KeyRing, key: VirtualKey) -> None:
    """Write a key as another node would."""
    secret = KeySecret(
        digest=digest_of(key.id), key=key.id, shown="sk-...", created_at_s=NOW_S
    )
    ring.facts.keys.put(key.id, terms_record(key))
    ring.facts.secrets.put(secret.digest.hex(), secret_record(secret))


async def test_who_is_meant_must_be_clear() -> None:
    async with open_ring() as (ring, _):
        with pytest.raises(NoSuchKeyError, match="there is no virtual key 'ci'"):
            await ring.revoke("ci")
        one, other = (await ring.create(terms(ring))).key, terms(ring)
        hear(ring, other)  # as it is made in another half of a cluster
        await until(lambda: not ring.table.is_over(other.id, NOW_S))
        both = ", ".join(sorted((one.id, other.id)))
        with pytest.raises(NoSuchKeyError, match=f"several keys are .* by id: {both}"):
            await ring.revoke("ci")
        assert await ring.revoke(one.id) == one
        assert await ring.revoke("ci") == other, "the one that is not over"


# --- what is kept ----------------------------------------------------------------


async def test_keys_outlive_the_node_with_its_folder(tmp_path: Path) -> None:
    async with open_ring(tmp_path) as (ring, _):
        kept = await ring.create(terms(ring, priority=7))
        lost = await ring.create(terms(ring, "lost"))
        await ring.revoke("lost")
        old, new = kept, await ring.rotate("ci", grace_s=10)
    assert kept.is_stored
    async with open_ring(tmp_path) as (ring, wall):
        await until(lambda: found(ring, new) is not None)
        assert [is_open(ring, each) for each in (old, new, lost)] == [
            True,
            True,
            False,
        ]
        wall.now_s += 10
        assert not is_open(ring, old)
        standing = found(ring, new)
        assert standing is not None
        assert standing.key == kept.key


def files_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_no_secret_is_in_what_is_kept(tmp_path: Path) -> None:
    async with open_ring(tmp_path) as (ring, _):
        issued = await ring.create(terms(ring))
    text = issued.secret.reveal()
    content = files_of(tmp_path)
    assert b"virtual keys" in content
    for at in range(9, len(text) - 8):
        assert text[at : at + 8].encode() not in content


async def test_what_a_replicator_has_lost_is_put_again() -> None:
    async with open_ring() as (ring, _):
        kept = await ring.create(terms(ring))
        old = await ring.create(terms(ring, "old"))
        await ring.rotate("old", grace_s=0)
        lost = await ring.create(terms(ring, "lost"))
        await ring.revoke("lost")
        server = ring.facts._replicator.running()
        kill(server.pid)
        await until(lambda: ring.facts._replicator.server not in (server, None))
        await until(lambda: kept.key.id in ring.facts.keys)
        assert set(ring.facts.keys) == {key.key.id for key in (kept, old, lost)}
        assert len(ring.facts.secrets) == 4
        assert len(ring.facts.ends.read()) == 2
        assert [is_open(ring, each) for each in (kept, old, lost)] == [
            True,
            False,
            False,
        ]


async def test_a_key_that_cannot_be_kept_is_not_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_ring(tmp_path) as (ring, _):

        async def full() -> None:
            await trio.lowlevel.checkpoint()
            raise ShardStoreError(tmp_path / "values.sqlite", "disk is full")

        kept = await ring.create(terms(ring, "kept"))
        sync = ring.facts._replicator.sync
        monkeypatch.setattr(ring.facts._replicator, "sync", full)
        lost = terms(ring)
        with pytest.raises(KeysNotKeptError, match=r"cannot be kept now: .*full"):
            await ring.create(lost)
        with pytest.raises(KeysNotKeptError):
            await ring.rotate("kept", grace_s=0)
        assert is_open(ring, kept)
        # Other nodes heard of both: they hear that both are over.
        ends: frozenset[Any] = ring.facts.ends.read().value
        assert len(dict(ring.facts.secrets.items())) == 3
        assert ("revoked", lost.id, NOW_S) in ends
        assert [how for how, _, at_s in sorted(ends) if at_s == 0] == ["rotated"] * 2
        monkeypatch.setattr(ring.facts._replicator, "sync", sync)
        assert is_open(ring, await ring.create(terms(ring)))


async def test_one_that_cannot_be_revoked_for_good_is_closed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_ring(tmp_path) as (ring, _):

        async def full() -> None:
            await trio.lowlevel.checkpoint()
            raise ShardStoreError(tmp_path / "values.sqlite", "disk is full")

        await ring.create(terms(ring))
        monkeypatch.setattr(ring.facts._replicator, "sync", full)
        assert not ring.table.is_over(next(iter(ring.table.keys)), NOW_S)
        with pytest.raises(KeysNotKeptError):
            await ring.revoke("ci")
        assert ring.table.revoked_at_s(next(iter(ring.table.keys))) == NOW_S


async def test_without_a_replicator_keys_open_and_none_is_made() -> None:
    async with open_ring() as (ring, _):
        issued = await ring.create(terms(ring))
    assert is_open(ring, issued)
    with pytest.raises(KeysNotKeptError):
        await ring.create(terms(ring, "later"))
    with pytest.raises(KeysNotKeptError):
        await ring.revoke("ci")
    assert not is_open(ring, issued), "it is closed here all the same"


# --- what is heard -----------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        {"name": "ci", "may_only_use_on": "sundays"},
        {"name": "not a name"},
        {"name": "ci", "expires_at_s": "tomorrow"},
        ["ci"],
        None,
        {},
    ],
    ids=["newer", "name", "time", "list", "none", "empty"],
)
async def test_terms_that_cannot_be_read_close_the_key(
    record: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_ring() as (ring, _):
        issued = await ring.create(terms(ring))
        with caplog.at_level(logging.ERROR):
            ring.facts.keys.put(issued.key.id, record)
            await until(lambda: not is_open(ring, issued))
            await until(lambda: "opens nothing here" in caplog.text)
        assert found(ring, issued) is None
        ring.facts.secrets.put("no digest", {"key": issued.key.id})
        ring.facts.secrets.put("00" * 32, {"key": "x", "shown": "y", "created_at_s": 1})
        ring.facts.ends.write(lambda ends: ends.add(("revoked", issued.key.id)))
        ring.facts.ends.write(lambda ends: ends.add(("rotated", "no digest", 1)))
        later = await ring.create(terms(ring, "later"))
        await until(lambda: caplog.text.count("opens nothing here") >= 5)
        assert is_open(ring, later)


def test_a_ring_shows_no_more_than_its_size() -> None:
    assert repr(KeyRing(Replicator())) == "<KeyRing: 0>"
    with pytest.raises(ReplicatorError):
        KeyRing(Replicator()).facts.keys.put("a", 1)


# --- two nodes -----------------------------------------------------------------------


@asynccontextmanager
async def two_nodes(folder: Path) -> AsyncIterator[tuple[Serving, Serving]]:
    """Two nodes over mutual TLS."""
    places, environ = _Places(folder), {"COOKIE": "a secret of all nodes"}
    async with AsyncExitStack() as stack:
        a = make_node(NodeConfig(name="a"), places.cluster(signed_as="a"), environ)
        first = await stack.enter_async_context(open_serving(environ={}, node=a))
        assert a.cluster is not None
        of_b = places.cluster(signed_as="b", seed=a.cluster.address)
        b = make_node(NodeConfig(name="b"), of_b, environ)
        second = await stack.enter_async_context(open_serving(environ={}, node=b))
        assert b.cluster is not None
        await b.cluster.wait_for(2, timeout_s=20)
        yield first, second


async def test_a_key_of_one_node_opens_another_until_it_is_revoked(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    async with two_nodes(tmp_path) as (a, b):
        issued = await a.key_ring.create(terms(a.key_ring))
        await until(lambda: is_open(b.key_ring, issued), within_s=10)
        # From here on time is what is waited for, and not what a busy machine takes.
        mock_clock.rate = 0.0
        mock_clock.autojump_threshold = IDLE_S
        with trio.fail_after(REVOKED_WITHIN_S):
            await b.key_ring.revoke("ci")
            await until(lambda: not is_open(a.key_ring, issued))
