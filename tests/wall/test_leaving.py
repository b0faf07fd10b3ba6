"""A client that leaves takes its upstream's answer with it, at once."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11
import pytest
import trio

from atomr import telemetry
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.wall.asking import request_bytes
from atomr_infer.testing.wall.judging import PRIMARY
from atomr_infer.testing.wall.running import open_cell
from atomr_infer.testing.wall.scenarios import (
    ANSWER,
    PROVIDERS,
    Cell,
    Dialect,
    Expected,
    Kind,
    Scenario,
)
from tests.at_once import at_once, stand_still

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trio.testing import MockClock

    from atomr_infer.serving.requests.served import Spent

NEVER = Expected(kind=Kind.DELIVERED)
STAGES: dict[str, tuple[script.Behaviour, bool]] = {
    "before headers": (script.HangBeforeHeaders(), True),
    "before the first token": (script.HangMidStream(after=0, answer=ANSWER), True),
    "in the middle": (script.HangMidStream(after=3, answer=ANSWER), True),
    "waiting for a whole answer": (script.HangBeforeHeaders(), False),
    "waiting for the rest of one": (script.HangMidStream(answer=ANSWER), False),
}


@pytest.fixture
def ends() -> Iterator[list[Mapping[str, object]]]:
    seen: list[Mapping[str, object]] = []

    def note(event: telemetry.Event, _: object, metadata: Mapping[str, object]) -> None:
        if event[-1] == "stop":
            seen.append(metadata)

    telemetry.attach("leaving", ("atomr_infer", "request"), note)
    yield seen
    telemetry.detach("leaving")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda dialect: dialect.value)
@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.value)
async def test_upstream_is_left_permits_go_back_and_what_was_said_is_billed(
    dialect: Dialect,
    provider: Dialect,
    stage: str,
    ends: list[Mapping[str, object]],
    mock_clock: MockClock,
) -> None:
    mock_clock.rate = 1.0
    behaviour, stream = STAGES[stage]
    # Nobody falls silent here: the time limits are those of a patient server.
    scenario = Scenario(name=stage, streamed=NEVER, whole=NEVER)
    cell = Cell(scenario=scenario, dialect=dialect, provider=provider, stream=stream)
    async with open_cell(cell) as (cluster, upstreams):
        upstream = upstreams[PRIMARY]
        upstream.otherwise = behaviour
        url = urlsplit((await cluster.serve("127.0.0.1:0")).url)
        assert url.port is not None
        client = await trio.open_tcp_stream("127.0.0.1", url.port)
        async with client:
            data = request_bytes(h11.Connection(h11.CLIENT), cell, "127.0.0.1")
            await client.send_all(data)
            with trio.fail_after(30):
                await upstream.wait_for_requests(1)
                if stage == "in the middle":
                    heard = b""
                    while b"primary" not in heard:
                        heard += await client.receive_some()
            stand_still(mock_clock)
        await at_once(upstream.requests[0].client_left.is_set, mock_clock)
        await at_once(lambda: ends, mock_clock)
        mock_clock.rate = 1.0
        (replica,) = await cluster.replicas(PRIMARY)
        assert (replica.running, replica.waiting, replica.arriving) == (0, 0, 0)
        assert [len(each.requests) for each in upstreams.values()] == [1, 0]
    (end,) = ends
    assert end["outcome"] == "cancelled"
    spent = end["spent"]
    assert isinstance(spent, tuple)
    _judge_bill(spent, stage)


def _judge_bill(spent: tuple[Spent, ...], stage: str) -> None:
    if stage == "in the middle":
        (lost,) = spent
        assert lost.usage.output_tokens > 0
    elif stage == "before the first token":
        # Its first event says that the prompt was read, if it came before we left.
        assert len(spent) <= 1
    else:
        assert spent == ()
    for lost in spent:
        assert lost.deployment == PRIMARY
        assert lost.usage.interrupted
        assert lost.usage.prompt_tokens > 0
