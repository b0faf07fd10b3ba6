"""Run by llama.cpp's interpreter: what leaving costs, by the engine's own count.

Prints JSON: for each case the sequences that are held while it runs, what is held in
sequences and cached tokens when the block has been left, and the seconds of processor
between; and the seconds that reading 500 tokens takes.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, cast

import trio

from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_llamacpp.plugin import PLUGIN

if TYPE_CHECKING:
    from atomr_infer_llamacpp.runner import LlamaRunner

LONG = "word " * 3000
"""A prompt that takes seconds to read, in one piece."""


def ask(prompt: str) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r", model="m", messages=(Message(Role.USER, "x"),), prompt=prompt
    )


async def leave_in_prefill(runner: LlamaRunner) -> tuple[int, float]:
    async with runner.execute(ask(LONG)):
        while not runner.sequences:  # noqa: ASYNC110 - the engine tells nobody
            await trio.sleep(0.01)
        await trio.sleep(0.3)
        held, began = runner.sequences, time.process_time()
    return held, began


async def leave_in_decode(runner: LlamaRunner) -> tuple[int, float]:
    async with runner.execute(ask("Once upon a time")) as chunks:
        await anext(chunks)
        held, began = runner.sequences, time.process_time()
    return held, began


async def read(runner: LlamaRunner) -> float:
    began = time.process_time()
    async with runner.execute(ask("word " * 500)) as chunks:
        await anext(chunks)
    return time.process_time() - began


async def main(model: str) -> None:
    options = {"threads": 1, "prefill_tokens": 4096, "cache_tokens": 8192}
    deployment = Deployment(name="m", runtime="llamacpp", model=model, options=options)
    found: dict[str, list[float]] = {}
    async with PLUGIN.open_runner(deployment, RunnerContext()) as opened:
        runner = cast("LlamaRunner", opened)
        for case in (leave_in_prefill, leave_in_decode):
            held, began = await case(runner)
            took_s = time.process_time() - began
            left = runner.sequences + runner.cached_tokens
            found[case.__name__] = [held, left, took_s]
        read_s = await read(runner)
    print(json.dumps({"left": found, "read_s": read_s}))


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
