"""Messages for whoever subscribed to their topic, on any node."""

from atomr.cluster.pubsub.pubsub import ClusterPubSub, Reach

__all__ = ["ClusterPubSub", "Reach"]
