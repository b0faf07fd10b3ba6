"""What of finished requests comes into the usage ledger."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from atomr_infer.model.asker import Asker
from atomr_infer.model.batch import Usage
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.prices import Price, Rates
from atomr_infer.serving.requests.served import Spent
from atomr_infer.serving.requests.usage import MAX_WAITING, UsageLedger
from atomr_infer.store.trouble import StoreError
from atomr_infer.store.usage import UsageRow, UsageStore, UsageSum
from tests.atomr.cluster.loopback import open_mesh
from tests.atomr.http2.conftest import Authority

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from tests.serving.conftest import OpenTree

SPENT = [Spent("m", "tiny", Usage(input_uncached=3, output_text=2))]


async def test_a_finished_request_is_a_row_of_its_key_and_team(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    price = Price(rates=Rates(input=1, output=1))
    async with open_tree(Deployment(name="m", runtime="lab", price=price)) as tree:
        asked = await tree.ask(asker=Asker("key_1", team="web"))
        await tree.ask()
        assert asked.result is not None
        [spent] = asked.result.spent
        inputs, outputs = spent.usage.prompt_tokens, spent.usage.output_tokens
        report = await tree.serving.usage.report("team", 0)
        one = (1, inputs, outputs, inputs + outputs, 0)
        assert report.sums == (UsageSum("", *one), UsageSum("web", *one))
        assert (len(report.nodes), report.missing) == (1, {})
        [key, _] = sorted(
            (await tree.serving.usage.report("key", 0)).sums,
            key=lambda each: each.name,
            reverse=True,
        )
        assert key == UsageSum("key_1", *one)


async def test_rows_wait_while_the_file_cannot_be_written(
    tmp_path: Path, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    is_full = True

    def make(_: Path | None) -> UsageStore:
        if is_full:
            raise StoreError("the usage ledger cannot be opened: make room on its disk")
        return UsageStore()

    ledger = UsageLedger(None, cost=lambda _: None, store=make)
    async with trio.open_nursery() as nursery:
        with caplog.at_level(logging.WARNING):
            nursery.start_soon(ledger.run)
            ledger.note(SPENT, None, None)
            await trio.sleep(60.0)
            assert len(ledger.waiting) == 1
            is_full = False
            await trio.sleep(20.0)
        assert len(ledger.waiting) == 0
        told = [record.message for record in caplog.records]
        assert told == [
            "the usage ledger cannot be opened: make room on its disk",
            "works again: the usage ledger cannot be opened: make room on its disk",
        ]
        nursery.cancel_scope.cancel()


async def test_what_waits_is_bounded() -> None:
    ledger = UsageLedger(None, cost=lambda _: None)
    for _ in range(MAX_WAITING + 3):
        ledger.note(SPENT, None, None)
    assert (len(ledger.waiting), ledger.lost) == (MAX_WAITING, 3)


async def test_what_waits_is_written_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite"
    ledger = UsageLedger(path, cost=lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        await trio.lowlevel.checkpoint()
        ledger.note(SPENT, None, None)
        nursery.cancel_scope.cancel()
    store = UsageStore(path)
    assert store.sums("deployment", 0) == [UsageSum("m", 1, 3, 2, 0, 1)]
    store.close()


async def test_many_that_end_at_once_are_written_in_turns(
    tmp_path: Path, autojump_clock: object
) -> None:
    written: list[int] = []

    class Counting(UsageStore):
        def add(self, rows: Sequence[UsageRow]) -> None:
            written.append(len(rows))
            super().add(rows)

    ledger = UsageLedger(None, cost=lambda _: None, store=Counting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        for _ in range(1_200):
            ledger.note(SPENT, None, None)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert written == [500, 500, 200]


async def test_a_report_is_of_all_nodes_and_names_those_that_cannot_say(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    ledgers = {name: UsageLedger(None, cost=lambda _: None) for name in "abc"}
    ledgers["c"] = UsageLedger(None, cost=lambda _: None, store=_broken)
    async with open_mesh(authority, "abc", lambda name: [ledgers[name]]) as nodes:
        for ledger in ledgers.values():
            ledger.note(SPENT, None, None)
        report = await nodes["a"].run(ledgers["a"].report, "deployment", 0)
    assert report.sums == (UsageSum("m", 2, 6, 4, 0, 2),)
    assert (report.nodes, report.missing) == (("a", "b"), {"c": "it is damaged"})


def _broken(_: Path | None) -> UsageStore:
    raise StoreError("it is damaged")
