"""The actor's side: it holds the resources, and its engine's process lives with it.

The engine's process is the actor's child, tied to it as any engine is to its parent
(``lineage``): Ray ends actors, on its nodes' memory monitor or with their driver, and
no engine stays behind.  It has the environment that Ray made for the actor, with the
GPUs that are its own in ``CUDA_VISIBLE_DEVICES``.
"""

from __future__ import annotations

import socket
import sys

import attrs
import trio

from atomr_infer.bridge.on_ray.order import Order, read
from atomr_infer.bridge.system.environment import child_environment
from atomr_infer.bridge.system.exits import describe_exit
from atomr_infer.bridge.system.interpreter import check_interpreter
from atomr_infer.bridge.system.process import run_on_socket
from atomr_infer.errors import EngineStartError

CHILD_MODULE = "atomr_infer.bridge.child"

DIAL_S = 30.0


@attrs.frozen
class Ended:
    """What became of an engine's process.

    Attributes:
        how: how it ended; None: it was not started.
        refused: why it was not started.
    """

    how: str | None = None
    refused: str | None = None


class Seat:
    """What becomes an actor.  Ray gives it a process of its own."""

    def run(self, told: str, relay: tuple[str, int], token: bytes) -> Ended:
        """Start the engine's process, connect it with the relay, await its end.

        Args:
            told: the order.
            relay: where the relay listens.
            token: what tells the relay that it is us.
        """
        order = read(told)
        try:
            python = _interpreter(order)
            with socket.create_connection(relay, timeout=DIAL_S) as link:
                link.sendall(token)
                link.settimeout(None)
                # In the actor's main thread, for with its thread the child would die.
                status = run_on_socket(
                    CHILD_MODULE,
                    python=python,
                    link=link,
                    environment=child_environment(python, own=order.environment),
                )
        except (EngineStartError, OSError) as error:
            return Ended(refused=str(error))
        return Ended(how=describe_exit(status))


def _interpreter(order: Order) -> str:
    python = order.interpreter or sys.executable
    trio.run(
        check_interpreter, python, order.plugin_ref, order.runtime, order.environment
    )
    return python
