"""The runtime ``cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.pipeline.asking.plugin import AskingPlugin
from atomr_infer.pipeline.caching.cache import CacheRunner, open_cache
from atomr_infer.pipeline.caching.options import CacheOptions

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.runtimes.others import Others


class CachePlugin(AskingPlugin[CacheOptions]):
    """Deployments that give an answer again."""

    name = "cache"
    summary = "another deployment's answers, given again to requests that are the same"
    options = CacheOptions

    def _open(
        self, name: str, options: CacheOptions, others: Others
    ) -> AbstractAsyncContextManager[CacheRunner]:
        return open_cache(options, others)


CACHE = CachePlugin()
