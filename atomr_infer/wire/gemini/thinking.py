"""How a Gemini model is told to think: by a level, or by a budget of tokens.

Models since Gemini 3 take ``thinkingLevel``, those before ``thinkingBudget``,
and the oldest neither; what a client of any dialect said becomes what its model
takes.  Between levels and budgets stand the numbers that Google's own
OpenAI-compatible endpoint uses.

Pure.

Source: Gemini API guides, "Thinking" and "OpenAI compatibility".
"""

from __future__ import annotations

import attrs

from atomr_infer.model.asks import Effort, Reasoning
from atomr_infer.model.capabilities import ThinkingStyle

_BUDGETS = {
    Effort.NONE: 0,
    Effort.MINIMAL: 1024,
    Effort.LOW: 1024,
    Effort.MEDIUM: 8192,
    Effort.HIGH: 24576,
    Effort.XHIGH: 24576,
    Effort.MAX: 24576,
}

_ORDER = tuple(Effort)

_DYNAMIC = -1


@attrs.frozen(kw_only=True)
class Thinking:
    """What a model takes.

    Attributes:
        style: LEVEL models are ``EFFORT``, budget models ``BUDGET``; ``NONE``:
            it does not think.
        levels: the efforts that it has a level for, least first.
        min_budget: least tokens of a budget that is not 0.
        max_budget: most tokens of a budget.
        can_be_off: whether it can be told not to think.
    """

    style: ThinkingStyle = ThinkingStyle.NONE
    levels: tuple[Effort, ...] = (Effort.LOW, Effort.HIGH)
    min_budget: int = 128
    max_budget: int = 24576
    can_be_off: bool = True


NO_THINKING = Thinking()


def thinking_config(
    reasoning: Reasoning | None, thinking: Thinking, *, shown: bool = False
) -> dict[str, object]:
    """Return the members of ``thinkingConfig``; {} when there is nothing to say.

    Args:
        reasoning: what was asked.
        thinking: what the model takes.
        shown: whether thoughts are wanted by one who asked for thinking and
            did not say; Gemini hides them, other providers show them.

    >>> flash = Thinking(style=ThinkingStyle.BUDGET)
    >>> thinking_config(Reasoning(effort=Effort.MEDIUM), flash)
    {'thinkingBudget': 8192}
    """
    if reasoning is None or thinking.style is ThinkingStyle.NONE:
        return {}
    config: dict[str, object] = {}
    if thinking.style is ThinkingStyle.EFFORT:
        level = _level(reasoning, thinking)
        if level is not None:
            config["thinkingLevel"] = level.name
    else:
        budget = _budget(reasoning, thinking)
        if budget is not None:
            config["thinkingBudget"] = budget
    include = reasoning.include
    if include is None and shown and _is_asked(reasoning):
        include = True
    if include is not None:
        config["includeThoughts"] = include
    return config


def _is_asked(reasoning: Reasoning) -> bool:
    if reasoning.budget_tokens is not None:
        return reasoning.budget_tokens != 0
    return reasoning.adaptive or reasoning.effort not in {None, Effort.NONE}


def _level(reasoning: Reasoning, thinking: Thinking) -> Effort | None:
    wanted = reasoning.effort
    if wanted is None:
        wanted = _effort_of(reasoning.budget_tokens)
    if wanted is None:
        return None
    # The next one below, so that nobody pays for more than was asked for.
    fitting = [e for e in thinking.levels if _ORDER.index(e) <= _ORDER.index(wanted)]
    return fitting[-1] if fitting else thinking.levels[0]


def _effort_of(budget_tokens: int | None) -> Effort | None:
    if budget_tokens is None or budget_tokens == _DYNAMIC:
        return None
    if budget_tokens == 0:
        return Effort.NONE
    for effort in (Effort.LOW, Effort.MEDIUM):
        if budget_tokens <= _BUDGETS[effort]:
            return effort
    return Effort.HIGH


def _budget(reasoning: Reasoning, thinking: Thinking) -> int | None:
    budget = reasoning.budget_tokens
    if budget is None and reasoning.effort is not None:
        budget = _BUDGETS[reasoning.effort]
    if budget is None:
        return _DYNAMIC if reasoning.adaptive else None
    if budget == _DYNAMIC or (budget == 0 and thinking.can_be_off):
        return budget
    return min(max(budget, thinking.min_budget), thinking.max_budget)
