"""Groups of processes, whose members may be on any node."""

from atomr.cluster.groups.groups import Joined, Left, ProcessGroups

__all__ = ["Joined", "Left", "ProcessGroups"]
