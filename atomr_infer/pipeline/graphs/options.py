"""Options of ready compositions: the hybrid agent, and the tiers of a price.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.model.validation import at_least, non_empty, positive
from atomr_infer.pipeline.asking.options import from_table, names, one_of, tables
from atomr_infer.pipeline.routing.gating import Gate

if TYPE_CHECKING:
    from atomr_infer.model.cost import CostEstimate

PLAN = "plan"
"""How a router's reply begins when a request needs a plan."""

_ROUTER_PROMPT = (
    "Does this request need a plan of several steps, or can it be answered at once?\n"
    "Reply with one word: plan or answer.\n\nRequest:\n{question}"
)
_PLAN_PROMPT = (
    "Write a short plan for how to answer this request, as numbered steps.\n"
    "Do not answer it.\n\nRequest:\n{question}"
)
_EXECUTE_PROMPT = "Answer by following this plan:\n{plan}"


def _router(given: object) -> Gate:
    table = {"model": given} if isinstance(given, str) else given
    if isinstance(table, Mapping):
        table = {"prompt": _ROUTER_PROMPT, **table}
    return from_table(Gate, table, where="router")


@attrs.frozen(kw_only=True)
class HybridOptions:
    """A hybrid agent: what is easy is answered here, and what is hard is planned away.

    Attributes:
        router: the model that is asked whether a request needs a plan, or a table
            with ``model``, ``prompt``, ``max_tokens`` and ``timeout_s``; one that
            fails says no.
        executor: the model that answers, with a plan or without.
        planner: the model that plans.
        fallbacks: the models that are asked in place of the planner, or the
            executor, where that fails; in order.
        plan_prompt: what the planner is asked; ``{question}`` is put in.
        execute_prompt: what the executor is told before the conversation; ``{plan}``
            is put in.
        max_plan_tokens: the longest plan; one that has not ended by then is none,
            and the next model is asked.
        plan_timeout_s: how long one model may take for a plan.
    """

    router: Gate = attrs.field(converter=_router)
    executor: str = attrs.field(validator=non_empty)
    planner: str = attrs.field(validator=non_empty)
    fallbacks: tuple[str, ...] = attrs.field(default=(), converter=names)
    plan_prompt: str = attrs.field(default=_PLAN_PROMPT, validator=non_empty)
    execute_prompt: str = attrs.field(default=_EXECUTE_PROMPT, validator=non_empty)
    max_plan_tokens: int = attrs.field(default=400, validator=at_least(1))
    plan_timeout_s: float = attrs.field(default=60.0, validator=positive)

    def __attrs_post_init__(self) -> None:
        for name, word in (("plan_prompt", "question"), ("execute_prompt", "plan")):
            if f"{{{word}}}" not in getattr(self, name):
                raise ConfigError(f"{name} has no {{{word}}} in it")

    def asks(self) -> tuple[str, ...]:
        """The models that may be asked, each once."""
        models = (self.router.model, self.executor, self.planner, *self.fallbacks)
        return tuple(dict.fromkeys(models))

    def planners(self) -> tuple[str, ...]:
        """Who is asked for a plan, in order."""
        return tuple(dict.fromkeys((self.planner, *self.fallbacks)))

    def executors(self) -> tuple[str, ...]:
        """Who is asked for the answer, in order."""
        return tuple(dict.fromkeys((self.executor, *self.fallbacks)))


@attrs.frozen(kw_only=True)
class Tier:
    """A model, and what a request may cost there.

    Attributes:
        model: its public name.
        max_usd: the most that a request may cost there; None: what all tiers may.
    """

    model: str = attrs.field(validator=non_empty)
    max_usd: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(positive)
    )


def _tiers(given: object) -> tuple[Tier, ...]:
    return tables(Tier, given, where="tiers")


@attrs.frozen(kw_only=True)
class TierOptions:
    """Tiers: the best model that a request's budget allows.

    Attributes:
        tiers: the best one first: premium, standard, fast, cheap; each a table, or a
            model's name.
        budget_usd: the most that one request may cost, in dollars.
        exhausted: what becomes of a request that no tier can serve for that.
            ``cheapest``: the last tier answers; ``error``: it is refused.
    """

    tiers: tuple[Tier, ...] = attrs.field(converter=_tiers)
    budget_usd: float = attrs.field(validator=positive)
    exhausted: str = attrs.field(
        default="cheapest", validator=one_of("cheapest", "error")
    )

    def __attrs_post_init__(self) -> None:
        if len(self.tiers) < 2:
            raise ConfigError("tiers must be two at least")

    def asks(self) -> tuple[str, ...]:
        """The models that may be asked, each once."""
        return tuple(dict.fromkeys(tier.model for tier in self.tiers))

    def too_dear(self, tier: Tier, estimate: CostEstimate | None) -> str | None:
        """Return why a request's budget does not allow a tier; None: it does."""
        if estimate is None or estimate.high is None:
            return "its cost is not known"
        limit = self.budget_usd if tier.max_usd is None else tier.max_usd
        if float(estimate.high.usd) <= min(limit, self.budget_usd):
            return None
        return f"it may cost ${estimate.high.usd_text}"
