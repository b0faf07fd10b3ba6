"""The swaps of all nodes: begun, looked at, had go back, and led on.

Any node can lead a swap, and each knows of all.  Where the one that leads it is lost
in the middle, another one brings it to an end: back to what was, or on to what has
come where nothing is left to do but end its copy.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from atomr.cluster.replicator import NotReplicatingError
from atomr.core.child_spec import ChildSpec, Restart
from atomr.errors import CallError, ReceiveTimeoutError, StartError
from atomr.otp import start_child
from atomr.process import PlainProcess, receive
from atomr_infer.config.deployment_table import deployment_table
from atomr_infer.errors import ConfigError, NotReadyError
from atomr_infer.model.deployment import AUTO
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.policy.lifecycle.hot_swap import Phase
from atomr_infer.policy.lifecycle.replaced import is_swapped
from atomr_infer.runtimes.by_model import with_runtime
from atomr_infer.serving.names import HOT_SWAPS
from atomr_infer.serving.placing.records import digest_of
from atomr_infer.serving.swapping.board import SwapBoard
from atomr_infer.serving.swapping.counts import SwapCounts
from atomr_infer.serving.swapping.declared import DeclaredSwaps
from atomr_infer.serving.swapping.hot_swap import ModelHotSwapServer, SwapOrder
from atomr_infer.serving.swapping.left import LeftSwap
from atomr_infer.serving.swapping.records import SwapRecord
from atomr_infer.serving.swapping.served import as_served, served
from atomr_infer.serving.swapping.trimming import Trimmer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.shared import Serving
    from atomr_infer.serving.swapping.hot_swap import Check
    from atomr_infer.serving.swapping.records import SwapStatus

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
_REST_S = 1.0

_SETTLES_S = 1.0
"""What is written reaches all nodes within this, where nothing is in its way."""


class HotSwaps:
    """The swaps, as one node knows them; its process runs :meth:`watch`.

    Attributes:
        declared: what this node's file says anew, where it has others.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        node = serving.node
        self._board = SwapBoard(node.replicator)
        self._counts = SwapCounts(self._board, node.name)
        # What another process of this node has led ends with that.
        self._life = secrets.token_hex(8)
        self._swaps: dict[str, ModelHotSwapServer] = {}
        self._led_on: dict[str, LeftSwap] = {}
        self.declared = DeclaredSwaps(serving, self._board, self._begin_declared)
        self._trimmer = Trimmer(serving, self._board)

    def statuses(self) -> tuple[SwapStatus, ...]:
        """Return the last swap of each deployment, by name."""
        records = self._board.records()
        found = {name: record.status(name) for name, record in records.items()}
        for name, swap in self._swaps.items():
            if name not in found or records[name].id == swap.id:
                found[name] = swap.status
        return tuple(found[name] for name in sorted(found))

    async def swap(
        self,
        deployment: Deployment,
        plan: SwapPlan | None = None,
        *,
        check: Check | None = None,
    ) -> SwapStatus:
        """Have another deployment take over from the one of its name, step by step.

        Args:
            deployment: the other one.
            plan: how carefully; None: as the deployment's ``hot_swap`` says.
            check: called with a model's name under which only the new one answers;
                what it raises, or False, has all go back.

        Returns:
            How it ended: swapped, or rolled back and why.

        Raises:
            ConfigError: there is none of its name, or it is served so already, or it
                cannot be told to the other nodes.
            NotReadyError: it is being swapped.

        Cancellation: has all go back, but where only the last requests are waited
            for; that is waited for.
        """
        swap = await self.begin(deployment, plan, check)
        try:
            await swap.ended.wait()
        finally:
            swap.cancel()
            with trio.CancelScope(shield=True):
                await swap.ended.wait()
        return swap.status

    async def begin(
        self, wanted: Deployment, plan: SwapPlan | None, check: Check | None
    ) -> ModelHotSwapServer:
        """Begin a swap, as :meth:`swap` does; this node leads it.

        Raises:
            ConfigError: see there; or no runtime takes its model by its name.
            NotReadyError: it is being swapped, or another node begins the same now.

        Cancellation: it has not begun.
        """
        name = wanted.name
        if wanted.runtime == AUTO:
            wanted = await trio.to_thread.run_sync(with_runtime, wanted)
        now = served(self._serving, name)
        if now is None:
            raise ConfigError(f"there is no deployment {name!r}")
        self._refuse_second(name)
        wanted = as_served(self._serving, wanted)
        if wanted == now:
            raise ConfigError(f"{name} is served so already")
        order = SwapOrder(
            id=secrets.token_hex(8),
            now=now,
            wanted=wanted,
            plan=plan or wanted.hot_swap or SwapPlan(),
            check=check,
        )
        tell = partial(self._tell, self._record(order))
        swap = ModelHotSwapServer(self._serving, order, counts=self._counts, tell=tell)
        self._swaps[name] = swap
        try:
            if not self._serving.node.is_alone:
                await self._claim(name, swap)
            await self._start(name, swap.run)
        except BaseException:
            swap.withdraw()
            raise
        return swap

    async def _begin_declared(self, wanted: Deployment) -> str:
        return (await self.begin(wanted, None, None)).id

    def is_swapped(self, now: Deployment, wanted: Deployment) -> bool:
        """Whether what a file says anew takes over step by step.

        Args:
            now: what this node serves.
            wanted: what the file says.
        """
        source = self._serving.blueprint(now.name).source
        return is_swapped(now, wanted, is_client=source.is_client)

    def cancel(self, name: str) -> str | None:
        """Have a swap go back; return its id, None: there is none that still can."""
        swap = self._swaps.get(name)
        if swap is not None and not swap.ended.is_set():
            return swap.id if swap.cancel() else None
        record = self._board.records().get(name)
        if record is None or record.has_ended or self._is_mine(record):
            return None
        self._board.end(name, record.id)
        return record.id

    # --- parts -----------------------------------------------------------------------

    def _refuse_second(self, name: str) -> None:
        last = self._swaps.get(name)
        record = self._board.records().get(name)
        runs_here = last is not None and not last.ended.is_set()
        if runs_here or (record is not None and not record.has_ended):
            raise NotReadyError(f"{name} is being swapped; ask again when it is done")

    async def _claim(self, name: str, swap: ModelHotSwapServer) -> None:
        """Return when all nodes know that this one leads a swap.

        Nodes that begin one at once write in one place, where the last one counts.

        Raises:
            NotReadyError: it is another node that leads one.
        """
        swap.claim()
        await trio.sleep(_SETTLES_S)
        other = self._other(name, swap.id)
        if other is not None:
            raise NotReadyError(
                f"{name} is being swapped by {other}, which began at the same time; "
                "ask again when it is done"
            )

    def _other(self, name: str, swap_id: str) -> str | None:
        """Return which node leads another swap of a deployment; None: none does."""
        record = self._board.records().get(name)
        if record is None or record.has_ended or record.id == swap_id:
            return None
        return record.node

    def _record(self, order: SwapOrder) -> SwapRecord:
        record = SwapRecord(id=order.id, node=self._serving.node.name, life=self._life)
        if self._serving.node.is_alone:
            return record
        return msgspec.structs.replace(
            record,
            before=deployment_table(order.now),
            after=_digest(order.wanted),
        )

    def _tell(self, record: SwapRecord, swap: ModelHotSwapServer) -> None:
        if self._other(swap.status.deployment, swap.id) is not None:
            return  # it is the other one that all are to know
        asked = () if self._serving.node.is_alone else map(_digest, swap.asked)
        told = msgspec.structs.replace(_at(record, swap), asked=tuple(asked))
        self._board.put(swap.status.deployment, told)

    def _is_mine(self, record: SwapRecord) -> bool:
        return (record.node, record.life) == (self._serving.node.name, self._life)

    # --- its process -----------------------------------------------------------------

    async def watch(self) -> None:
        """Follow what all nodes say of swaps; never returns."""
        async with trio.open_nursery() as nursery:
            while True:
                is_busy = False
                try:
                    self._board.subscribe()
                    is_busy = await self._look(nursery)
                except NotReplicatingError:
                    log.info("the replicator is away; swaps are not followed")
                await _news(_LOOK_EVERY_S if is_busy else _REST_S)

    async def _look(self, nursery: trio.Nursery) -> bool:
        """Do what is to be done now; return whether a swap runs."""
        running = {
            name: record
            for name, record in self._board.records().items()
            if not record.has_ended
        }
        own = {swap.id: swap for swap in self._swaps.values()}
        live = {swap.id for swap in own.values() if not swap.ended.is_set()}
        for swap_id in self._counts.counted():
            if swap_id not in live | {record.id for record in running.values()}:
                self._counts.stop(swap_id)
        for name, record in running.items():
            mine = self._swaps.get(name)
            if mine is not None and mine.id != record.id:
                # They could not hear each other when both began.
                mine.give_way(record.node)
            if record.id in own:
                self._follow_own(own[record.id], record)
            elif self._is_left(record):
                await self._lead_on(name, record)
            elif not self._is_mine(record):
                self._counts.begin(record.id, name)
            elif name in self._led_on:
                self._led_on[name].tell_end()
        self._counts.tell()
        self.declared.look(nursery)
        old = self._trimmer.trim(self.statuses())
        self._swaps = {n: s for n, s in self._swaps.items() if s.id not in old}
        self._led_on = {n: s for n, s in self._led_on.items() if s.id not in old}
        self.declared.forget(old)
        return bool(running or self.declared.names)

    def _follow_own(self, swap: ModelHotSwapServer, record: SwapRecord) -> None:
        name = swap.status.deployment
        if self._board.is_ended(name, record.id):
            swap.cancel()
        # Its end, too: it may have come while the replicator was away.
        self._board.put(name, _at(record, swap))

    def _is_left(self, record: SwapRecord) -> bool:
        """Whether this node is to bring a swap to its end that nobody leads."""
        me = self._serving.node.name
        if not self._serving.has_met:
            return False  # the others may have done it long ago
        if record.node == me:
            return record.life != self._life
        if self._serving.node.is_alone:
            return False
        try:
            there = self._serving.orders.nodes()
        except NotReadyError:
            return False
        # One is enough; where two think that they are it, both do the same.
        return record.node not in there and min(there, default="") == me

    async def _lead_on(self, name: str, record: SwapRecord) -> None:
        log.warning("%s leads the swap of %s no more", record.node, name)
        taken = msgspec.structs.replace(
            record,
            node=self._serving.node.name,
            life=self._life,
            phase=Phase.ROLLING_BACK,
            share=0.0,
            reason=f"{record.node}, which led it, ended in the middle of it",
        )
        self._board.put(name, taken)
        try:
            left = LeftSwap(self._serving, self._board, name, taken)
            await self._start(name, left.finish)
            self._led_on[name] = left
        except NotReadyError:
            log.info("it ends, and another node does it")

    async def _start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        spec = ChildSpec(
            id=name, start=partial(PlainProcess, run), restart=Restart.TEMPORARY
        )
        try:
            # Shielded: it would run, and nobody would know.
            with trio.CancelScope(shield=True):
                await start_child(HOT_SWAPS, spec)
        except (CallError, StartError) as error:
            raise NotReadyError("the server is shutting down") from error


def _at(record: SwapRecord, swap: ModelHotSwapServer) -> SwapRecord:
    """Return the record of a swap that this node leads, as it stands."""
    if not swap.has_begun:
        # It is no answer to a file that says what it would have brought.
        record = msgspec.structs.replace(record, after="")
    return record.at(swap.status)


def _digest(deployment: Deployment) -> str:
    return digest_of(deployment_table(deployment))


async def _news(within_s: float) -> None:
    """Wait until something is new, and take all of it."""
    with suppress(ReceiveTimeoutError):
        await receive(timeout_s=within_s)
        while True:
            await receive(timeout_s=0)
