"""An upstream that is down is left alone, however many clients ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import pytest
import trio

from atomr_infer.model.failover import BreakerPolicy
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.wall.asking import ask
from atomr_infer.testing.wall.heard import Heard, hear
from atomr_infer.testing.wall.judging import FALLBACK, PRIMARY
from atomr_infer.testing.wall.running import open_cell
from atomr_infer.testing.wall.scenarios import (
    FALLBACK_TEXT,
    PRIMARY_TEXT,
    PROVIDERS,
    SCENARIOS,
    Cell,
    Dialect,
)

if TYPE_CHECKING:
    from atomr_infer.testing.wall.heard import Reply

CLIENTS = 30
DOWN: dict[str, script.Behaviour] = {
    "500": script.server_error(),
    "529": script.server_error(529),
    "hangs up": script.CloseBeforeHeaders(),
    "error in the stream": script.ErrorInStream(after=0),
}


@pytest.mark.parametrize("fault", DOWN)
@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda dialect: dialect.value)
async def test_dead_upstream_is_not_asked_by_each_client(
    provider: Dialect, fault: str
) -> None:
    cell = Cell(
        scenario=attrs.evolve(SCENARIOS[0], primary=DOWN[fault]),
        dialect=provider,
        provider=provider,
        stream=True,
    )
    async with open_cell(cell) as (cluster, upstreams):
        url = urlsplit((await cluster.serve("127.0.0.1:0")).url)
        assert url.port is not None
        heard = [await _ask(cell, url.port) for _ in range(CLIENTS)]
        assert [each.text for each in heard] == [FALLBACK_TEXT] * CLIENTS
        assert len(upstreams[FALLBACK].requests) == CLIENTS
        # The connection of the key's check may be an old one: that is tried anew.
        again = 1 if fault == "hangs up" else 0
        assert len(upstreams[PRIMARY].requests) == BreakerPolicy().max_failures + again


async def test_upstream_that_is_back_is_asked_again_by_one_and_then_by_all() -> None:
    cell = Cell(
        scenario=SCENARIOS[0],
        dialect=Dialect.OPENAI,
        provider=Dialect.OPENAI,
        stream=False,
    )
    quick = BreakerPolicy(open_s=0.2)
    async with open_cell(cell, breaker=quick) as (cluster, upstreams):
        url = urlsplit((await cluster.serve("127.0.0.1:0")).url)
        assert url.port is not None
        for _ in range(10):
            await _ask(cell, url.port)
        primary = upstreams[PRIMARY]
        before = len(primary.requests)
        primary.otherwise = script.Happy(text=PRIMARY_TEXT)
        with trio.fail_after(5):
            text = FALLBACK_TEXT
            while text == FALLBACK_TEXT:
                await trio.sleep(0.02)
                text = (await _ask(cell, url.port)).text
        assert len(primary.requests) == before + 1
        texts = {(await _ask(cell, url.port)).text for _ in range(5)}
        assert texts == {PRIMARY_TEXT}


async def _ask(cell: Cell, port: int) -> Heard:
    reply: Reply = await ask(cell, "127.0.0.1", port)
    heard = hear(cell.dialect, reply, stream=cell.stream)
    assert heard.faults == []
    return heard
