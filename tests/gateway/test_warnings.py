"""What was approximated for a provider of another dialect is told in a header."""

from __future__ import annotations

import json

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from atomr_infer.testing.upstream import open_gemini_upstream
from tests.gateway.http import chat, request


async def test_what_gemini_has_no_switch_for_is_named_streamed_or_not() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    async with (
        open_gemini_upstream() as upstream,
        Cluster.connect("inproc://warnings") as cluster,
    ):
        await cluster.deploy(
            Deployment(
                name="m",
                runtime="gemini",
                model="gemini-2.5-flash",
                credential=Secret("a-key-of-ours"),
                options={"endpoint": upstream.base_url},
            )
        )
        gateway = await cluster.serve("127.0.0.1:0")
        port = int(gateway.url.rpartition(":")[2])
        members = {"tools": [tool], "parallel_tool_calls": False}
        answers = [
            await chat(port, stream=stream, **members) for stream in (False, True)
        ]
        own = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
        path = "/v1beta/models/m:generateContent"
        passed = await request(port, "POST", path, json.dumps(own).encode())
    for answer in answers:
        assert answer.status == 200
        assert "parallel_tool_calls" in answer.headers["x-atomr-warnings"]
    assert passed.status == 200
    assert "x-atomr-warnings" not in passed.headers
