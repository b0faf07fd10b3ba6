"""Processes of other nodes: the part of a cluster that makes pids reach across.

:class:`RemoteProcesses` knows the other nodes in their lives, and what goes on over
the link with each.  It is called by pids that are used here and by the links; its
process only says that it is there.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from atomr.cluster.peers import PeerUp
from atomr.cluster.remote import frames
from atomr.cluster.remote.codec import Codec, PidForm
from atomr.cluster.remote.incoming import handle
from atomr.cluster.remote.messages import Messages
from atomr.cluster.remote.node_monitors import NodeMonitors
from atomr.cluster.remote.pids import Life, RemotePid
from atomr.cluster.remote.reasons import encodable
from atomr.cluster.remote.session import SERVICE, Session
from atomr.core.checks import check_async
from atomr.core.child_spec import ChildSpec
from atomr.core.start_arguments import mismatch
from atomr.crdt.origin import Origin
from atomr.errors import NoNodeError, SpawnRefusedError, short
from atomr.http2 import Reason, Service
from atomr.otp.gen_server import GenServer
from atomr.otp.results import Fail, Reply
from atomr.process.context import check_local, current_node, find_process
from atomr.process.plain import PlainProcess
from atomr.refs import Pid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from atomr.cluster.peers import PeerEvent, Peers
    from atomr.cluster.remote.frames import Frame, Target
    from atomr.http2 import Link
    from atomr.process.calls import From
    from atomr.process.node import Node

NAME: Final = "atomr.remote"
"""What its process is registered as on each node."""

_NOT_THERE: Final = (
    "RemoteProcesses() does not run: it must be among the services of open_cluster(),"
    " before its users, as in [remote, replicator, registry]"
)

MAX_NAMED: Final = 1024
"""Names on other nodes whose addresses are kept; then all are looked up again."""


class RemoteProcesses:
    """The processes of all other nodes, as one node sees them.

    Args:
        messages: which types of messages cross, besides plain values.
        spawns: the async functions that other nodes may run here as processes, by the
            names that ``spawn_on`` is given; none but these.

    Raises:
        TypeError: the messages are no ``Messages``, or a spawn is no async function.

    Attributes:
        spawns: the same.
        dropped: messages of ours that were not sent, by why: ``busy``: too much waited
            for their node; ``no_connection``; ``unsendable``: sent by a timer, and no
            message that crosses.
        refused: messages of other nodes that were not delivered, by why:
            ``unknown_message``, ``bad_message``, ``mailbox_full``.
        monitors: who is told of nodes that come and go.
    """

    def __init__(
        self,
        messages: Messages | None = None,
        *,
        spawns: Mapping[str, Callable[..., Awaitable[object]]] = MappingProxyType({}),
    ) -> None:
        if messages is not None and not isinstance(messages, Messages):
            raise TypeError(
                f"RemoteProcesses({short(messages)}): expected Messages, as in"
                " RemoteProcesses(Messages(Sell, Buy))"
            )
        for name, fn in spawns.items():
            check_async(f"RemoteProcesses(): spawns[{name!r}]", fn)
        self.spawns = dict(spawns)
        self.dropped: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.monitors = NodeMonitors()
        self._codec = Codec(messages or Messages(), form=self._form, pid=self._pid)
        self._lives: WeakValueDictionary[Origin, Life] = WeakValueDictionary()
        self._sessions: dict[Link, Session] = {}
        self._latest: dict[str, int] = {}
        self._boots: set[int] = set()
        # Whoever uses a name holds no pid: it would be made anew each time.
        self._named: dict[tuple[str, str], RemotePid] = {}
        self._node: Node | None = None
        self._peers: Peers | None = None
        self._watching = ExitStack()

    # --- as a part of the cluster -----------------------------------------------------

    @property
    def shares_life(self) -> bool:
        """Nothing of it is tied to the boot id."""
        return False

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with what other nodes say about processes."""
        return {SERVICE: Service(frames.Frame, tell=self._told)}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        return ChildSpec(id="remote", start=lambda: _Server(self, peers), name=NAME)

    def open(self, node: Node, peers: Peers) -> None:
        """Begin, or begin again."""
        self._watching.close()
        self._node, self._peers = node, peers
        self._boots.add(peers.origin.boot)
        self._seen(peers.origin)
        self._watching.enter_context(peers.watch(self._on_peer))

    def close(self) -> None:
        """Watch the other nodes no longer; what holds, holds as long as its link."""
        self._watching.close()

    # --- who is there -----------------------------------------------------------------

    @property
    def peers(self) -> Peers:
        """The other nodes.

        Raises:
            NoNodeError: it was not started.
        """
        if self._peers is None:
            raise NoNodeError(_NOT_THERE)
        return self._peers

    @property
    def node(self) -> Node:
        """Ours.

        Raises:
            NoNodeError: it was not started.
        """
        if self._node is None:
            raise NoNodeError(_NOT_THERE)
        return self._node

    def name_of(self, node: str, name: str) -> Pid | None:
        """Return the address of whoever has a name on a node; None: nobody, here."""
        known = self._named.get((node, name))
        if known is not None and known.life.session is not None:
            # A link is with the present life.
            return known
        peers = self.peers
        if node == peers.origin.name:
            process = self.node.names.get(name)
            return None if process is None else process.pid
        peer = peers.get(node)
        if peer is None:
            # One that was never seen is as far away as one that has left.
            peer = Origin(node, self._latest.get(node, 0))
        pid = self.life(peer).pid(name)
        if len(self._named) >= MAX_NAMED:
            self._named.clear()
        self._named[node, name] = pid
        return pid

    def life(self, origin: Origin) -> Life:
        """Return one life of a node."""
        life = self._lives.get(origin)
        if life is None:
            over = origin.boot < self._latest.get(origin.name, 0)
            life = self._lives[origin] = Life(
                origin,
                self.node,
                over=over,
                find_session=self._find_session,
                dropped=self.dropped,
                refused=self.refused,
            )
        return life

    def _seen(self, origin: Origin) -> None:
        """Note a life; the processes of those before it are gone."""
        if origin.boot <= self._latest.get(origin.name, -1):
            return
        self._latest[origin.name] = origin.boot
        for life in tuple(self._lives.values()):
            if life.origin.name == origin.name and life.origin.boot < origin.boot:
                life.over = True
                _end_link(life, "a later life of that node is known")

    def _on_peer(self, event: PeerEvent) -> None:
        if isinstance(event, PeerUp):
            self._seen(event.peer)
        self.monitors.tell(event)

    # --- sessions ---------------------------------------------------------------------

    def _told(self, link: Link, frame: Frame) -> None:
        # By the link, as it is the path of each frame.
        session = self._sessions.get(link)
        if session is None:
            if link.down is not None:
                return
            session = self._begin(self.life(link.peer), link)
        handle(session, frame)

    def _find_session(self, life: Life) -> Session | None:
        session = life.session
        if session is not None and session.link.down is None:
            return session
        link = self.peers.link(life.origin)
        if link is None or link.down is not None:
            return None
        return self._begin(life, link)

    def _begin(self, life: Life, link: Link) -> Session:
        _end_link(life, "there is another link with that node")
        self._seen(life.origin)
        name = self.peers.origin.name
        session = Session(life, link, node_name=name, codec=self._codec)
        life.session = self._sessions[link] = session
        link.on_down(partial(self._end, link))
        return session

    def _end(self, link: Link) -> None:
        self._sessions.pop(link).end()

    # --- pids -------------------------------------------------------------------------

    def _form(self, pid: Pid) -> PidForm:
        label = encodable(pid.label[: frames.MAX_NAME_CHARACTERS])
        if isinstance(pid, RemotePid):
            origin = pid.life.origin
            return PidForm(origin.name, origin.boot, pid.target, label)
        process = find_process(pid)
        if process is not None:
            check_local(process, self.node, "a message to another node")
        elif pid.number in self.node.processes:
            # No number is used twice: this one is somebody else's here.
            raise ValueError(f"{pid!r} was of another node than {self.node.name!r}")
        origin = self.peers.origin
        return PidForm(origin.name, origin.boot, pid.number, label)

    def _pid(self, form: PidForm) -> Pid:
        return self.pid_of(Origin(form.node, form.boot), form.target, form.label)

    def pid_of(self, origin: Origin, target: Target, label: str = "") -> Pid:
        """Return the pid of a process of any node, this one too.

        Args:
            origin: its node, in the life that has the process.
            target: its number there, or its name.
            label: what it is, for people.

        Raises:
            NoNodeError: the cluster is not open.
        """
        if origin.name != self.peers.origin.name or origin.boot not in self._boots:
            return self.life(origin).pid(target, label)
        node = self.node
        if isinstance(target, str):
            process, number = node.names.get(target), 0
        else:
            process, number = node.processes.get(target), target
        return Pid(number, label) if process is None else process.pid


def _end_link(life: Life, detail: str) -> None:
    # With the link, as the other side must know that what we held has ended.
    if life.session is not None:
        life.session.link.end(Reason.REPLACED, detail)


class _Server(GenServer):
    """The process that says that it is there."""

    def __init__(self, remote: RemoteProcesses, peers: Peers) -> None:
        self.remote = remote
        self._peers = peers

    def init(self) -> None:
        self.remote.open(current_node(), self._peers)

    def terminate(self, reason: object) -> None:
        self.remote.close()

    # Whoever reaches this node can say anything to this process: it lives on.

    def handle_call(self, request: object, from_: From) -> Reply | Fail:
        match request:
            case ("spawn", str(name), tuple(args)):
                return self._spawn(name, args)
            case _:
                return Fail(ValueError("it takes no such request"))

    def handle_cast(self, message: object) -> None:
        self.handle_info(message)

    def _spawn(self, name: str, args: tuple[object, ...]) -> Reply | Fail:
        node = self.remote.peers.origin.name
        fn = self.remote.spawns.get(name)
        if fn is None:
            refusal = (
                "it is not allowed there: RemoteProcesses(...,"
                f" spawns={{{short(name)}: fn}}) on {node} allows it"
            )
            return Fail(SpawnRefusedError(node, name, refusal))
        problem = mismatch(fn, args)
        if problem is not None:
            return Fail(SpawnRefusedError(node, name, str(problem)))
        behaviour = PlainProcess(fn, *args)
        return Reply(self.remote.node.spawn(behaviour, label=name, name=None))


def remote_processes(operation: object) -> RemoteProcesses:
    """Return those of the current node.

    Args:
        operation: who asks, for the error.

    Raises:
        NoNodeError: there is no node around, or it is in no cluster.
    """
    process = find_process(NAME)
    if process is None or not isinstance(process.behaviour, _Server):
        raise NoNodeError(
            f"{operation}: {current_node()!r} is in no cluster, or has no"
            " RemoteProcesses() among the services of open_cluster()"
        )
    return process.behaviour.remote
