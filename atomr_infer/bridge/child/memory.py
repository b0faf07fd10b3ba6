"""Whether a child that had no memory for a request has any: it is asked for little.

A request may want more than there is, and be made again and again, by many clients:
that says nothing about the engine, and must not end it.  A child that has no memory
for a few tokens either would fail all that come, and ends, so that the next one
answers.  So after a want of memory, whoever reports it (the code of its error is
``out_of_memory``), the runner is asked a short question.  Requests that come meanwhile
wait for its end, so that none of them takes what the question needs.

What is asked is the least that the runner is for
(:mod:`atomr_infer.runtimes.little`).  A runner of tensors is asked with zeros; where it
refuses them, nothing is known, and a want of memory costs it a request.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.bridge.protocol.values import ErrorWire, error_to_wire
from atomr_infer.errors import OUT_OF_MEMORY, EngineError, encode
from atomr_infer.runtimes.little import ask_little

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from atomr_infer.runtimes.contract import ModelRunner

QUESTION_TOKENS = 4
"""So many tokens are asked for: the first costs a prompt, the others a step each."""

QUESTION_S = 5.0
"""A question that takes longer says nothing: others wait for its end, in seconds."""

TRIES = 3
"""So often a child is asked that others use as well: those who were inside at first may
have taken the memory, and have failed or ended by the next time."""

NO_MEMORY = error_to_wire(
    encode(EngineError("the engine's process is out of memory", code=OUT_OF_MEMORY))
)
"""What is told where there is no memory to say more; made while there is some."""


def is_want(error: ErrorWire) -> bool:
    """Whether a request failed for want of memory, and its engine did not say it ends.

    >>> is_want(NO_MEMORY)
    True
    """
    return error.code == OUT_OF_MEMORY and error.kind == EngineError.kind


class MemoryCheck:
    """Knows who is inside, and asks when nobody new comes in."""

    def __init__(self) -> None:
        self._inside = 0
        self._looked: trio.Event | None = None

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[None]:
        """Hold a request's place in the runner; entering waits for a question's end."""
        while self._looked is not None:
            await self._looked.wait()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def finds_none(self, starves: Callable[[], Awaitable[bool]]) -> bool:
        """Ask, alone if it can be, and return whether there is no memory.

        While one question is under way, it answers for all: others are not asked.

        Args:
            starves: asks the question, and returns whether it had no memory.
        """
        if self._looked is not None:
            return False
        self._looked = trio.Event()
        try:
            for _ in range(TRIES):
                others = self._inside
                if not await starves():
                    return False
                if others == 0:
                    return True
            return False
        finally:
            self._looked.set()
            self._looked = None


async def ask(runner: ModelRunner, model: str) -> None:
    """Have a runner make the least that shows whether it can serve.

    Raises:
        Exception: whatever it raises.
    """
    with trio.move_on_after(QUESTION_S):
        await ask_little(
            runner, request_id="memory-check", model=model, tokens=QUESTION_TOKENS
        )
