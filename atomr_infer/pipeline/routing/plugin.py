"""The runtime ``router``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from atomr_infer.pipeline.asking.functions import find_function
from atomr_infer.pipeline.asking.plugin import AskingPlugin
from atomr_infer.pipeline.routing.gating import RouterOptions
from atomr_infer.pipeline.routing.router import MoeRouter

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.runtimes.others import Others


class RouterPlugin(AskingPlugin[RouterOptions]):
    """Deployments that ask a specialist."""

    name = "router"
    summary = "the specialist that a request is for, by rules, a model or a function"
    options = RouterOptions

    def _check(self, options: RouterOptions) -> None:
        if isinstance(options.gate, str):
            find_function(options.gate, what="gate")

    def _open(
        self, name: str, options: RouterOptions, others: Others
    ) -> AbstractAsyncContextManager[MoeRouter]:
        return nullcontext(MoeRouter(options, others))


ROUTER = RouterPlugin()
