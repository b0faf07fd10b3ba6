"""atomr without any model: a server that crashes, and the supervisor behind it.

    python examples/counter_server.py

The counter divides by what it is sent.  A division by zero is a crash: the
caller gets an error, the supervisor makes a new counter, and its state is what
``__init__`` says, because nothing of a crashed process can be trusted.
"""

from __future__ import annotations

import logging

import attrs
import trio

from atomr.errors import NoProcessError, ServerDownError
from atomr.otp import (
    From,
    GenServer,
    Reply,
    Request,
    Supervisor,
    call,
    child,
    supervision_tree,
)
from atomr.process import open_node


@attrs.frozen
class Add(Request[float]):
    """Add to the total and return it."""

    amount: float


@attrs.frozen
class Divide(Request[float]):
    """Divide the total and return it."""

    by: float


class Counter(GenServer):
    """Keeps a total."""

    def __init__(self) -> None:
        self.total = 0.0

    def handle_call(self, request: Add | Divide, from_: From) -> Reply:
        """Change the total; a division by zero is not caught here, nor anywhere."""
        match request:
            case Add(amount):
                self.total += amount
            case Divide(by):
                self.total /= by
        return Reply(self.total)


async def ask(request: Request[float]) -> float:
    """Call the counter; while it restarts, nobody has its name.

    ``NoProcessError`` says that nothing was delivered, so asking again cannot
    do a thing twice.  After ``ServerDownError`` only the caller can know that.
    """
    while True:
        try:
            return await call("counter", request)
        except NoProcessError:
            await trio.sleep(0.01)


async def main() -> None:
    """Use a counter, crash it, use the next one."""
    async with open_node() as node:
        await node.start(Supervisor([child(Counter, name="counter")]))

        print("total:", await ask(Add(6)))
        print("total:", await ask(Divide(3)))
        try:
            await ask(Divide(0))
        except ServerDownError as error:
            print("crash:", repr(error.reason))

        print("total:", await ask(Add(1)))
        tree = supervision_tree(node)
        assert tree is not None
        [supervisor] = tree.children
        [counter] = supervisor.children
        print(f"{counter.behaviour} restarts: {counter.restarts}")


if __name__ == "__main__":
    logging.basicConfig(format="%(name)s %(levelname)s: %(message)s")
    trio.run(main)
