"""A node's part in rate limits: the object that code of the node holds.

::

    permits = PermitService()
    async with open_cluster(options, services=[permits]):
        permits.add(Limit("rpm", 600, 60.0, voters=("a", "b", "c")))
        got = permits.try_acquire("rpm", 1)

What is at hand is used in place, without a message; what is not is asked of the
limit's home, and waited for in line.  All that all nodes use in any window is never
more than the limit, whatever the network does: :mod:`atomr.gossip.escrow` says why.

The object outlives its process, and what it knows does too: a process that crashed for
another reason than this code goes on with the same permits.  Where this code was in
the middle of a change, all that was used is forgotten; then it begins as a node that
was restarted.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import trio

from atomr.cluster.clock import SleeplessClock
from atomr.cluster.permits.core import Core
from atomr.cluster.permits.errors import NotLimitingError, UnknownLimitError
from atomr.cluster.permits.line import Permits, Waiter
from atomr.cluster.permits.server import PermitServer
from atomr.core.checks import check_text
from atomr.crdt import Origin
from atomr.gossip.escrow import UNKNOWN, Denied, Frame, Past
from atomr.http2 import Service
from atomr.http2.services import check_service
from atomr.otp import child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atomr.cluster.peers import Peers
    from atomr.cluster.permits.outcomes import LimitState
    from atomr.core.child_spec import ChildSpec
    from atomr.gossip.escrow import Limit
    from atomr.http2 import Link


@attrs.define(eq=False)
class _Ask:
    """Somebody who waits for an answer."""

    outcome: Permits | Denied | None = None
    done: trio.Event = attrs.field(factory=trio.Event)

    def put(self, outcome: Permits | Denied) -> None:
        self.outcome = outcome
        self.done.set()


class PermitService:
    """A part of a cluster that keeps rate limits; see the module.

    Args:
        name: nodes share limits with those of the same name; for more than one on a
            node.
        past: what is known of the time before this program, as of its start.
        clock: seconds of a monotonic clock that goes on while the machine sleeps;
            None: the node's.

    Attributes:
        name: the same.
        service_name: what peers call it.

    Raises:
        TypeError: the name is no text.
        ValueError: it is empty or too long.
    """

    shares_life: ClassVar[bool] = False
    """What it holds has lives of its own."""

    def __init__(
        self,
        *,
        name: str = "permits",
        past: Past = UNKNOWN,
        clock: Callable[[], float] | None = None,
    ) -> None:
        check_text("name", name)
        check_service(name)
        self.name = self.service_name = name
        self._past = past
        self._clock = clock
        self._limits: dict[str, Limit] = {}
        self._pasts: dict[str, Past] = {}
        self._core: Core | None = None
        self._server: PermitServer | None = None
        self._is_broken = False

    # --- as a part of a cluster -----------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages."""
        return {self.service_name: Service(Frame, tell=self._arrived)}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        return child(lambda: PermitServer(self, peers), id=self.service_name)

    def _arrived(self, link: Link, frame: Frame) -> None:
        if self._server is not None:
            self._server.arrive(link.peer, frame)

    def now_s(self) -> float:
        """Return the time by the clock that limits are kept by."""
        if self._clock is None:
            self._clock = SleeplessClock(trio.lowlevel.current_clock().current_time)
        return self._clock()

    def begin(self, server: PermitServer, origin: Origin) -> Core:
        """Take a new life of the process; return what it goes on with."""
        core = self._core
        if core is None or self._is_broken:
            boot, voted_until_s = origin.boot, float("-inf")
            if core is not None:
                voted_until_s = self.now_s()
                # Peers must not take it for the life that is over.
                boot = max(boot, core.boot + 1)
                core.end()
            me = Origin(origin.name, boot)
            core = self._core = Core(me, voted_until_s=voted_until_s)
            past, self._past = self._past, UNKNOWN
            pasts, self._pasts = self._pasts, {}
            for name, limit in self._limits.items():
                core.add(limit, self.now_s(), past=pasts.get(name, past))
            self._is_broken = False
        self._server = server
        return core

    def ended(self, server: PermitServer) -> None:
        """Take the end of a life of the process."""
        if self._server is server:
            self._server = None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change the core in the block; where that fails, it is used no more."""
        try:
            yield
        except Exception:
            self._is_broken = True
            raise

    # --- limits ---------------------------------------------------------------------

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits that this node takes part in."""
        return tuple(self._limits.values())

    def limit(self, name: str) -> Limit | None:
        """Return the terms of a limit; None: this node has no part in it."""
        return self._limits.get(name)

    def add(self, limit: Limit, *, past: Past | None = None) -> None:
        """Take part in a limit; before the cluster is open, too.

        Args:
            limit: its terms, the same on all nodes.
            past: what is known of earlier uses by this node; None: what is known of
                the time before the program, where it has just been started.

        Raises:
            ValueError: it is there already.
        """
        if limit.name in self._limits:
            raise ValueError(f"add({limit.name!r}): it is there already")
        self._limits[limit.name] = limit
        if self._core is not None:
            past = UNKNOWN if past is None else past
            self._core.add(limit, self.now_s(), past=past)
            self._act()
        elif past is not None:
            self._pasts[limit.name] = past

    def replace(self, limit: Limit) -> None:
        """Take part in a limit under other terms.

        What was used is used under the new terms, too.  Where only the number of
        permits differs, or how they are divided, all goes on: what is free of more is
        there at once, fewer hold as soon as nodes hear of it, and who waits goes on
        waiting.  Else what others have used is not known, a window is waited for, and
        who waits is denied.

        Raises:
            UnknownLimitError: there is no limit of its name here.
        """
        core, before = self._core, self._limits.get(limit.name)
        if core is not None and before is not None and before.may_become(limit):
            self._limits[limit.name] = limit
            core.resize(limit, self.now_s())
            self._act()
            return
        used = None
        if core is not None:
            used = self.state(limit.name).used
        self.remove(limit.name)
        self.add(limit, past=Past(used=used))

    def remove(self, name: str) -> None:
        """Take no part any more; who waits is denied.

        Raises:
            UnknownLimitError: there is no such limit here.
        """
        if name not in self._limits:
            raise UnknownLimitError(name)
        del self._limits[name]
        if self._core is not None:
            self._core.remove(name, self.now_s())
            self._act()

    def state(self, name: str) -> LimitState:
        """Return how a limit stands on this node.

        Raises:
            UnknownLimitError: there is no such limit here.
            NotLimitingError: the service was not started yet.
        """
        return self._core_of(name).state(name, self.now_s())

    def home(self, name: str) -> str:
        """Return which node lends a limit's permits, as far as is known here.

        Empty for a soft one, which nobody lends.

        Raises:
            UnknownLimitError: there is no such limit here.
            NotLimitingError: the service was not started yet.
        """
        return self._core_of(name).escrow.home(name)

    # --- use ------------------------------------------------------------------------

    def try_acquire(
        self,
        name: str,
        permits: int,
        *,
        expected: bool = False,
        now_s: float | None = None,
    ) -> Permits | Denied | None:
        """Use permits in place, without a message.

        Args:
            name: of the limit.
            permits: at least 1.
            expected: True where :meth:`expect` has counted them.
            now_s: what :meth:`now_s` has just said, for who needs several permits;
                None: it is asked.

        Returns:
            ``Permits``, which count as used from now on; ``Denied`` when nobody can
            ever have as many; None when they must be asked for, or waited for.

        Raises:
            UnknownLimitError: there is no such limit here.
            NotLimitingError: the service was not started yet.
            ValueError: ``permits`` is not at least 1.
        """
        core = self._core
        if core is None or name not in self._limits:
            core = self._core_of(name)
        if now_s is None:
            now_s = self.now_s()
        outcome = core.try_acquire(name, permits, now_s, expected=expected)
        server = self._server
        if server is not None and core.escrow.due_s < server.wake_at_s:
            server.look()
        return outcome

    def expect(self, name: str, permits: int) -> None:
        """Count permits that somebody will acquire with ``expected``, and waits for.

        Who lets people wait elsewhere says so here: how much other nodes leave to
        this one depends on what it is asked for.

        Raises:
            UnknownLimitError: there is no such limit here.
            NotLimitingError: the service was not started yet.
            ValueError: ``permits`` is not at least 1.
        """
        self._core_of(name).expect(name, permits)

    async def acquire(
        self,
        name: str,
        permits: int,
        *,
        deadline_s: float,
        priority: int = 0,
        expected: bool = False,
    ) -> Permits | Denied:
        """Use permits; wait for them, in line, where they are not at hand.

        Args:
            name: of the limit.
            permits: at least 1.
            deadline_s: when waiting is over, in trio's clock.
            priority: who goes first of those that wait here; higher first.
            expected: True where :meth:`expect` has counted them.

        Returns:
            ``Denied`` when the deadline has passed, or nobody can ever have as many.

        Raises:
            UnknownLimitError: there is no such limit here.
            NotLimitingError: the service was not started yet.
            ValueError: ``permits`` is not at least 1.

        Cancellation: nothing is used.
        """
        core, ask = self._core_of(name), _Ask()
        waiter = Waiter(permits, priority, ask.put)
        if not expected:
            core.expect(name, permits)
        core.wait(name, waiter, self.now_s())
        self._act()
        try:
            with trio.move_on_at(deadline_s):
                await ask.done.wait()
        except BaseException:
            if isinstance(ask.outcome, Permits):
                self.settle(ask.outcome, 0)
            raise
        finally:
            waiter.is_over = True
        if ask.outcome is None:
            if name not in self._limits:
                return Denied(0.0)
            return Denied(core.retry_after_s(name, permits, self.now_s()))
        return ask.outcome

    def retry_after_s(self, name: str, permits: int) -> float:
        """Return when it is worth a try again, as far as is known here.

        Raises:
            UnknownLimitError: there is no such limit here.
            NotLimitingError: the service was not started yet.
        """
        return self._core_of(name).retry_after_s(name, permits, self.now_s())

    def settle(self, permits: Permits, used: int) -> None:
        """Say how many of them were used; the others are free again.

        A second time it does nothing.  More than there were is locked as far as there
        is anything to lock, and else counted as overrun.

        Raises:
            ValueError: ``used`` is negative.
        """
        core = self._core
        if core is None:
            return
        # What only gives back may do so as of any time since.
        is_more = used > permits.count or permits.part.line.heap
        if core.settle(permits, used, self.now_s() if is_more else permits.at_s):
            self._act()

    def _core_of(self, name: str) -> Core:
        core = self._core
        if core is None:
            raise NotLimitingError(self.name)
        if name not in self._limits:
            raise UnknownLimitError(name)
        return core

    def _act(self) -> None:
        if self._server is not None:
            self._server.act()
