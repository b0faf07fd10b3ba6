"""Which nodes of a cluster are there, and since when the others are not."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from atomr.crdt import Origin
from atomr_infer.serving.requests.usage import UsageLedger
from atomr_infer.serving.roster import (
    LEFT,
    MAX_REMEMBERED,
    NOT_SEEN,
    REMEMBERED_S,
    Away,
    Roster,
)
from atomr_infer.store.usage import UsageSum
from tests.atomr.cluster.loopback import LoopbackPeers, open_loopback
from tests.atomr.http2.conftest import Authority
from tests.gateway.http import until
from tests.serving.test_usage import SPENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.atomr.cluster.loopback import LoopbackNode

NOW_S = 1_000_000_000
NAME = "atomr_infer.serving.roster"


class Clock:
    """A wall's clock that stands still."""

    at_s: float = NOW_S

    def __call__(self) -> float:
        return self.at_s


def roster(path: Path | None, clock: Clock, expected: str = "") -> Roster:
    return Roster(path, expected=lambda: expected, wall_s=clock)


def of_a(path: Path, clock: Clock, expected: str = "") -> Roster:
    """A roster of a node that knows nobody but whom its file names."""
    found = roster(path, clock, expected)
    found.child(LoopbackPeers(Origin("a", 1)))
    return found


@pytest.fixture
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@asynccontextmanager
async def linked(authority: Authority, node: LoopbackNode) -> AsyncIterator[None]:
    """Another node, b, that has a link with the node for the length of the block."""
    ledger = UsageLedger(None, cost=lambda _: None)
    async with open_loopback(authority, "b", [ledger]) as other:
        ledger.note(SPENT, None, None)
        await other.dial(node)
        yield


async def until_away(found: Roster) -> Away:
    await until(lambda: bool(found.away()))
    [away] = found.away()
    return away


async def test_a_node_that_goes_is_logged_and_remembered_over_a_restart(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, path = Clock(), tmp_path / "nodes.json"
    made = roster(path, clock, "ab")
    ledger = UsageLedger(None, cost=lambda _: None, away=made.away)
    with caplog.at_level(logging.INFO, NAME):
        async with open_loopback(authority, "a", [made, ledger]) as a:
            assert made.away() == (Away("b", NOW_S, NOT_SEEN),)
            async with linked(authority, a):
                report = await a.run(ledger.report, "deployment", 0)
                assert (report.nodes, report.missing) == (("a", "b"), {})
                clock.at_s += 60
            assert await until_away(made) == Away("b", NOW_S + 60, LEFT)

            report = await a.run(ledger.report, "deployment", NOW_S)
            assert report.sums == ()
            assert (report.nodes, report.missing) == (("a",), {"b": LEFT})
            assert report.away_since_s == {"b": NOW_S + 60}
            # It has counted nothing since it left.
            report = await a.run(ledger.report, "deployment", NOW_S + 61)
            assert (report.missing, report.away_since_s) == ({}, {})

            clock.at_s += 5
            async with linked(authority, a):
                report = await a.run(ledger.report, "deployment", 0)
                assert report.sums == (UsageSum("m", 1, 3, 2, 0, 1),)
    assert [r.message for r in caplog.records if r.name == NAME][:3] == [
        "node b is there",
        "node b is away: it has left",
        "node b is there again, after 5 s",
    ]


def test_who_was_in_sight_when_this_node_ended_is_away_since_it_began(
    tmp_path: Path,
) -> None:
    path = tmp_path / "nodes.json"
    path.write_text('{"b":{},"c":{"since_s":5,"why":"it does not answer"}}')
    clock = Clock()
    clock.at_s = 100.0
    assert of_a(path, clock, "ab").away() == (
        Away("b", 100, NOT_SEEN),
        Away("c", 5, "it does not answer"),
    )


def test_a_file_that_makes_no_sense_is_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nodes.json"
    path.write_text('{"b":')
    assert of_a(path, Clock()).away() == ()
    assert "nodes.json cannot be read, and is made anew" in caplog.text


async def test_who_went_too_long_ago_is_forgotten(
    authority: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "nodes.json"
    away = {f"n{n}": {"since_s": NOW_S - n, "why": LEFT} for n in range(300)}
    away["old"] = {"since_s": NOW_S - REMEMBERED_S - 1, "why": LEFT}
    path.write_bytes(msgspec.json.encode(away))
    made = roster(path, Clock())
    async with (
        open_loopback(authority, "a", [made]) as a,
        linked(authority, a),
    ):
        await until(lambda: "old" not in msgspec.json.decode(path.read_bytes()))
        names = {each.name for each in made.away()}
    assert len(names) == MAX_REMEMBERED
    assert "n0" in names


async def test_a_file_that_cannot_be_written_is_told_of_and_nothing_else_ends(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = roster(tmp_path / "gone" / "nodes.json", Clock())
    async with open_loopback(authority, "a", [made]) as a:
        async with linked(authority, a):
            pass
        assert (await until_away(made)).name == "b"
    told = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert len(told) == 1
    assert told[0].endswith("nodes.json cannot be written: No such file or directory")
