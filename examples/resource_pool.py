"""A pool of connections that come back, whatever happens to their borrowers.

    python examples/resource_pool.py

Each connection is a process under a supervisor, and joins the pool when it is
open.  The pool lends them to processes, in the order in which they ask, and
monitors both sides: what a borrower who died had is lent to the next, and a
connection that broke is forgotten; its supervisor opens another, which joins.
``async with pool.checkout()`` gives back however its block is left.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from atomr.errors import CallTimeoutError, NotAProcessError, ServerDownError
from atomr.otp import (
    Down,
    Fail,
    From,
    GenServer,
    NoReply,
    Reply,
    Request,
    Strategy,
    Supervisor,
    TaskSupervisor,
    async_nolink,
    call,
    cast,
    child,
)
from atomr.process import demonitor, is_alive, monitor, open_node, self_pid
from atomr.refs import Pid, Ref

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atomr.refs import Address

R = TypeVar("R")

# --- what borrowers use -------------------------------------------------------------


@attrs.frozen
class Loan(Generic[R]):
    """Something that was lent, and the ticket to give it back with."""

    resource: R
    ticket: Ref


class Pool(Generic[R]):
    """Talks to a pool.

    Args:
        name: of the pool's process.
        wrap: makes of a resource's pid what borrowers want to see.
    """

    def __init__(self, name: str, wrap: Callable[[Pid], R]) -> None:
        self.name = name
        self.wrap = wrap

    @asynccontextmanager
    async def checkout(self, *, timeout_s: float = 5.0) -> AsyncIterator[R]:
        """Lend a resource for the length of a block.

        Raises:
            CallTimeoutError: none was free in time.
            NotAProcessError: only a process can borrow: its end gives back.
        """
        loan = await self.take(timeout_s=timeout_s)
        try:
            yield loan.resource
        finally:
            self.give_back(loan.ticket)

    async def take(self, *, timeout_s: float = 5.0) -> Loan[R]:
        """Borrow across blocks and messages; raises as :meth:`checkout` does."""
        ticket = Ref()
        try:
            pid = await call(self.name, _Take(ticket), timeout_s=timeout_s)
        except BaseException:
            # Its time is over, or it was cancelled; a loan may be on its way.
            self.give_back(ticket)
            raise
        return Loan(self.wrap(pid), ticket)

    def give_back(self, ticket: Ref) -> None:
        """End a loan, or the wait for one; a second time does nothing."""
        cast(self.name, _GiveBack(ticket))

    async def status(self) -> Status:
        """Return how many there are of each."""
        return await call(self.name, _Ask())


@attrs.frozen
class Status:
    """Numbers: resources that are free, and that are lent; borrowers that wait."""

    free: int
    lent: int
    waiting: int


# --- the pool -----------------------------------------------------------------------


@attrs.frozen
class _Take(Request[Pid]):
    ticket: Ref


@attrs.frozen
class _GiveBack:
    ticket: Ref


@attrs.frozen
class Join:
    """A resource says that it is ready."""

    resource: Pid


@attrs.frozen
class _Ask(Request[Status]):
    pass


@attrs.define
class _Borrower:
    from_: From
    monitor: Ref
    resource: Pid | None = None


class PoolServer(GenServer):
    """Lends what has joined, first come, first served."""

    def __init__(self) -> None:
        self.free: deque[Pid] = deque()
        self.waiting: deque[Ref] = deque()
        self.borrowers: dict[Ref, _Borrower] = {}
        self.resources: dict[Ref, Pid] = {}

    def handle_call(self, request: _Take | _Ask, from_: From) -> Reply | NoReply | Fail:
        """Lend at once, or when something is free."""
        if isinstance(request, _Ask):
            lent = len(self.borrowers) - len(self.waiting)
            return Reply(Status(len(self.free), lent, len(self.waiting)))
        if from_.pid is None:
            return Fail(NotAProcessError("checkout(): only a process can borrow"))
        self.borrowers[request.ticket] = _Borrower(from_, monitor(from_.pid))
        self.waiting.append(request.ticket)
        self.lend()
        return NoReply()

    def handle_cast(self, message: _GiveBack | Join) -> None:
        """Take back, or take in."""
        match message:
            case _GiveBack(ticket):
                self.take_back(ticket)
            case Join(resource):
                self.resources[monitor(resource)] = resource
                self.free.append(resource)
                self.lend()

    def handle_info(self, message: Down) -> NoReply:
        """Take back from a borrower who died; forget a resource that broke."""
        broken = self.resources.pop(message.ref, None)
        if broken is None:
            borrowers = tuple(self.borrowers.items())
            [ticket] = [t for t, b in borrowers if b.monitor is message.ref]
            self.take_back(ticket)
        elif broken in self.free:
            self.free.remove(broken)
        return NoReply()

    def lend(self) -> None:
        """Lend what is free to those who wait."""
        while self.free and self.waiting:
            borrower = self.borrowers[self.waiting.popleft()]
            borrower.resource = self.free.popleft()
            # Should it have given up just now, its give_back is on its way.
            borrower.from_.reply(borrower.resource)

    def take_back(self, ticket: Ref) -> None:
        """End a loan, or a wait."""
        borrower = self.borrowers.pop(ticket, None)
        if borrower is None:
            return  # it was given back before
        demonitor(borrower.monitor, flush=True)
        if borrower.resource is None:
            self.waiting.remove(ticket)
        elif is_alive(borrower.resource):
            self.free.append(borrower.resource)
            self.lend()


# --- a resource ---------------------------------------------------------------------


@attrs.frozen
class _Query(Request[str]):
    text: str


class Connection(GenServer):
    """Stands for a connection to a database, which may break."""

    def __init__(self, number: int, pool: Address) -> None:
        self.number = number
        self.pool = pool

    def init(self) -> None:
        """Open it, and join the pool."""
        cast(self.pool, Join(self_pid()))

    def handle_call(self, request: _Query, from_: From) -> Reply:
        """Answer a query."""
        if request.text == "BREAK":
            raise ConnectionError(f"connection {self.number} was reset")
        return Reply(f"{request.text} on connection {self.number}")


class Database:
    """What a borrower sees of a connection."""

    def __init__(self, connection: Pid) -> None:
        self.connection = connection

    async def query(self, text: str) -> str:
        """Run a query."""
        return await call(self.connection, _Query(text))


DATABASE = Pool("database", Database)


def connections() -> Supervisor:
    """Return the supervisor of two connections."""
    return Supervisor(
        [
            child(lambda: Connection(1, DATABASE.name), id="connection 1"),
            child(lambda: Connection(2, DATABASE.name), id="connection 2"),
        ]
    )


def pool() -> Supervisor:
    """Return the pool's tree; without its pool a connection is of no use."""
    return Supervisor(
        [child(PoolServer, id=DATABASE.name, name=DATABASE.name), child(connections)],
        strategy=Strategy.REST_FOR_ONE,
    )


# --- some borrowers -----------------------------------------------------------------


@attrs.define
class Visit:
    """Somebody who holds a connection from one event to the other."""

    who: str
    began: trio.Event = attrs.field(factory=trio.Event)
    may_end: trio.Event = attrs.field(factory=trio.Event)

    async def borrow(self) -> None:
        """Borrow a connection for a while."""
        async with DATABASE.checkout() as database:
            print(f"{self.who}: {await database.query('SELECT')}")
            self.began.set()
            await self.may_end.wait()


async def impatient(who: str) -> None:
    """Wait for a connection, but not for long."""
    try:
        async with DATABASE.checkout(timeout_s=0.05):
            print(f"{who} has one")
    except CallTimeoutError as error:
        print(f"{who}: none was free within {error.timeout_s} s")


async def careless(who: str) -> None:
    """Borrow, and end without giving back."""
    loan = await DATABASE.take()
    print(f"{who}: {await loan.resource.query('INSERT')}, and gone")


async def unlucky(who: str) -> None:
    """Have a connection break in one's hands, and take another one."""
    async with DATABASE.checkout() as database:
        try:
            await database.query("BREAK")
        except ServerDownError as error:
            print(f"{who}: {error.reason}")
    async with DATABASE.checkout() as one, DATABASE.checkout() as other:
        # Both connections are there, so the broken one was replaced.
        print(who, "has", *sorted([await one.query("A"), await other.query("B")]))


async def main() -> None:
    """Let borrowers come, wait, go, and die."""
    async with open_node() as node:
        await node.start(child(pool))
        await node.start(child(TaskSupervisor, name="borrowers"))

        ann, bob, dan = Visit("ann"), Visit("bob"), Visit("dan")
        visits = []
        for visit in (ann, bob):
            visits.append(async_nolink("borrowers", visit.borrow))
            await visit.began.wait()
        print(await DATABASE.status())
        await async_nolink("borrowers", impatient, "cyd").result()

        visits.append(async_nolink("borrowers", dan.borrow))
        for visit, task in zip((ann, bob, dan), visits, strict=True):
            visit.may_end.set()
            await task.result()

        await async_nolink("borrowers", careless, "eve").result()
        print(await DATABASE.status())
        await async_nolink("borrowers", unlucky, "fay").result()
        print(await DATABASE.status())


if __name__ == "__main__":
    logging.basicConfig(format="%(name)s %(levelname)s: %(message)s")
    trio.run(main)
