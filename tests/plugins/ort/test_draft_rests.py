"""A draft rests where it does not pay, and comes back, whoever else is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.model.asks import FormatKind, ResponseFormat
from tests.plugins.ort.test_drafting import (
    Machine,
    ask,
    collect,
    collect_all,
    drafted,
    folders,
    gain_of,
    opened,
)

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer_ort.runner import OrtRunner

__all__ = ["folders"]

pytestmark = pytest.mark.engine

SCHEMA = ResponseFormat(
    kind=FormatKind.JSON_SCHEMA,
    schema=b'{"type": "string", "minLength": 150, "maxLength": 160}',
)


async def staggered(runner: OrtRunner, *, clients: int, answers: int) -> list[int]:
    """Have clients ask one question after the other, so that none begin together.

    Return how many tokens were drafted for each answer, as they ended.
    """
    told: list[int] = []

    async def client(number: int) -> None:
        await collect(runner, ask(max_tokens=1 + 15 * number))
        for _ in range(answers):
            told.append(drafted(await collect(runner, ask(max_tokens=45)))[0])

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(client, number)
    return told


async def test_a_draft_comes_back_where_there_is_always_somebody(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, machine = str(folders["model"]), Machine(draft_s=30.0)
    async with opened(folders["model"], draft=model, draft_always=False) as runner:
        machine.put_under(runner, monkeypatch)
        rested = await staggered(runner, clients=3, answers=4)
        machine.draft_s = 1.0
        told = await staggered(runner, clients=3, answers=14)
    assert not any(rested[-3:])
    assert all(told[-9:])


async def test_a_draft_that_does_not_pay_stops_reading_where_there_is_always_somebody(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, machine = str(folders["model"]), Machine(draft_s=30.0)
    async with opened(folders["model"], draft=model, draft_always=False) as runner:
        machine.put_under(runner, monkeypatch)
        await staggered(runner, clients=3, answers=12)
        runs = machine.draft_runs
    # A few rounds for each number of sequences, and few prompts.
    assert runs < 60


async def test_beside_a_constrained_answer_no_prompt_is_read_twice(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, machine = str(folders["model"]), Machine()
    async with opened(folders["model"], draft=model, draft_always=False) as runner:
        machine.put_under(runner, monkeypatch)
        form = attrs.evolve(ask(max_tokens=200), response_format=SCHEMA)
        async with runner.execute(form) as chunks, trio.open_nursery() as nursery:
            await anext(aiter(chunks))
            nursery.start_soon(collect, runner, form)
            told = [drafted(await collect(runner, ask())) for _ in range(3)]
        assert (told, machine.draft_runs) == ([(0, 0)] * 3, 0)
        assert drafted(await collect(runner, ask(max_tokens=60)))[0]


@pytest.mark.parametrize(("draft_s", "pays"), [(1.0, True), (30.0, False)])
async def test_it_is_measured_beside_an_answer_with_a_seed(
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    draft_s: float,
    pays: bool,
) -> None:
    near, machine = str(folders["near"]), Machine(draft_s=draft_s)
    async with opened(folders["model"], draft=near, draft_always=False) as runner:
        machine.put_under(runner, monkeypatch)
        seeded = ask(seed=7, temperature=0.9, max_tokens=200)
        _, paced = await collect_all(runner, seeded, ask("other", max_tokens=200))
        assert (await gain_of(runner) > 1) is pays
    assert (drafted(paced)[0] > 40) is pays
    assert drafted(paced)[0] > 0


@pytest.mark.parametrize(("draft_s", "pays"), [(1.0, True), (30.0, False)])
async def test_rows_that_are_judged_one_by_one_are_measured_together(
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    draft_s: float,
    pays: bool,
) -> None:
    fused, machine = str(folders["fused"]), Machine(draft_s=draft_s)
    async with opened(folders["fused"], draft=fused, draft_always=False) as runner:
        machine.put_under(runner, monkeypatch)
        first = await collect(runner, ask(max_tokens=60, n=2))
        assert (await gain_of(runner) > 1) is pays
        runs = machine.draft_runs
        again = await collect(runner, ask(max_tokens=60, n=2))
    assert drafted(first)[0]
    assert bool(drafted(again)[0]) is pays
    assert (machine.draft_runs > runs) is pays


async def test_while_a_constrained_answer_is_there_nothing_is_drafted(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, machine = str(folders["model"]), Machine()
    form = attrs.evolve(ask(max_tokens=200), response_format=SCHEMA)
    async with opened(folders["model"], draft=model, draft_always=False) as runner:
        machine.put_under(runner, monkeypatch)
        async with runner.execute(ask(max_tokens=190)) as chunks:
            for _ in range(40):
                await anext(aiter(chunks))
            assert machine.draft_runs
            async with runner.execute(form) as constrained:
                await anext(aiter(constrained))
                runs = machine.draft_runs
                for _ in range(5):
                    await anext(aiter(constrained))
            assert machine.draft_runs == runs


async def test_where_each_runs_alone_others_beside_it_do_not_count(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fused, machine = str(folders["fused"]), Machine(draft_s=30.0)
    async with opened(folders["fused"], draft=fused, draft_always=False) as runner:
        machine.put_under(runner, monkeypatch)
        await collect(runner, ask(max_tokens=60))
        runs = machine.draft_runs
        await staggered(runner, clients=3, answers=2)
    assert machine.draft_runs == runs
