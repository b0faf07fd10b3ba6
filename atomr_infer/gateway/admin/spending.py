"""The operators' routes for what may be used: budgets, rate limits, and what was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.gateway.admin.refused import RefusedError, json_answer
from atomr_infer.serving.limiters import limits_shown
from atomr_infer.store.trouble import StoreError
from atomr_infer.store.usage import BY, By

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from quart import Response

    from atomr_infer.serving.shared import Serving

    View = Callable[..., Awaitable[Response]]


class SpendingRoutes:
    """The routes over one serving tree."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def routes(self) -> Iterator[tuple[str, str, View]]:
        """Give each route's method, path and view."""
        by = f"<any({','.join(BY)}):by>"
        yield "GET", "/admin/budgets", self._budgets
        yield "GET", "/admin/limits", self._limits
        yield "GET", f"/admin/usage/{by}/<int:since_s>", self._usage

    async def _budgets(self) -> Response:
        return json_answer({"budgets": self._serving.budgets.shown()})

    async def _limits(self) -> Response:
        shown = [attrs.asdict(limit) for limit in limits_shown(self._serving)]
        return json_answer({"node": self._serving.node.name, "limits": shown})

    async def _usage(self, by: By, since_s: int) -> Response:
        try:
            report = await self._serving.usage.report(by, since_s)
        except StoreError as error:
            raise RefusedError(503, "usage_not_kept", str(error)) from error
        return json_answer(
            {
                "by": by,
                "since_s": since_s,
                "usage": msgspec.to_builtins(report.sums),
                **attrs.asdict(report, filter=attrs.filters.exclude("sums")),
            }
        )
