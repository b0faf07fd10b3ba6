"""Clusters: nodes that know of each other, and what they do together.

``docs/reference/cluster.md`` says how it is used, and
``docs/explanation/clusters.md`` what is promised under partition and what is not.
"""

from atomr.cluster.alone import open_alone
from atomr.cluster.discovery.discovery import Discovery, StaticSeeds
from atomr.cluster.discovery.dns import DnsSeeds, SrvSeeds
from atomr.cluster.discovery.file import FileSeeds
from atomr.cluster.node import Cluster, MemberRow, open_cluster
from atomr.cluster.options import ClusterOptions
from atomr.cluster.peers import MemberChanged, PeerDown, PeerEvent, Peers, PeerUp
from atomr.cluster.service import ClusterService

__all__ = [
    "Cluster",
    "ClusterOptions",
    "ClusterService",
    "Discovery",
    "DnsSeeds",
    "FileSeeds",
    "MemberChanged",
    "MemberRow",
    "PeerDown",
    "PeerEvent",
    "PeerUp",
    "Peers",
    "SrvSeeds",
    "StaticSeeds",
    "open_alone",
    "open_cluster",
]
