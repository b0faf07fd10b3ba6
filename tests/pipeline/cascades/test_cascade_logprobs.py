"""A cascade that judges by log probabilities, against a provider that tells them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atomr_infer.model.batch import Sampling
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.testing.upstream import open_openai_upstream
from atomr_infer.testing.upstream_script import RawAnswer
from tests.pipeline.conftest import OpenTree, cascade, model


def answer(*logprobs: float) -> RawAnswer:
    """Return a chat answer whose tokens have these log probabilities."""
    words = ["Paris", " perhaps", "."][: len(logprobs)]
    content: list[dict[str, Any]] = [
        {"token": word, "logprob": each, "bytes": None, "top_logprobs": []}
        for word, each in zip(words, logprobs, strict=True)
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(words)},
        "logprobs": {"content": content, "refusal": None},
        "finish_reason": "stop",
    }
    told = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4.1-nano",
        "choices": [choice],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
    }
    return RawAnswer(content_type="application/json", body=json.dumps(told).encode())


@pytest.mark.parametrize(
    ("logprobs", "text", "verdicts"),
    [
        ((-0.1, -0.5, -0.3), "Paris perhaps.", ["small (accepted)"]),
        ((-0.1, -4.0, -1.9), "one", ["small (refused: logprob=-2.000)", "large"]),
    ],
)
async def test_a_provider_that_is_unsure_is_followed_by_the_next_stage(
    open_tree: OpenTree, logprobs: tuple[float, ...], text: str, verdicts: list[str]
) -> None:
    async with open_openai_upstream([answer(*logprobs)]) as upstream:
        small = Deployment(
            name="small",
            runtime="openai",
            model="gpt-4.1-nano",
            options={"endpoint": upstream.base_url},
            retry=RetryPolicy(max_attempts=1),
        )
        stages: list[Any] = [{"model": "small", "min_logprob": -1.0}, "large"]
        async with open_tree(small, model("large"), cascade(*stages)) as tree:
            heard = await tree.ask("one", stream=False)
            asked = upstream.requests[0].json
    # They are asked for, and shown to who asked for them only.
    assert asked["logprobs"] is True
    assert heard.text == text
    assert all(chunk.logprobs is None for chunk in heard.chunks)
    assert heard.verdicts == verdicts


async def test_who_asks_for_log_probabilities_has_them(open_tree: OpenTree) -> None:
    async with open_openai_upstream([answer(-0.1)]) as upstream:
        small = Deployment(
            name="small",
            runtime="openai",
            model="gpt-4.1-nano",
            options={"endpoint": upstream.base_url},
        )
        stages: list[Any] = [{"model": "small", "min_logprob": -1.0}, "large"]
        async with open_tree(small, model("large"), cascade(*stages)) as tree:
            heard = await tree.ask(
                "one", stream=False, sampling=Sampling(top_logprobs=0)
            )
    told = [json.loads(bytes(c.logprobs)) for c in heard.chunks if c.logprobs]
    assert [each["content"][0]["logprob"] for each in told] == [-0.1]
