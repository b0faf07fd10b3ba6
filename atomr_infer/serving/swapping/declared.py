"""What files of nodes say anew takes over step by step, once for all nodes.

A file is read by each node: all of them at once where a signal goes to all workers, or
one after the other.  Whose comes first is not known, so each that is to serve another
one keeps it here, and looks on.  One of them begins the swap and the others see its
record, with what comes.  Whoever is first by name begins a second after its reload,
so that those who were told in the same moment are known; each one after it waits
longer, as the first may be at something else, or gone.  What comes is kept until the
swap has ended, as it may not come to its beginning.

A swap towards what a file says counts for all whose files say the same: where it went
back, a node that reloads later, or is restarted, does not begin it again.  A node
whose file has said something else since does.  A node whose file says again what was
before has the swap go back.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.config.deployment_table import deployment_table
from atomr_infer.errors import ConfigError, NotReadyError
from atomr_infer.model.deployment import Deployment
from atomr_infer.policy.lifecycle.hot_swap import Phase
from atomr_infer.policy.lifecycle.replaced import is_swapped
from atomr_infer.serving.placing.alone import LocalOrders
from atomr_infer.serving.placing.records import digest_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from atomr_infer.serving.placing.picture import Picture
    from atomr_infer.serving.shared import Serving
    from atomr_infer.serving.swapping.board import SwapBoard
    from atomr_infer.serving.swapping.records import SwapRecord

log = logging.getLogger(__name__)

_FIRST_S = 1.0
_NEXT_S = 2.0
"""How much longer each waits than the one before it: much more than news take."""


@attrs.frozen
class _Pending:
    """What is to take over.

    Attributes:
        wanted: the deployment.
        digest: of its table.
        at: since when, by trio's clock.
        past: the id of a swap towards it that does not count; "": each one does.
        told: what becomes of it.
    """

    wanted: Deployment
    digest: str
    at: float
    past: str
    told: str


class DeclaredSwaps:
    """What this node's file says, and no node serves yet."""

    def __init__(
        self,
        serving: Serving,
        board: SwapBoard,
        begin: Callable[[Deployment], Awaitable[str]],
    ) -> None:
        """Keep what is to be swapped.

        Args:
            serving: the node's tree.
            board: the swaps of all nodes.
            begin: begins a swap towards a deployment, and returns its id.
        """
        self._serving = serving
        self._board = board
        self._begin = begin
        self._pending: dict[str, _Pending] = {}
        # What is being begun, by names.
        self._begins: set[str] = set()
        # The swap that was the answer to what this node's file said.
        self._answered: dict[str, str] = {}
        # The digest of what can never be begun, and why.
        self._refused: dict[str, tuple[str, str]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The deployments of which another one is to take over."""
        return tuple(self._pending)

    def take(
        self, now: Deployment, wanted: Deployment, *, before: str, is_client: bool
    ) -> str:
        """Have another deployment take over where it is to do so step by step.

        Args:
            now: what is served.
            wanted: what this node's file says.
            before: the digest of what it said before; "": nothing.
            is_client: whether the engine is a client in its node's process.

        Returns:
            What becomes of it; "": it is exchanged at once.
        """
        name, digest = wanted.name, digest_of(deployment_table(wanted))
        last = self._board.records().get(name)
        same = last if last is not None and last.after == digest else None
        is_on = same is not None and not same.has_ended
        self._pending.pop(name, None)
        self._refused.pop(name, None)
        if last is not None and _takes_back(last, before, digest):
            self._board.end(name, last.id)
            return self._keep(wanted, digest, told=_goes_back(name))
        # At its end what is served has the engine of what comes, and is not it yet.
        if not is_on and not is_swapped(now, wanted, is_client=is_client):
            return ""
        past = ""
        if same is not None and (
            same.phase is Phase.SWAPPED or self._answered.get(name) == same.id
        ):
            past = same.id
        elif same is not None and same.has_ended:
            self._answered[name] = same.id
            return _left(name, same)
        return self._keep(wanted, digest, past=past, told=_is_taken_over(name))

    def tell(self, name: str, digest: str) -> str:
        """Return what has become of what this node's file has said for long.

        Args:
            name: the deployment's.
            digest: of what the file says, which is not served.

        Returns:
            One sentence; "": nobody has it take over.
        """
        refused, why = self._refused.get(name, ("", ""))
        if refused == digest:
            return _is_refused(name, why)
        pending = self._pending.get(name)
        if pending is not None and pending.digest == digest:
            return pending.told
        record = self._board.records().get(name)
        if record is None or record.after != digest:
            return ""
        if not record.has_ended:
            return _is_taken_over(name)
        return "" if record.phase is Phase.SWAPPED else _left(name, record)

    def forget(self, swap_ids: Collection[str]) -> None:
        """Forget swaps that nobody knows any more."""
        for name, swap_id in list(self._answered.items()):
            if swap_id in swap_ids:
                del self._answered[name]

    def look(self, nursery: trio.Nursery) -> None:
        """Begin what it is this node's turn to begin.

        Args:
            nursery: where it is begun, which takes a second.
        """
        if not self._pending or not self._serving.has_met:
            return
        orders = self._serving.orders
        assert not isinstance(orders, LocalOrders), "a file is declared to others"
        try:
            picture = orders.picture()
        except NotReadyError:
            return
        records = self._board.records()
        for name, pending in list(self._pending.items()):
            record = records.get(name)
            if name in self._begins:
                continue
            if self._is_over(name, pending, picture, record):
                del self._pending[name]
            elif record is not None and not record.has_ended:
                continue  # it is on its way, or another one is
            elif _is_turn(name, pending, picture):
                self._begins.add(name)
                nursery.start_soon(self._lead, name, pending)

    # --- parts -----------------------------------------------------------------------

    def _keep(
        self, wanted: Deployment, digest: str, *, told: str, past: str = ""
    ) -> str:
        now = trio.current_time()
        self._pending[wanted.name] = _Pending(wanted, digest, now, past, told)
        return told

    def _is_over(
        self,
        name: str,
        pending: _Pending,
        picture: Picture,
        record: SwapRecord | None,
    ) -> bool:
        """Whether there is nothing to be begun any more."""
        if picture.declared.get(name, {}).get(picture.me) != pending.digest:
            return True  # the file says something else by now
        known = picture.catalogue.get(name)
        if known is None:
            return True
        if record is not None and not record.has_ended:
            return False  # it may take back what it has had served
        if known.entry.digest == pending.digest:
            return True
        if (
            record is None
            or record.after != pending.digest
            or record.id == pending.past
        ):
            return False
        self._answered[name] = record.id
        log.warning("%s", _left(name, record))
        return True

    async def _lead(self, name: str, pending: _Pending) -> None:
        refused = ""
        try:
            self._answered[name] = swap_id = await self._begin(pending.wanted)
        except NotReadyError as error:
            log.info("%s is not swapped yet: %s", name, error)
            return
        except ConfigError as error:
            refused = str(error)
        finally:
            self._begins.discard(name)
        said = self._pending.get(name)
        if said is not None and said.digest == pending.digest:
            del self._pending[name]
        if refused:
            log.warning("%s", _is_refused(name, refused))
            self._refused[name] = pending.digest, refused
        elif said is None:
            log.info("the swap of %s goes back: the file says it no more", name)
            self._board.end(name, swap_id)
        else:
            log.info("%s is swapped, as this node's file says", name)


def _is_turn(name: str, pending: _Pending, picture: Picture) -> bool:
    """Whether those that come before this node would have begun by now."""
    before = [
        node
        for node, digest in picture.declared.get(name, {}).items()
        if digest == pending.digest and node < picture.me and node not in picture.away
    ]
    waited_s = trio.current_time() - pending.at
    return waited_s >= _FIRST_S + _NEXT_S * len(before)


def _takes_back(record: SwapRecord, before: str, digest: str) -> bool:
    """Whether a file said what a swap brings, and says again what it takes away."""
    if record.has_ended or not record.before or record.after != before:
        return False
    return digest_of(record.before) == digest


def _is_taken_over(name: str) -> str:
    return (
        f"{name} is taken over step by step, as its hot_swap says: "
        f"`atomr-infer swap {name} show` tells how far it is"
    )


def _goes_back(name: str) -> str:
    return (
        f"{name} goes back to what this node's file says again: "
        f"`atomr-infer swap {name} show` tells how far it is"
    )


def _is_refused(name: str, why: str) -> str:
    return f"{name} stays: what this node's file says cannot take over: {why}"


def _left(name: str, record: SwapRecord) -> str:
    return (
        f"{name} stays: what this node's file says was tried, and {record.phase.value} "
        f"({record.reason}); `atomr-infer swap {name}` tries it again"
    )
