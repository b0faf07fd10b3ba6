"""The runtime ``batching``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.pipeline.asking.plugin import AskingPlugin
from atomr_infer.pipeline.batching.queue import BatchingOptions
from atomr_infer.pipeline.batching.runner import BatchingRunner, open_batching

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.runtimes.others import Others


class BatchingPlugin(AskingPlugin[BatchingOptions]):
    """Deployments that ask another one for many requests at once."""

    name = "batching"
    summary = "another deployment, asked for the texts of many requests at once"
    options = BatchingOptions

    def _open(
        self, name: str, options: BatchingOptions, others: Others
    ) -> AbstractAsyncContextManager[BatchingRunner]:
        return open_batching(options, others)


BATCHING = BatchingPlugin()
