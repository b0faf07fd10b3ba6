"""A tenant that floods a queue, and another one that does not wait for all of it.

Something does one thing at a time: here 10 ms for each thousand tokens.  Ann asks for
forty things at once, and Bob for one after the other.  In one line, Bob waits for all
of Ann's; by turns, for who runs and for one more of hers::

    python examples/fair_share.py
"""

from __future__ import annotations

import trio

from atomr_infer.pipeline.flows.fair_scheduler import FairShareScheduler

S_PER_TOKEN = 0.01 / 1000


class Line:
    """Requests, in the order in which they were served."""

    def __init__(self) -> None:
        self.scheduler = FairShareScheduler(1)
        self.served: list[str] = []

    @property
    def all_asked(self) -> int:
        """How many have asked so far."""
        return self.scheduler.running + self.scheduler.waiting + len(self.served)

    async def ask(self, who: str, *, tenant: str, tokens: int) -> None:
        """Wait for a turn of a tenant, work, and say what it has cost."""
        async with self.scheduler.turn(tenant, cost=tokens) as turn:
            await trio.sleep(tokens * S_PER_TOKEN)
            turn.used(tokens)
        self.served.append(who)

    async def ask_of_ann(self) -> None:
        """Ask for one of her things."""
        await self.ask("ann", tenant="ann", tokens=1000)


async def waited_for(bobs: str) -> list[int]:
    """Return how many of Ann's went before each of Bob's, behind the one before."""
    line = Line()
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(line.ask_of_ann)
        while line.all_asked < 40:
            await trio.lowlevel.checkpoint()
        for _ in range(3):
            await line.ask("bob", tenant=bobs, tokens=500)
    return [len(of_ann.split()) for of_ann in " ".join(line.served).split("bob")][:3]


async def main() -> None:
    """Let Bob ask in Ann's line, and in one of his own."""
    print("in Ann's line:", await waited_for("ann"))
    print("by turns:", await waited_for("bob"))


trio.run(main)
