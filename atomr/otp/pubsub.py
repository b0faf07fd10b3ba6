"""PubSub: messages for whoever subscribed to their topic.

::

    news: PubSub[str] = PubSub("news")
    await node.start(child(PubSub.registry, id="news", name="news"))
    news.subscribe("weather")          # in a process
    news.broadcast("weather", "rain")  # anywhere on the node

A broadcast puts the message into each subscriber's mailbox, with no process
in between, in the order of the subscriptions.  Who subscribed twice gets it
twice.  A subscription goes with its process.  Nothing is kept for those who
subscribe later.

Source: ``Phoenix.PubSub``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from atomr.otp.registry import Keys, Registry, RegistryRef
from atomr.process.signals import self_pid, send

if TYPE_CHECKING:
    from atomr.refs import Name, Pid

M = TypeVar("M")


class PubSub(Generic[M]):
    """The name of a pubsub, and what its messages are, for type checkers.

    Args:
        name: of the process that :meth:`registry` makes.

    Raises:
        NoRegistryError: (all methods) no pubsub runs under that name.
    """

    __slots__ = ("_topics",)

    def __init__(self, name: Name) -> None:
        self._topics: RegistryRef[str, object] = RegistryRef(name)

    @staticmethod
    def registry() -> Registry:
        """Return what a child specification starts."""
        return Registry(Keys.DUPLICATE)

    def subscribe(self, topic: str, metadata: object = None) -> None:
        """Let the running process get what is broadcast from now on.

        Args:
            topic: any text.
            metadata: for :meth:`subscribers`.

        Raises:
            NotAProcessError: the running task belongs to no process.
        """
        self._topics.register(topic, metadata)

    def unsubscribe(self, topic: str) -> bool:
        """Undo all of the process' subscriptions; return whether it had any."""
        return self._topics.unregister(topic)

    def subscribers(self, topic: str) -> tuple[tuple[Pid, object], ...]:
        """Return pid and metadata of each subscription."""
        return self._topics.lookup(topic)

    def broadcast(self, topic: str, message: M) -> int:
        """Send to all subscribers; return how many messages that were.

        Raises:
            MailboxFullError: a subscriber's bounded mailbox refuses; those
                before it in line have the message, those after it have not.
        """
        entries = self._topics.lookup(topic)
        for pid, _ in entries:
            send(pid, message)
        return len(entries)

    def broadcast_from(self, topic: str, message: M) -> int:
        """Send to all subscribers but the running process.

        Raises:
            NotAProcessError: the running task belongs to no process.
            MailboxFullError: as for :meth:`broadcast`.
        """
        own = self_pid()
        others = [pid for pid, _ in self._topics.lookup(topic) if pid is not own]
        for pid in others:
            send(pid, message)
        return len(others)
