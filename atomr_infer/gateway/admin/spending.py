"""The operators' routes for what may be used: budgets, rate limits, and what was."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

import attrs
import msgspec
from quart import request

from atomr.cluster.budgets import BudgetsError, ReclaimError, UnknownBudgetError
from atomr_infer.gateway.admin.refused import RefusedError, json_answer
from atomr_infer.gateway.admin.standing import shown_budgets, shown_limits
from atomr_infer.model.prices import microusd_up
from atomr_infer.store.trouble import StoreError
from atomr_infer.store.usage import BY, By

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from quart import Response

    from atomr_infer.gateway.admin.shown import Shown
    from atomr_infer.serving.shared import Serving
    from atomr_infer.store.usage import UsageSum

    View = Callable[..., Awaitable[Response]]


log = logging.getLogger(__name__)

_Units = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class _Reclaim(msgspec.Struct, forbid_unknown_fields=True):
    """What is known of ledgers whose files are lost.

    Attributes:
        ledger: the budget's period, as ``GET /admin/budgets`` names it.
        spent: what each lost one spent of it, by its id.
        gone: nodes that will not come back.
    """

    ledger: str
    spent: dict[str, _Units]
    gone: list[str] = []


_decode = msgspec.json.Decoder(_Reclaim).decode


class SpendingRoutes:
    """The routes over one serving tree."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def routes(self) -> Iterator[tuple[str, str, View]]:
        """Give each route's method, path and view."""
        by = f"<any({','.join(BY)}):by>"
        yield "GET", "/admin/budgets", self._budgets
        yield "POST", "/admin/budgets/reclaim", self._reclaim
        yield "GET", "/admin/limits", self._limits
        yield "GET", f"/admin/usage/{by}/<int:since_s>", self._usage

    async def _budgets(self) -> Response:
        return json_answer({"budgets": shown_budgets(self._serving)})

    async def _reclaim(self) -> Response:
        try:
            asked = _decode(await request.get_data())
        except msgspec.MsgspecError as error:
            raise RefusedError(400, "invalid_value", str(error)) from error
        service = self._serving.budgets.service
        try:
            units = await service.reclaim(asked.ledger, asked.spent, gone=asked.gone)
        except UnknownBudgetError as error:
            raise RefusedError(404, "budget_not_found", str(error)) from error
        except ReclaimError as error:
            raise RefusedError(409, "not_reclaimed", str(error)) from error
        except BudgetsError as error:
            raise RefusedError(503, "budgets_not_kept", str(error)) from error
        log.warning(
            "admin at %s reclaimed %d units of %s from %s",
            request.remote_addr,
            units,
            asked.ledger,
            ", ".join(asked.spent),
        )
        return json_answer({"ledger": asked.ledger, "units": units})

    async def _limits(self) -> Response:
        shown = shown_limits(self._serving)
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
                "usage": [self._shown(by, each) for each in report.sums],
                **attrs.asdict(report, filter=attrs.filters.exclude("sums")),
            }
        )

    def _shown(self, by: By, each: UsageSum) -> Shown:
        """Return a sum; a key is counted by its id, and called by its name."""
        shown = _shown_sum(each)
        if by != "key":
            return shown
        key = self._serving.key_ring.table.keys.get(each.name)
        return {**shown, "called": None if key is None else key.name}


def _shown_sum(each: UsageSum) -> Shown:
    """Return a sum: exact in dollars, and rounded as a budget is in microdollars."""
    shown: Shown = msgspec.to_builtins(each)
    del shown["picousd"]
    microusd = each.microusd + microusd_up(each.picousd)
    return {**shown, "microusd": microusd, "usd": f"{each.usd:f}"}
