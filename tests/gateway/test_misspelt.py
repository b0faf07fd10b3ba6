"""A member that nothing reads is named to who sent it, in each dialect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.model.deployment import Deployment
from tests.gateway.http import request

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve

ASKED = [{"role": "user", "content": "hi"}]
M = Deployment(name="m", runtime="mock")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "members"),
    [
        ("/v1/chat/completions", {"messages": ASKED}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"messages": ASKED, "max_tokens": 5}),
    ],
)
async def test_a_misspelt_member_is_named_in_the_warnings(
    serve: Serve, path: str, members: dict[str, Any], stream: bool
) -> None:
    body = {"model": "m", "stream": stream, "temprature": 0.2, **members}
    async with serve(M) as running:
        answer = await request(running.port, "POST", path, json.dumps(body).encode())
    assert answer.status == 200
    assert answer.headers["x-atomr-warnings"] == "ignored by this model: temprature"


async def test_the_index_of_tensors_tells_what_that_of_all_tells(serve: Serve) -> None:
    async with serve(M) as running:
        index = (await request(running.port, "GET", "/")).json
        tensors = (await request(running.port, "GET", "/v2")).json
    assert tensors == index
    members = ["endpoints", "extensions", "models", "name", "version"]
    assert sorted(tensors) == members
    assert tensors["extensions"] == ["binary_tensor_data"]
    assert tensors["models"] == ["m"]
