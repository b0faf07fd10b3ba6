"""The figures that engines tell of themselves, as families.

Each is asked for a moment.  One that does not answer costs its own figures, and is
told of: a scrape shows an engine that is stuck, and does not wait for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import InferenceError
from atomr_infer.model.figures import Kind
from atomr_infer.runtimes.metered import Metered

if TYPE_CHECKING:
    from atomr_infer.gateway.admin.metrics.table import Table
    from atomr_infer.model.figures import Figure
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

ASKED_S = 1.0
"""How long an engine has to tell its figures."""

Which = tuple[str, int]
"""A deployment and the number of its replica."""


async def add_engines(table: Table, serving: Serving) -> None:
    """Ask all engines of this node, and put in what they tell."""
    found: dict[Which, tuple[Figure, ...] | None] = {}
    async with trio.open_nursery() as nursery:
        for name in serving.deployments:
            for replica in serving.replicas(name):
                engine = replica.permits.engine
                if engine is not None and isinstance(engine.runner, Metered):
                    which = (name, replica.number)
                    nursery.start_soon(_ask, engine.runner, which, found)
    for (name, number), figures in sorted(found.items()):
        of = {"deployment": name, "replica": number}
        told = "Whether an engine has told its figures."
        table.gauge("engine_told", told, figures is not None, **of)
        for figure in figures or ():
            put = table.gauge if figure.kind is Kind.GAUGE else table.count
            put(f"engine_{figure.name}", figure.help, figure.value, **of)


async def _ask(
    runner: Metered, which: Which, found: dict[Which, tuple[Figure, ...] | None]
) -> None:
    found[which] = None
    with trio.move_on_after(ASKED_S):
        try:
            found[which] = await runner.figures()
        except InferenceError as error:
            log.warning("%s/%d told no figures: %s", *which, error)
        except Exception:
            log.exception("%s/%d told no figures", *which)
        return
    log.warning("%s/%d told no figures in %g s", *which, ASKED_S)
