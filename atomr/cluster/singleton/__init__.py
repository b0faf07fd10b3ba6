"""A process of which the cluster has one at most, and one while a majority is there.

::

    billing = ClusterSingleton(
        child(Billing, id="billing"), remote, voters=("ams-1", "ams-2", "ams-3")
    )
    async with open_cluster(options, [remote, billing]):
        await call(singleton.via("billing"), Charge(5))      # on any node

``docs/reference/singleton.md`` has the promise.
"""

from atomr.cluster.singleton.errors import NotHolderError, SingletonTimeoutError
from atomr.cluster.singleton.singleton import ClusterSingleton, via

__all__ = ["ClusterSingleton", "NotHolderError", "SingletonTimeoutError", "via"]
