"""The pubsub's process: it says again which topics have subscribers here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomr.otp import GenServer

if TYPE_CHECKING:
    from atomr.cluster.pubsub.pubsub import ClusterPubSub


class PubSubServer(GenServer):
    """The process of a pubsub; its memory is with that."""

    def __init__(self, pubsub: ClusterPubSub[Any]) -> None:
        self._pubsub = pubsub

    def init(self) -> None:
        """Put this node's topics.

        Raises:
            NotReplicatingError: the replicator does not run: it comes first.
        """
        self._pubsub.put_again()

    def format_status(self) -> object:
        """Return how many topics have subscribers here."""
        return {"topics": len(self._pubsub.local)}
