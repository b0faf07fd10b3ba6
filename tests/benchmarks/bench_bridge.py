"""What the bridge costs per token and per request, beside the engine alone.

    python tests/benchmarks/bench_bridge.py [--rounds N] [--gap-us N]
    python tests/benchmarks/bench_bridge.py --engine RUNTIME --model PATH [--rounds N]

Without ``--engine`` the engine is nothing: an async generator that yields a word each
time, at once or every ``--gap-us``.  So what is measured is the bridge, and the worst
case of it: no engine makes tokens so fast.  The same runner is asked in this process
and in a child in turns, in one run; the bridge's cost is the difference.

Processor time is of both processes together, and of this one (the gateway's): on a
machine that does other things, that is the figure to believe.  Per token is told of
long answers, per request of answers of one token.

With ``--engine`` (``ort``, ``llamacpp``, ``mistralrs``) it is that one with a model, in
its own interpreter, on one thread: threads that wait for each other in loops would be
counted.  Told is what the bridge adds to each token of answers of 16, requests and all:
each round behind it is compared with the one beside it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from atomr_infer.bridge import BridgedRunner, open_bridged_runner
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_python.plugin import PLUGIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.runtimes.contract import ModelRunner
    from atomr_infer_python import Request

HERE = Path(__file__).absolute()
REF = "atomr_infer_python.plugin:PLUGIN"
ALONE, BRIDGED = "engine alone", "behind the bridge"
AT_ONCE = (1, 16)
LONG, SHORT = 1000, 1
OF_ENGINES, ENGINES_AT_ONCE = 16, (1, 4)
TOKENS_OF_A_ROUND = 8000
REQUESTS_OF_A_ROUND = 400


async def words(request: Request, *, gap_s: float = 0.0) -> AsyncIterator[str]:
    """Make as many words as the request wants."""
    for _ in range(request.max_tokens or LONG):
        if gap_s:
            await trio.sleep(gap_s)
        yield "word "


@attrs.frozen
class Spent:
    """Seconds of a round, for each of what was counted.

    Attributes:
        wall_s: of the clock.
        here_s: of the processor, this process.
        all_s: of the processor, the child too.
    """

    wall_s: float
    here_s: float
    all_s: float


def processor_s(runner: ModelRunner) -> tuple[float, float]:
    here_s = time.process_time()
    if not isinstance(runner, BridgedRunner):
        return here_s, here_s
    # In nanoseconds, where stat tells hundredths of a second.
    ran = Path(f"/proc/{runner.pid}/task").glob("*/schedstat")
    there_s = sum(int(file.read_text().split()[0]) for file in ran) / 1e9
    return here_s, here_s + there_s


async def round_of(
    runner: ModelRunner, tokens: int, at_once: int, count: int | None = None
) -> Spent:
    """Ask for answers of so many tokens, some at once, one batch after the other."""
    if count is None:
        count = TOKENS_OF_A_ROUND // tokens if tokens > 1 else REQUESTS_OF_A_ROUND
    left = iter(range(count))

    async def ask() -> None:
        for number in left:
            batch = ExecuteBatch(
                request_id=f"r{number}",
                model="m",
                messages=(Message(Role.USER, "Write a story about a cat."),),
                sampling=Sampling(max_tokens=tokens, temperature=0.0),
            )
            async with runner.execute(batch) as chunks:
                async for _ in chunks:
                    pass

    before, began_at = processor_s(runner), time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(ask)
    wall_s, after = time.perf_counter() - began_at, processor_s(runner)
    each = count * tokens
    return Spent(
        wall_s / each, (after[0] - before[0]) / each, (after[1] - before[1]) / each
    )


async def measure(rounds: int, gap_s: float) -> None:
    options = {"gap_s": gap_s} if gap_s else {}
    runtime = f"python:{HERE}:words"
    deployment = Deployment(name="m", runtime=runtime, options=options)
    context = RunnerContext()
    found: dict[tuple[str, int, int], list[Spent]] = {}
    async with (
        PLUGIN.open_runner(deployment, context) as alone,
        open_bridged_runner(REF, deployment, context) as bridged,
    ):
        runners: dict[str, ModelRunner] = {ALONE: alone, BRIDGED: bridged}
        for turn in range(rounds + 1):
            for name, runner in runners.items():
                for tokens in (LONG, SHORT):
                    for at_once in AT_ONCE:
                        spent = await round_of(runner, tokens, at_once)
                        if turn:  # the first warms up
                            found.setdefault((name, tokens, at_once), []).append(spent)
    report(found)


async def measure_engine(runtime: str, model: str, rounds: int) -> None:
    plugin = importlib.import_module(f"atomr_infer_{runtime}.plugin").PLUGIN
    options = {"quantization": "Q8_0"} if runtime == "mistralrs" else {"threads": 1}
    deployment = Deployment(name="m", runtime=runtime, model=model, options=options)
    context = RunnerContext()
    pairs: dict[int, list[tuple[Spent, Spent]]] = {n: [] for n in ENGINES_AT_ONCE}
    async with (
        plugin.open_runner(deployment, context) as alone,
        open_bridged_runner(
            f"atomr_infer_{runtime}.plugin:PLUGIN", deployment, context
        ) as bridged,
    ):
        for turn in range(rounds + 1):
            for at_once, found in pairs.items():
                # Who is first takes turns: what else the machine does comes and goes.
                order = (alone, bridged) if turn % 2 else (bridged, alone)
                spent = {
                    runner: await round_of(runner, OF_ENGINES, at_once, count=at_once)
                    for runner in order
                }
                if turn:  # the first warms up
                    found.append((spent[alone], spent[bridged]))
    print(f"{runtime} on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for at_once, found in pairs.items():
        for field, of in (("wall_s", "of the clock"), ("all_s", "of processors")):
            ms = [
                (1e3 * getattr(one, field), 1e3 * getattr(other, field))
                for one, other in found
            ]
            more = [100 * (behind / beside - 1) for beside, behind in ms]
            low, middle, high = statistics.quantiles(more, n=4)
            print(
                f"per token, {at_once:2} at once, ms {of:13}: "
                f"alone {statistics.median(beside for beside, _ in ms):6.2f}, "
                f"bridged {statistics.median(behind for _, behind in ms):6.2f}, "
                f"the bridge {middle:+.1f} % ({low:+.1f} to {high:+.1f} %)"
            )


def report(found: dict[tuple[str, int, int], list[Spent]]) -> None:
    def median(name: str, tokens: int, at_once: int, field: str) -> float:
        spent = found[name, tokens, at_once]
        return 1e6 * float(statistics.median(getattr(one, field) for one in spent))

    print(f"on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for tokens, what in ((LONG, "token"), (SHORT, "request")):
        for at_once in AT_ONCE:
            for field, of in (
                ("wall_s", "of the clock"),
                ("here_s", "of this process"),
                ("all_s", "of both processes"),
            ):
                alone = median(ALONE, tokens, at_once, field)
                bridged = median(BRIDGED, tokens, at_once, field)
                print(
                    f"per {what}, {at_once:2} at once, us {of:17}: alone {alone:7.1f}, "
                    f"bridged {bridged:7.1f}, the bridge {bridged - alone:+7.1f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gap-us", type=float, default=0.0)
    parser.add_argument("--engine", help="a runtime: ort, llamacpp, mistralrs")
    parser.add_argument("--model", help="of the engine: a file or a folder")
    arguments = parser.parse_args()
    if arguments.engine is not None:
        if arguments.model is None:
            parser.error("--engine needs a --model")
        trio.run(measure_engine, arguments.engine, arguments.model, arguments.rounds)
        return
    trio.run(measure, arguments.rounds, arguments.gap_us / 1e6)


if __name__ == "__main__":
    main()
