"""PubSub across nodes: a message goes once to each node that has a subscriber.

::

    news = ClusterPubSub("news", replicator, messages=str)
    ...
    news.subscribe("weather")                    # in a process, on any node
    news.broadcast("weather", "rain")            # on any node

Which node has subscribers of which topic is replicated; messages are not.  They go
over the links, each once for each node, and there into the mailboxes of subscribers.
Nothing is kept: who subscribes later, is out of reach or too busy does not get it.

A subscription is known here at once, elsewhere some milliseconds later.

Source: ``Phoenix.PubSub``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import attrs
import msgspec

from atomr import telemetry
from atomr.cluster.pubsub.frames import Published
from atomr.cluster.pubsub.server import PubSubServer
from atomr.core.checks import check_text
from atomr.errors import MailboxFullError
from atomr.http2 import Service
from atomr.http2.services import check_service
from atomr.otp import child
from atomr.process import send
from atomr.process.context import current_process, living_process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import UnionType

    from atomr.cluster.peers import Peers
    from atomr.cluster.replicator import Replicator
    from atomr.core.child_spec import ChildSpec
    from atomr.http2 import Link
    from atomr.refs import Pid

M = TypeVar("M")


@attrs.frozen
class Reach:
    """Where a message went.

    Attributes:
        processes: subscribers of this node that have it in their mailboxes.
        nodes: others that it was sent to; each at most once.
        lost: nodes and processes that did not take it, as too much waits for them.
    """

    processes: int = 0
    nodes: int = 0
    lost: int = 0


class ClusterPubSub(Generic[M]):
    """A pubsub of the cluster, as code of one node sees it; see the module.

    It is a part of the cluster that comes after its replicator.

    Args:
        name: nodes share topics with those of the same name.
        replicator: what holds who has subscribers.
        messages: the type of what is published, or a union of several: whatever
            msgspec can encode and decode.

    Attributes:
        name: the same.
        topics: which node has subscribers of which topic.
        local: how often each process of this node subscribed to each topic.

    Raises:
        TypeError: (at once) msgspec cannot decode such messages.
        ValueError: (at once) the name is too long.
    """

    shares_life: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        replicator: Replicator,
        *,
        messages: type[M] | UnionType,
    ) -> None:
        check_text("name", name)
        self.name = name
        self.service_name = f"pubsub {name}"
        check_service(self.service_name)
        self.topics = replicator.open_owned(self.service_name)
        self.local: dict[str, dict[Pid, int]] = {}
        self._replicator = replicator
        self._peers: Peers | None = None
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(messages)
        self._encode = msgspec.msgpack.Encoder().encode

    # --- as a part of a cluster -----------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages."""
        return {self.service_name: Service(Published, tell=self._told)}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        self._peers = peers
        return child(lambda: PubSubServer(self), id=self.service_name)

    # --- subscribing ----------------------------------------------------------------

    def subscribe(self, topic: str) -> None:
        """Let the running process get what is published from now on.

        Who subscribes twice gets it twice.

        Raises:
            NotAProcessError: the running task belongs to no process.
            NotReplicatingError: the replicator does not run.
            BadKeyError: the topic is too long.
        """
        check_text("topic", topic)
        process = living_process(f"subscribe({topic!r})")
        self._replicator.running()
        if topic not in self.local:
            self.topics.put(topic, 1)
        pids = self.local.setdefault(topic, {})
        pids[process.pid] = pids.get(process.pid, 0) + 1
        if process.on_end is None:
            process.on_end = {}
        process.on_end[self, topic] = partial(self._drop, topic, process.pid)

    def unsubscribe(self, topic: str) -> bool:
        """Undo all of the process' subscriptions; return whether it had any."""
        process = current_process(f"unsubscribe({topic!r})")
        if process.on_end is not None:
            process.on_end.pop((self, topic), None)
        return self._drop(topic, process.pid)

    def subscribers(self, topic: str) -> tuple[Pid, ...]:
        """Return this node's subscribers, each once."""
        return tuple(self.local.get(topic, ()))

    # --- publishing -----------------------------------------------------------------

    def broadcast(self, topic: str, message: M) -> Reach:
        """Send to all subscribers of all nodes in sight.

        What one process publishes arrives in that order, at each subscriber.

        Raises:
            TypeError: the message cannot be encoded; it went nowhere.
            LinkMessageError: it is longer than 1 MiB; it went to subscribers of this
                node, and nowhere else.
        """
        nodes = self._nodes(topic)
        # Also where there is nobody else: what cannot be sent is found at once.
        published = Published(topic, msgspec.Raw(self._encode(message)))
        here = self.local_broadcast(topic, message)
        sent = 0
        if self._peers is not None:
            tell = self._peers.tell
            sent = sum(tell(node, self.service_name, published) for node in nodes)
        lost = len(nodes) - sent
        if lost:
            self._report_loss(topic, lost)
        return Reach(here.processes, sent, here.lost + lost)

    def local_broadcast(self, topic: str, message: M) -> Reach:
        """Send to the subscribers of this node alone."""
        processes = lost = 0
        for pid, times in list(self.local.get(topic, {}).items()):
            for _ in range(times):
                try:
                    send(pid, message)
                    processes += 1
                except MailboxFullError:
                    lost += 1
        if lost:
            self._report_loss(topic, lost)
        return Reach(processes, lost=lost)

    # --- for its own process --------------------------------------------------------

    def put_again(self) -> None:
        """Put this node's topics, and remove those without subscribers."""
        node = self._replicator.running().core.node
        for topic, owner, _ in list(self.topics.items()):
            if owner == node and topic not in self.local:
                self.topics.remove(topic)
        for topic in self.local:
            if node not in self.topics.owners(topic):
                self.topics.put(topic, 1)

    def _nodes(self, topic: str) -> list[Any]:
        if self._replicator.server is None:
            return []
        ours = self._replicator.server.core.node
        return [node for node in self.topics.owners(topic) if node != ours]

    def _told(self, link: Link, published: Published) -> None:
        if published.topic not in self.local:
            return
        try:
            message = self._decoder.decode(published.body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            telemetry.emit(
                ("atomr", "pubsub", "refused"),
                metadata={"name": self.name, "peer": link.peer, "problem": str(error)},
            )
            return
        self.local_broadcast(published.topic, message)

    def _drop(self, topic: str, pid: Pid) -> bool:
        pids = self.local.get(topic, {})
        if pids.pop(pid, None) is None:
            return False
        if not pids:
            del self.local[topic]
            if self._replicator.server is not None:
                self.topics.remove(topic)
        return True

    def _report_loss(self, topic: str, lost: int) -> None:
        telemetry.emit(
            ("atomr", "pubsub", "lost"),
            {"count": lost},
            {"name": self.name, "topic": topic},
        )
