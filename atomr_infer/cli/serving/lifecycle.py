"""What ``serve`` does when an operator asks: reload, drain, and how it stands.

It is behind ``POST /admin/reload`` and ``POST /admin/drain``.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.cli.output.banner import print_notice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr_infer.cli.serving.reload import Reloader
    from atomr_infer.cluster import Cluster
    from atomr_infer.config.differences import Difference
    from atomr_infer.gateway.gateway import Gateway
    from atomr_infer.serving.lifecycle import Shown
    from atomr_infer.serving.placing.leaving import Move


class ServeLifecycle:
    """One ``serve``, as operators see it."""

    def __init__(
        self,
        cluster: Cluster,
        reloader: Reloader,
        gateway: Gateway,
        nursery: trio.Nursery,
    ) -> None:
        self._cluster = cluster
        self._reloader = reloader
        self._gateway = gateway
        self._nursery = nursery
        self._draining: trio.CancelScope | None = None

    def shown(self) -> Shown:
        """Return how the configuration stands, and whether it drains."""
        reloader = self._reloader
        refused = reloader.refused
        return {
            "configuration": {
                "state": "taken" if refused is None else "refused",
                "source": reloader.plan.source,
                "taken_at_s": round(reloader.taken_at_epoch_s),
                "refused_at_s": None if refused is None else round(refused.at_epoch_s),
                "reason": None if refused is None else refused.reason,
                "watched": reloader.plan.gateway.watch,
            },
            "draining": self._gateway.draining,
            "running": self._gateway.running,
        }

    async def reload(self, cause: str, *, dry_run: bool) -> Shown:
        """Read the configuration anew, and take it."""
        done = await self._reloader.reload(cause, dry_run=dry_run)
        return {
            "dry_run": dry_run,
            "taken": done.refused is None and not dry_run,
            "reason": done.refused,
            "differences": [_shown(each) for each in done.differences],
            "notes": list(done.notes),
        }

    def drain(self) -> Shown:
        """Stop being ready; returns at once."""
        config = self._reloader.plan.gateway
        timeout_s, grace_s = config.drain_timeout_s, config.drain_grace_s
        orders = self._cluster.orders
        with self._cluster.at_home():
            moves = orders.begin_leaving()
        if self._draining is None:
            self._draining = trio.CancelScope()
            work = partial(self._gateway.hold_off, timeout_s, grace_s=grace_s)
            self._nursery.start_soon(self._go, self._draining, work, moves)
        return {
            "draining": True,
            "running": self._gateway.running,
            "grace_s": grace_s,
            "timeout_s": timeout_s,
            "deployments": [attrs.asdict(move) for move in moves],
        }

    async def _go(
        self,
        scope: trio.CancelScope,
        work: Callable[[], Awaitable[None]],
        moves: tuple[Move, ...],
    ) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hold_off, work)
                nursery.start_soon(self._hand_over, moves)

    async def _hold_off(self, work: Callable[[], Awaitable[None]]) -> None:
        began = time.monotonic()
        await work()
        took_s = time.monotonic() - began
        print_notice(f"drained in {took_s:.0f} s; requests are answered with 503")

    async def _hand_over(self, moves: tuple[Move, ...]) -> None:
        """Say what has moved, when it has; a model may take its time to load."""
        for move in moves:
            if move.reason:
                print_notice(f"{move.deployment} stays: {move.reason}")
        going = [move for move in moves if move.to and not move.is_there]
        with self._cluster.at_home():
            await self._cluster.orders.leave()
            for move in going:
                print_notice(f"{move.deployment} has moved to {', '.join(move.to)}")

    def take_again(self) -> bool:
        """Be ready again; False: it does not drain."""
        if self._draining is None:
            return False
        self._draining.cancel()
        self._draining = None
        with self._cluster.at_home():
            self._cluster.orders.stay()
        self._gateway.take_again()
        print_notice("requests are taken again")
        return True


def _shown(difference: Difference) -> Shown:
    return {
        "kind": difference.kind.value,
        "what": difference.what,
        "fields": [
            {"name": field.name, "before": field.before, "after": field.after}
            for field in difference.fields
        ],
        "later": difference.later,
        "line": difference.line,
    }
