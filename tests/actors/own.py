"""Actors that tests deploy."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.actors import Context, Request, ask, gpu_actor, inference_actor
from atomr_infer.errors import EngineCrashedError, OverloadedError
from atomr_infer.model.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@attrs.frozen
class Task:
    """What a planner is asked.

    Attributes:
        text: what is to be done.
        times: how often.
    """

    text: str
    times: int = 1


@attrs.frozen
class Plan:
    """What a planner replies.

    Attributes:
        steps: what is to be done, in order.
        style: how it was deployed.
    """

    steps: tuple[str, ...]
    style: str


@inference_actor(asks=("small",))
async def plan(ctx: Context, task: Task, *, style: str = "plain") -> Plan:
    reply = await ctx.lookup("small").chat(task.text)
    return Plan(steps=(reply.text,) * task.times, style=style)


@inference_actor(asks=("small",))
async def loud(ctx: Context, request: Request) -> AsyncIterator[str]:
    async with ctx.lookup("small").stream(request.text) as chunks:
        async for chunk in chunks:
            yield chunk.text.upper()


@inference_actor(asks=("counter", "v"))
async def both(ctx: Context, text: str) -> str:
    """Ask another actor, and for vectors."""
    count = await ask(ctx.lookup("counter", Counter), len(text))
    found = await ctx.lookup("v").embed(text)
    return f"{count} {found.vectors}"


@inference_actor(asks=("t",))
async def doubled(ctx: Context, numbers: list[float]) -> list[float]:
    """Ask for tensors, by the name of one output."""
    x = Tensor.of("x", array("f", numbers))
    found = await ctx.lookup("t").infer(x, outputs=["z"])
    return [2 * number for number in found.output("z").values()]


@inference_actor(asks=("m",))
async def relayed(ctx: Context, numbers: list[int]) -> list[int]:
    """Ask for tensors of another node."""
    found = await ctx.lookup("m").infer(Tensor.of("x", array("b", numbers)))
    return found.output("y").values()


@inference_actor
async def count(_: Context, request: Request) -> AsyncIterator[str]:
    for number in range(1, 101):
        await trio.lowlevel.checkpoint()
        yield f"{number} "


@inference_actor
async def curious(ctx: Context, name: str) -> str:
    return (await ctx.lookup(name).chat("hello")).text


@inference_actor(asks=("fragile",))
async def several(ctx: Context, hows: list[str]) -> int:
    """Ask for several things at once."""
    fragile = ctx.lookup("fragile", Fragile)
    async with trio.open_nursery() as nursery:
        for how in hows:
            nursery.start_soon(ask, fragile, how)
    return len(hows)


@inference_actor
class Counter:
    """Has a state, and handles one request at a time."""

    def __init__(self, start: int = 0) -> None:
        self.count = start
        self.open = False

    async def load(self) -> None:
        self.open = True

    async def close(self) -> None:
        self.open = False

    async def handle(self, _: Context, by: int) -> int:
        assert self.open
        before = self.count
        await trio.lowlevel.checkpoint()
        self.count = before + by
        return self.count


@inference_actor
class Fragile:
    """Fails as it is asked to."""

    def __init__(self) -> None:
        self.asked = 0

    async def handle(self, _: Context, how: str) -> int:
        self.asked += 1
        match how:
            case "bug":
                raise KeyError("no such key")
            case "busy":
                raise OverloadedError("come again")
            case "crash":
                raise EngineCrashedError("its state is spoilt")
            case "liar":
                return "five"  # type: ignore[return-value] # that is the test
            case "hang":
                await trio.sleep_forever()
        return self.asked


@gpu_actor(devices=0)
class Powers:
    """Computes, in a process of its own."""

    def __init__(self, power: int = 2) -> None:
        self.power = power

    def handle(self, numbers: list[float]) -> list[float]:
        return [number**self.power for number in numbers]


@gpu_actor(devices=0)
class Words:
    """Says a text word by word."""

    def handle(self, text: str) -> Iterator[str]:
        yield from text.split()


@gpu_actor(devices=0, concurrency=4)
class Counting:
    """Says more than anybody wants to hear, in its thread."""

    def handle(self, _: str) -> Iterator[str]:
        for number in range(1, 101):
            yield f"{number} "


@gpu_actor(devices=64)
class Greedy:
    """Needs more than there is."""

    def handle(self, text: str) -> str:
        return text


class Bare:
    """Decorated by nobody."""

    async def handle(self, _: Context, text: str) -> str:
        return text
