"""A node's part in budgets: the object that code of the node holds.

::

    budgets = BudgetService(voters=("a", "b", "c"), path=folder / "budgets.sqlite")
    async with open_cluster(options, services=[budgets]):
        budgets.open(BudgetTerms(name="team", units=10_000_000))
        reserved = await budgets.reserve("team", 50_000, wait_s=2.0)
        budgets.settle(reserved, 31_250)

What is at hand is reserved in place, without a message; what is not is asked of the
disk and of the other voters.  All that all nodes reserve and spend is never more than
there is, whatever the network and the machines do.

The object outlives its process: budgets that were opened are open in its next life.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import trio

from atomr.cluster.budgets.account import Reservation
from atomr.cluster.budgets.asks import Ask
from atomr.cluster.budgets.errors import (
    BudgetsError,
    LedgerStoreError,
    NotRunningError,
    ReclaimError,
)
from atomr.cluster.budgets.frames import Message
from atomr.cluster.budgets.server import BudgetServer
from atomr.cluster.budgets.storage import FileStorage, MemoryStorage
from atomr.core.checks import check_names, check_seconds, check_text
from atomr.gossip.ledger import Held, Overran, Reclaimed, ReclaimFailed, Refused
from atomr.http2 import Service
from atomr.http2.services import check_service
from atomr.otp import child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from atomr.cluster.budgets.core import Fact
    from atomr.cluster.budgets.parts import BudgetState
    from atomr.cluster.budgets.storage import Storage
    from atomr.cluster.budgets.terms import BudgetTerms
    from atomr.cluster.peers import Peers
    from atomr.core.child_spec import ChildSpec
    from atomr.http2 import Link
    from atomr.refs import Pid

log = logging.getLogger("atomr.cluster.budgets")

MAX_OWED = 64
"""Of so many budgets that are not open it is known what is to be charged."""

RECLAIM_S = 10.0
"""Others answer within milliseconds; one that restarts within seconds."""


class BudgetService:
    """A part of a cluster that keeps budgets; see the module.

    Args:
        voters: the configured nodes that spend, those that are down among them: the
            same on all nodes.
        path: of the file in which they outlive the node, in a folder that is there;
            None: they end with the program.
        name: nodes share budgets with those of the same name; for more than one on a
            node.
        storage: in place of a file.
        wall_s: the wall's time, in seconds since 1970.

    Attributes:
        voters: the same.
        name: the same.
        storage: where they are kept.
        wall_s: the same.
        file_pid: the process that writes it, of the latest life.
        find: says the terms of a budget that another node is the first to use; None:
            it is unknown.  Must not wait.
        on_overrun: called when a call cost more than was reserved for it.
        began_s: when its process began, in trio's clock; minus infinity: never yet.

    Raises:
        TypeError: a name is no text.
        ValueError: there are no voters, or the name is too long.
    """

    shares_life: ClassVar[bool] = False
    """Its ledgers have lives of their own."""

    def __init__(
        self,
        *,
        voters: Iterable[str],
        path: Path | str | None = None,
        name: str = "budgets",
        storage: Storage | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        check_names("voters", voters)
        check_text("name", name)
        self.voters = tuple(sorted(set(voters)))
        if not self.voters:
            raise ValueError("voters=(): expected at least one, as (the node's name,)")
        self.name = name
        self.service_name = name
        check_service(self.service_name)
        if storage is None:
            storage = MemoryStorage() if path is None else FileStorage(Path(path))
        self.storage = storage
        self.file_pid: Pid | None = None
        self.find: Callable[[str], BudgetTerms | None] = self._find_open
        self.on_overrun: Callable[[Overran], None] = _ignore
        self.wall_s = wall_s
        self.began_s = -math.inf
        self._server: BudgetServer | None = None
        self._terms: dict[str, BudgetTerms] = {}
        self._owed: Counter[str] = Counter()
        self._reclaims: dict[str, Ask] = {}
        self._asks: set[Ask] = set()

    # --- as a part of a cluster -------------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages."""
        return {self.service_name: Service(Message, tell=self._arrived)}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        return child(lambda: BudgetServer(self, peers), id=self.service_name)

    def _arrived(self, link: Link, message: Message) -> None:
        if self._server is not None:
            self._server.arrive(link.peer, message)

    def begin(self, server: BudgetServer) -> None:
        """Take a new life of the process; open all that was open."""
        self._server, self.began_s = server, server.now_s
        for name, terms in tuple(self._terms.items()):
            try:
                self.open(terms)
            except BudgetsError as error:
                del self._terms[name]
                log.warning("%s: %s", self.name, error)
        self._charge_owed(server)

    def ended(self, server: BudgetServer) -> None:
        """Take the end of a life of the process."""
        if self._server is server:
            self._server = None
        asks, self._asks = self._asks, set()
        for ask in asks:
            ask.done.set()

    def told(self, fact: Fact) -> None:
        """Take what the process has found out."""
        match fact:
            case Overran():
                self.on_overrun(fact)
            case Reclaimed() | ReclaimFailed():
                ask = self._reclaims.pop(fact.budget, None)
                if ask is not None:
                    ask.put(fact)

    def _find_open(self, name: str) -> BudgetTerms | None:
        return self._terms.get(name)

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._server is not None

    def _running(self) -> BudgetServer:
        if self._server is None:
            raise NotRunningError(self.name)
        return self._server

    # --- budgets ----------------------------------------------------------------------

    def open(self, terms: BudgetTerms) -> None:
        """Take part in a budget; again with other terms: they are its terms from now.

        Before the process runs it is noted, and done when it starts.

        Raises:
            NoVoterError: this node is none of the voters.
            ClosedBudgetError: its time has been over for long.
            DamagedBudgetError: what the file holds of it cannot be read.
        """
        server = self._server
        if server is not None:
            closed = server.core.open(terms, now_s=server.now_s, wall_s=server.wall_s)
            for name in closed:
                self._terms.pop(name, None)
            self._charge_owed(server)
        self._terms[terms.name] = terms

    def is_open(self, name: str) -> bool:
        """Whether a budget was opened here, and is not closed."""
        return name in self._terms

    def state(self, name: str) -> BudgetState:
        """Return what is known of a budget.

        Raises:
            NotRunningError: the process does not run.
            UnknownBudgetError: it is not open.
        """
        return self._running().core.state(name)

    def states(self) -> tuple[BudgetState, ...]:
        """Return what is known of all that are open, by name; none: it does not run."""
        if self._server is None:
            return ()
        return tuple(map(self._server.core.state, sorted(self._server.core.accounts)))

    def try_reserve(self, name: str, units: int) -> Reservation | Refused | None:
        """Set units aside for a call, if they are at hand.

        Args:
            name: of the budget.
            units: the most that the call may cost, at least 1.

        Returns:
            None where others, or the disk, have to be asked: see :meth:`reserve`.
            ``Refused`` where they were, just now.

        Raises:
            NotRunningError: the process does not run.
            UnknownBudgetError: the budget is not open.
            ValueError: ``units`` is not from 1 to 2**53.
        """
        server = self._server
        if server is None:
            raise NotRunningError(self.name)
        account = server.core.accounts.get(name)
        found = None if account is None else account.try_take(units)
        return server.core.take(name, units, server.now_s) if found is None else found

    async def reserve(
        self, name: str, units: int, *, wait_s: float
    ) -> Reservation | Refused:
        """Set units aside for a call; wait for the disk and for others if need be.

        Args:
            name: of the budget.
            units: the most that the call may cost, at least 1.
            wait_s: how long at most.

        Raises:
            NotRunningError: the process does not run, or ended meanwhile.
            UnknownBudgetError: the budget is not open.
            LedgerStoreError: the file cannot be written, and more than is at hand is
                needed.
            ValueError: ``units`` is not from 1 to 2**53, or the time is negative.

        Cancellation: nothing is reserved.
        """
        check_seconds("wait_s", wait_s)
        server = self._running()
        found = server.core.take(name, units, server.now_s)
        if found is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            return found
        if server.core.problem is not None:
            raise LedgerStoreError(None, server.core.problem)
        return await self._wait(server, name, units=units, wait_s=wait_s)

    async def _wait(
        self, server: BudgetServer, name: str, *, units: int, wait_s: float
    ) -> Reservation | Refused:
        ask = Ask()
        server.core.ask(
            name,
            units,
            deadline_s=server.now_s + wait_s,
            now_s=server.now_s,
            waiter=ask.put,
        )
        server.act()
        self._asks.add(ask)
        try:
            await ask.done.wait()
        except BaseException:
            ask.left = self.cancel  # it may still come
            if isinstance(ask.answer, Reservation):
                self.cancel(ask.answer)
            raise
        finally:
            self._asks.discard(ask)
        if isinstance(ask.answer, Reservation | Refused):
            return ask.answer
        raise NotRunningError(self.name)

    def settle(self, reservation: Reservation, units: int) -> None:
        """End a reservation: the call cost that much; a second time it does nothing.

        A cost above what was reserved is charged all the same, and counted as an
        overrun where there is nothing left.

        Raises:
            ValueError: ``units`` is negative, or beyond 2**53.
        """
        server, name = self._server, reservation.budget
        account = None if server is None else server.core.accounts.get(name)
        if server is not None and account is reservation.account:
            held = reservation.held
            wall_s = 0.0 if account.terms.window_s is None else self.wall_s()
            if account.try_settle(held, units, wall_s):
                return
            now_s, wall_s = server.now_s, server.wall_s
            server.core.settle(account, held, units, now_s=now_s, wall_s=wall_s)
            server.act()
            return
        # Of an earlier life: all that was reserved counts as spent already.
        is_open, reservation.held.is_open = reservation.held.is_open, False
        if is_open and units > reservation.units:
            self.charge(name, units - reservation.units)

    def _charge_owed(self, server: BudgetServer) -> None:
        """Charge what was spent while a budget was not open here."""
        for name in tuple(self._owed):
            account = server.core.accounts.get(name)
            if account is not None:
                units = self._owed.pop(name)
                now_s, wall_s = server.now_s, server.wall_s
                server.core.settle(account, Held(0), units, now_s=now_s, wall_s=wall_s)
        server.act()

    def charge(self, name: str, units: int) -> None:
        """Charge what was spent without a reservation; beyond what there is too.

        Of a budget that is not open here it is charged when it is.
        """
        self._owed[name] += units
        if len(self._owed) > MAX_OWED:
            oldest = next(iter(self._owed))
            log.error(
                "budget %r: %d were spent, and are charged to nobody: it was not"
                " opened here since",
                oldest,
                self._owed.pop(oldest),
            )
        if self._server is not None:
            self._charge_owed(self._server)

    def cancel(self, reservation: Reservation) -> None:
        """End a reservation: nothing was spent."""
        self.settle(reservation, 0)

    async def reclaim(
        self,
        name: str,
        spent: Mapping[str, int],
        *,
        gone: Iterable[str] = (),
        timeout_s: float = RECLAIM_S,
    ) -> int:
        """Inherit what ledgers held whose files are lost: an operator's act.

        Args:
            name: of the budget.
            spent: what each lost ledger spent in total, by its id; too little would
                be spent twice.
            gone: nodes that will not come back; all other voters have to agree.
            timeout_s: how long to wait for them; it goes on after that.

        Returns:
            How many units came back.

        Raises:
            ReclaimError: a voter does not agree, or has not answered in time.
            NotRunningError: the process does not run.
            UnknownBudgetError: the budget is not open.
            ValueError: a number is negative, or beyond 2**53.
        """
        server = self._running()
        server.core.reclaim(name, spent, gone=gone, now_s=server.now_s)
        ask = self._reclaims[name] = Ask()
        server.act()
        with trio.move_on_after(timeout_s):
            await ask.done.wait()
        match ask.answer:
            case Reclaimed(units=units):
                return units
            case ReclaimFailed(lost=lost, reason=reason):
                raise ReclaimError(name, lost, reason)
        raise ReclaimError(name, "", f"no answer of all voters in {timeout_s:g} s")


def _ignore(_: Overran) -> None:
    return
