"""What is asked of Ray: to connect, to make an actor, and what became of it.

Ray is imported here, and this module by a relay alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import ray
import trio
from ray.exceptions import RayError

from atomr_infer.bridge.on_ray.order import Order, written
from atomr_infer.bridge.on_ray.seat import Ended, Seat
from atomr_infer.errors import EngineStartError
from atomr_infer.model.ray import AUTO

if TYPE_CHECKING:
    from collections.abc import Callable

DIAL_S = 10.0
"""Longest wait for the cluster's port; Ray itself waits for more than a minute."""

LONGEST_SAID = 600


async def connect(address: str) -> None:
    """Make this process a driver of a running cluster.

    Raises:
        EngineStartError: there is none, or it does not answer.
    """
    if address != AUTO:
        await _reach(address)
    try:
        ray.init(
            address=address,
            namespace="atomr-infer",
            logging_level=logging.WARNING,
            log_to_driver=True,
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise EngineStartError(
            f"Ray at {address!r} cannot be used: {in_one_line(error)}"
        ) from error


async def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        with trio.fail_after(DIAL_S):
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
            await stream.aclose()
    # A ValueError: no host is called so.
    except (OSError, ValueError, trio.TooSlowError) as error:
        raise EngineStartError(
            f"there is no Ray at {address!r}: {in_one_line(error)}; start it, or write "
            "its address under [deployment.ray]"
        ) from error


def own_address() -> str:
    """The address of this machine that Ray's other nodes know."""
    return str(ray.util.get_node_ip_address())


class Placed:
    """One actor, from the wish for it to its end.

    Attributes:
        ended: set when its process is gone, or could not be.

    Raises:
        EngineStartError: Ray refuses what it is to set aside.
    """

    def __init__(self, order: Order, relay: tuple[str, int], token: bytes) -> None:
        options: dict[str, Any] = {
            "num_gpus": order.ray.num_gpus,
            "num_cpus": order.ray.num_cpus,
            "resources": dict(order.ray.resources),
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        self.ended = trio.Event()
        try:
            self._actor = ray.remote(Seat).options(**options).remote()
        except ValueError as error:
            raise EngineStartError(
                f"Ray cannot set {order.ray.wanted} aside: {in_one_line(error)}; "
                "change it under [deployment.ray]"
            ) from error
        self._ref = self._actor.run.remote(written(order), relay, token)
        loop = trio.lowlevel.current_trio_token()
        self._ref.future().add_done_callback(_telling(loop, self.ended))

    def what_became(self) -> Ended:
        """What became of it; to be asked when it has ended."""
        try:
            found = ray.get(self._ref)
        except RayError as error:
            return Ended(how=f"lost by Ray: {in_one_line(error)}")
        assert isinstance(found, Ended)
        return found

    def end(self) -> None:
        """Have Ray kill it, and give its resources back."""
        ray.kill(self._actor, no_restart=True)
        ray.shutdown()


def _telling(
    loop: trio.lowlevel.TrioToken, event: trio.Event
) -> Callable[[object], None]:
    # Ray calls from a thread of its own.
    return lambda _: loop.run_sync_soon(event.set)


def in_one_line(error: BaseException) -> str:
    """Return what an error says, without Ray's pages around it."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= LONGEST_SAID else f"{said[:LONGEST_SAID]}..."
