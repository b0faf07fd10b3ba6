"""The shorter way through the runner: the client's bytes, and nothing read of them."""

from __future__ import annotations

import json
from typing import Any

import attrs
import trio

from atomr_infer.model.batch import ExecuteBatch, RawChunk
from atomr_infer.model.dialect import Dialect
from atomr_infer.testing import upstream_script as script
from atomr_infer.wire.anthropic.ingress import MESSAGES
from atomr_infer.wire.anthropic.versions import NEW
from atomr_infer.wire.ingress import Call

BODY = (
    b'{"model" : "mine","max_tokens":9,"stream":true,'
    b'"messages":[{"role":"user","content":"one two three"}]}'
)


def glanced(model: str) -> ExecuteBatch:
    headers = {"anthropic-version": NEW, "anthropic-beta": "b1", "x-other": "no"}
    asked = MESSAGES.glance(Call(request_id="r", body=BODY, headers=headers))
    assert asked is not None
    return asked.batch.asked_for(model)


async def test_a_request_is_passed_on_as_it_came(
    over_socket: Any,
) -> None:
    async with over_socket(script.Happy(tokens=("a", "b"))) as pair:
        way = pair.runner.passage(
            glanced("claude-sonnet-4-5"), total_at=trio.current_time() + 5
        )
        assert way is not None
        chunks = [chunk async for chunk in await way.begin()]
        await way.end(None)
        assert pair.runner.active == 0

    (request,) = pair.upstream.requests
    assert request.body == BODY.replace(b'"mine"', b'"claude-sonnet-4-5"')
    assert request.headers["anthropic-version"] == NEW
    assert request.headers["anthropic-beta"] == "b1"
    assert "x-other" not in request.headers
    assert all(isinstance(chunk, RawChunk) for chunk in chunks)
    assert chunks[-1].usage is not None
    events = b"".join(chunk.data for chunk in chunks).split(b"\n\n")
    texts = [json.loads(each.partition(b"data: ")[2]) for each in events if each]
    assert [each["type"] for each in texts][-1] == "message_stop"


async def test_another_dialects_request_has_no_shorter_way(over_socket: Any) -> None:
    async with over_socket(script.Happy(tokens=("a",))) as pair:
        batch = glanced("claude-sonnet-4-5")
        assert batch.source is not None
        source = attrs.evolve(batch.source, dialect=Dialect.OPENAI_CHAT)
        for other in (source, None):
            way = pair.runner.passage(attrs.evolve(batch, source=other), total_at=9.0)
            assert way is None
        assert pair.upstream.requests == []
