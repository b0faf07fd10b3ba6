"""Run by llama.cpp's interpreter: what requests cost that have something in common.

Prints JSON.  ``conversations``: for each request of one its text, the tokens of its
prompt, those that were in the cache, and those that the engine computed for it; first
with ``prefix_caching``, then without.  ``steps``: those that one request takes, and
those that sixteen take at once.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio

from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_llamacpp.plugin import PLUGIN

if TYPE_CHECKING:
    from atomr_infer_llamacpp.runner import LlamaRunner

PIECE = 32
ASKED = "Tell me about the cat that sat on the mat and looked at the dog. " * 2


async def one(
    runner: LlamaRunner, *messages: Message, prompt: str | None = None
) -> list[Any]:
    batch = ExecuteBatch(
        request_id="r",
        model="m",
        messages=messages,
        prompt=prompt,
        sampling=Sampling(max_tokens=8, temperature=0.8, seed=5),
    )
    before, text, usage = runner.read_tokens, "", None
    async with runner.execute(batch) as chunks:
        async for chunk in chunks:
            text += chunk.text
            usage = chunk.usage or usage
    assert usage is not None
    read = runner.read_tokens - before
    return [text, usage.prompt_tokens, usage.cache_read, read]


async def converse(model: str, *, caching: bool) -> list[list[Any]]:
    options = {
        "threads": 1,
        "max_seqs": 2,
        "prefill_tokens": PIECE,
        "cache_tokens": 2048,
        "prefix_caching": caching,
    }
    deployment = Deployment(name="m", runtime="llamacpp", model=model, options=options)
    async with PLUGIN.open_runner(deployment, RunnerContext()) as opened:
        runner = cast("LlamaRunner", opened)
        asked = Message(Role.USER, ASKED)
        first = await one(runner, asked)
        again = await one(runner, asked)
        answered = Message(Role.ASSISTANT, first[0])
        more = await one(runner, asked, answered, Message(Role.USER, "And then?"))
    return [first, again, more]


async def count_steps(model: str) -> tuple[int, int]:
    options = {"threads": 1, "max_seqs": 16, "cache_tokens": 2048}
    deployment = Deployment(name="m", runtime="llamacpp", model=model, options=options)
    async with PLUGIN.open_runner(deployment, RunnerContext()) as opened:
        runner = cast("LlamaRunner", opened)
        await one(runner, prompt="Hi")
        alone = runner.steps
        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(partial(one, runner, prompt="Hi"))
    return alone, runner.steps - alone


async def main(model: str) -> None:
    found = {
        "conversations": [await converse(model, caching=on) for on in (True, False)],
        "steps": await count_steps(model),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
