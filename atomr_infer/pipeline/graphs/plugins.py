"""The runtimes ``hybrid`` and ``tiers``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from atomr_infer.pipeline.asking.plugin import AskingPlugin
from atomr_infer.pipeline.graphs.hybrid import HybridGraph
from atomr_infer.pipeline.graphs.options import HybridOptions, TierOptions
from atomr_infer.pipeline.graphs.tiers import TieredRouter

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.runtimes.others import Others


class HybridPlugin(AskingPlugin[HybridOptions]):
    """Deployments that answer here, and plan elsewhere."""

    name = "hybrid"
    summary = "a local router and executor, a remote planner, and fallbacks for both"
    options = HybridOptions

    def _open(
        self, name: str, options: HybridOptions, others: Others
    ) -> AbstractAsyncContextManager[HybridGraph]:
        return nullcontext(HybridGraph(options, others))


class TiersPlugin(AskingPlugin[TierOptions]):
    """Deployments that ask the best model that a request can pay."""

    name = "tiers"
    summary = "the best of several models that a request's budget allows"
    options = TierOptions

    def _open(
        self, name: str, options: TierOptions, others: Others
    ) -> AbstractAsyncContextManager[TieredRouter]:
        return nullcontext(TieredRouter(options, others))


HYBRID = HybridPlugin()
TIERS = TiersPlugin()
