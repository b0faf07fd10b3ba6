"""The runtime ``pool``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from atomr_infer.pipeline.asking.plugin import AskingPlugin
from atomr_infer.pipeline.pools.pool import PoolOptions
from atomr_infer.pipeline.pools.pool_runner import ModelReplicaPool

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.runtimes.others import Others


class PoolPlugin(AskingPlugin[PoolOptions]):
    """Deployments that ask one of several others."""

    name = "pool"
    summary = "one of several deployments, by turns or by load; who fails is left alone"
    options = PoolOptions

    def _open(
        self, name: str, options: PoolOptions, others: Others
    ) -> AbstractAsyncContextManager[ModelReplicaPool]:
        return nullcontext(ModelReplicaPool(name, options, others))


POOL = PoolPlugin()
