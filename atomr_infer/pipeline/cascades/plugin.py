"""The runtime ``cascade``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from atomr_infer.pipeline.asking.plugin import AskingPlugin
from atomr_infer.pipeline.cascades.cascade import InferenceCascade
from atomr_infer.pipeline.cascades.judges import Judges
from atomr_infer.pipeline.cascades.options import CascadeOptions

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.runtimes.others import Others


class CascadePlugin(AskingPlugin[CascadeOptions]):
    """Deployments that ask a cheap model first."""

    name = "cascade"
    summary = "a cheap model first, and a dearer one where its answer will not do"
    options = CascadeOptions

    def _check(self, options: CascadeOptions) -> None:
        Judges(options.stages)

    def _open(
        self, name: str, options: CascadeOptions, others: Others
    ) -> AbstractAsyncContextManager[InferenceCascade]:
        return nullcontext(InferenceCascade(options, others, Judges(options.stages)))


CASCADE = CascadePlugin()
