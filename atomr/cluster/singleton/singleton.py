"""A singleton of the cluster, as code of one node sees it.

A majority of the voters gives a node the lease (:mod:`atomr.gossip.voting`); the node
starts the child, and stops it before the lease ends.  All nodes are told where it runs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import attrs
import trio

from atomr.cluster.singleton.errors import NotHolderError, SingletonTimeoutError
from atomr.cluster.singleton.frames import Said
from atomr.cluster.singleton.runner import Runner
from atomr.cluster.singleton.server import (
    HandOver,
    Heard,
    Names,
    RemoteNames,
    SingletonServer,
)
from atomr.core.checks import check_names
from atomr.core.child_spec import BRUTAL_KILL, ChildSpec
from atomr.core.supervision import Strategy
from atomr.errors import short
from atomr.gossip.voting import Terms
from atomr.http2 import Service
from atomr.http2.services import check_service
from atomr.otp import DynamicSupervisor, Supervisor
from atomr.process import PlainProcess, send, whereis
from atomr.process.context import find_process
from atomr.refs import Via

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atomr.cluster.peers import Peers
    from atomr.http2 import Link
    from atomr.refs import Pid

_ASKED = 0.8
"""Of ``stop_s``: so long the child has to end; the rest is for killing it."""


class ClusterSingleton:
    """A process of which the cluster has one at most.

    It is a part of the cluster, on each voter and each node that may run it or call
    it.  All of them are given the same voters and ``lease_s``.

    Args:
        spec: of the child; its ``id`` names the singleton.
        remote: finds processes of other nodes.
        voters: names of the nodes whose majority decides; three or five of them, which
            need not all be there.
        lease_s: how long a holder goes on without a majority; when it is killed, that
            long and a tenth passes before another takes over.
        stop_s: so long before that it begins to stop; the child's ``shutdown`` is cut
            to four fifths of it.
        stands: whether this node would run it; False: it votes, if it is a voter, and
            knows who does.
        prefer: who shall have it when this node leaves, best first.

    Attributes:
        name: of the singleton.
        terms: of its lease.

    Raises:
        TypeError: the voters, or the preferred nodes, are one text.
        ValueError: a time or the voters make no sense, or the child has a name of its
            own: it has one already.
    """

    shares_life: ClassVar[bool] = False

    def __init__(  # noqa: PLR0913 - all but two by keyword
        self,
        spec: ChildSpec,
        remote: RemoteNames,
        *,
        voters: Iterable[str],
        lease_s: float = 5.0,
        stop_s: float = 1.0,
        stands: bool = True,
        prefer: Iterable[str] = (),
    ) -> None:
        if spec.name is not None:
            raise ValueError(
                f"singleton {spec.id!r}: name={short(spec.name)}: expected none; it is"
                f' found as singleton.via("{spec.id}")'
            )
        self.terms = Terms(spec.id, voters, lease_s=lease_s, stop_s=stop_s)
        self.name = spec.id
        self._names = Names.of(spec.id)
        check_service(self._names.singleton)
        self._spec = _in_time(spec, _ASKED * stop_s, name=self._names.singleton)
        self._remote = remote
        self._stands = stands
        check_names("prefer", prefer)
        self._prefer = tuple(prefer)
        self._changed = trio.Event()

    # --- as a part of a cluster -----------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with what other nodes say."""
        return {self._names.singleton: Service(Said, tell=self._told)}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its processes are started."""
        names = self._names
        runner = Runner(
            self._spec, stage=names.stage, server=names.server, holds=self._holds
        )
        serve = partial(
            SingletonServer,
            self.terms,
            peers,
            self._remote,
            stands=self._stands,
            prefer=self._prefer,
            wake=self._wake,
        )
        children = [
            ChildSpec(id="server", start=serve, name=names.server),
            ChildSpec(
                id="runner", start=lambda: PlainProcess(runner.run), name=names.runner
            ),
            ChildSpec(id="stage", start=DynamicSupervisor, name=names.stage),
        ]
        return ChildSpec(
            id=names.singleton,
            start=lambda: Supervisor(children, strategy=Strategy.REST_FOR_ONE),
        )

    # --- to look at -----------------------------------------------------------------

    @property
    def holder(self) -> str | None:
        """Which node runs it, as far as is known here; None: none."""
        server = _server(self._names)
        return None if server is None else server.holder or None

    def why(self) -> str:
        """Return, in words, why it does not run on this node; or that it does."""
        server = _server(self._names)
        return _CLOSED if server is None else server.standing().why()

    def token(self) -> int:
        """Return the number of the term by which this node may act, now.

        It is greater than that of any term before: who is acted upon can keep the
        largest that it has seen, and refuse what comes with a smaller one.

        Raises:
            NotHolderError: it may not; the singleton is about to be stopped, if it
                runs here.
        """
        server = _server(self._names)
        token = None if server is None else server.token()
        if token is None:
            raise NotHolderError(self.name, self.why())
        return token

    async def wait_running(self, *, timeout_s: float) -> str:
        """Wait until a node is known to run it; return its name.

        Raises:
            SingletonTimeoutError: none was.
        """
        # First: who need not wait needs no time.
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(timeout_s):
            while not (holder := self.holder):
                await self._changed.wait()
            return holder
        raise SingletonTimeoutError(self.name, self.why(), timeout_s)

    def hand_over(self, to: str = "") -> bool:
        """Stop it here, and let another node run it.

        Args:
            to: which; empty: the best of ``prefer`` that would, or any.

        Returns:
            Whether it runs here, so that there is something to hand over.
        """
        server = _server(self._names)
        if server is None or server.token() is None:
            return False
        send(self._names.server, HandOver(to))
        return True

    # --- for its own processes ------------------------------------------------------

    def _told(self, link: Link, said: Said) -> None:
        if whereis(self._names.server) is not None:
            send(self._names.server, Heard(link.peer.name, said))

    def _holds(self, epoch: int) -> bool:
        server = _server(self._names)
        return server is not None and server.token() == epoch

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _in_time(spec: ChildSpec, most_s: float, *, name: str) -> ChildSpec:
    """Return the specification with a shutdown that ends before the lease does."""
    if spec.shutdown is BRUTAL_KILL:
        return attrs.evolve(spec, name=name)
    given = most_s if spec.shutdown is None else spec.shutdown
    assert isinstance(given, float | int)
    return attrs.evolve(spec, name=name, shutdown=min(given, most_s))


_CLOSED = "the cluster is not open on this node"


def _server(names: Names) -> SingletonServer | None:
    process = find_process(names.server)
    behaviour = None if process is None else process.behaviour
    return behaviour if isinstance(behaviour, SingletonServer) else None


@attrs.frozen
class _Via(Via):
    name: str

    def __repr__(self) -> str:
        return f"singleton {self.name!r}"

    def whereis(self) -> Pid | None:
        server = _server(Names.of(self.name))
        return None if server is None else server.address()

    def register(self, pid: Pid) -> NoReturn:
        raise ValueError(
            f"{self!r}: {pid!r} cannot have it; it is given by a majority of voters"
        )

    def unregister(self, pid: Pid) -> None:
        """Do nothing: nobody was given it here."""


def via(name: str) -> Via:
    """Return the address of a singleton, wherever it runs, looked up at each use.

    Works on nodes that have the :class:`ClusterSingleton` of that name.  Where it
    runs nowhere, or nobody knows where, nobody is there.
    """
    return _Via(name)
