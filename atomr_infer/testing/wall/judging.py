"""Whether a cell of the wall stands: what was heard, asked and billed, weighed.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.cost import Cost
from atomr_infer.serving.requests.served import Spent
from atomr_infer.testing.wall.heard import Heard
from atomr_infer.testing.wall.scenarios import (
    FALLBACK_USAGE,
    PRICES,
    PRIMARY_USAGE,
    Cell,
    Expected,
    Kind,
)

if TYPE_CHECKING:
    from atomr_infer.model.usage import Usage
    from atomr_infer.testing import upstream_script as script

FALLBACK, PRIMARY = "fallback", "primary"

_FILTER_CODES = frozenset({"content_filter", "content_policy_violation"})
_FILTER_WORDS = frozenset({"content_filter", "refusal", "SAFETY", "PROHIBITED_CONTENT"})


@attrs.frozen(kw_only=True)
class Observed:
    """What happened in a cell.

    Attributes:
        heard: by the client.
        status: HTTP status that it got.
        served_by: the deployment that the answer's headers name.
        asked: requests that each upstream got, by the deployment's name.
        spent: the bill, attempt by attempt.
        cost: of all of them; None: nobody knows.
        cost_told: in a header of the answer, in dollars; None: not told.
        stopped: how often telemetry said that the request has ended.
        held: permits that were still taken afterwards.
        open_upstream: answers that were still under way afterwards.
    """

    heard: Heard
    status: int
    served_by: str
    asked: Mapping[str, int]
    spent: Sequence[Spent]
    cost: Cost | None
    cost_told: str | None
    stopped: int
    held: int
    open_upstream: int


@attrs.frozen(kw_only=True)
class Verdict:
    """What came of a cell.

    Attributes:
        cell: which one.
        outcome: what the client got, in words.
        faults: why the cell does not stand; (): it stands.
    """

    cell: Cell
    outcome: str
    faults: tuple[str, ...]


def judge(cell: Cell, observed: Observed) -> Verdict:
    """Return whether a cell stands."""
    expected = cell.expected
    kind = _kind(observed)
    faults = [
        *observed.heard.faults,
        *_judge_kind(kind, expected, observed),
        *_judge_text(cell, kind, observed),
        *_judge_counts(expected, observed),
        *_judge_bill(expected, observed),
        *_judge_cost(cell, observed),
        *_judge_rest(observed),
    ]
    return Verdict(cell=cell, outcome=_describe(kind, observed), faults=tuple(faults))


def _kind(observed: Observed) -> Kind | None:
    heard = observed.heard
    if heard.error is not None:
        if heard.code in _FILTER_CODES:
            return Kind.FILTERED
        return Kind.BROKEN_OFF if heard.text else Kind.ERROR
    if heard.finish in _FILTER_WORDS:
        return Kind.FILTERED
    return Kind.DELIVERED if heard.ended and heard.finish is not None else None


def _judge_kind(kind: Kind | None, expected: Expected, observed: Observed) -> list[str]:
    if kind is Kind.ERROR and expected.kind is Kind.FILTERED:
        # Only OpenAI's errors have a code; the others say it in words alone.
        kind = Kind.FILTERED if observed.status == 400 else kind
    if kind is None:
        return [f"silent truncation after {observed.heard.text!r}"]
    faults = []
    if kind is not expected.kind:
        faults.append(f"{kind.value}, not {expected.kind.value}")
    named = expected.named or expected.by
    if named and observed.served_by != named:
        faults.append(f"answered by {observed.served_by!r}, not {named!r}")
    return faults


def _judge_text(cell: Cell, kind: Kind | None, observed: Observed) -> list[str]:
    """The text is one upstream's answer: all of it, or its front part."""
    said = observed.heard.text
    texts = {
        PRIMARY: _text_of(cell.scenario.primary),
        FALLBACK: _text_of(cell.scenario.fallback),
    }
    if kind is Kind.DELIVERED and said != texts.get(cell.expected.by):
        return [f"the text is {said!r}"]
    if kind is Kind.BROKEN_OFF and not any(
        text.startswith(said) and said != text for text in texts.values()
    ):
        return [f"the front part is {said!r}"]
    return []


def _text_of(behaviour: script.Behaviour) -> str:
    answer = getattr(behaviour, "answer", behaviour)
    text: str = getattr(answer, "text", "")
    return text


def _judge_counts(expected: Expected, observed: Observed) -> list[str]:
    wanted = {PRIMARY: expected.primary, FALLBACK: expected.fallback}
    return [
        f"{name} was asked {observed.asked[name]} times, not {count}"
        for name, count in wanted.items()
        if observed.asked[name] != count
    ]


def _judge_bill(expected: Expected, observed: Observed) -> list[str]:
    answers = [s for s in observed.spent if not s.usage.interrupted]
    lost = [s for s in observed.spent if s.usage.interrupted]
    usages = {PRIMARY: PRIMARY_USAGE, FALLBACK: FALLBACK_USAGE}
    faults = []
    if expected.kind is Kind.DELIVERED:
        due = usages[expected.by]
        if [(s.deployment, s.usage) for s in answers] != [(expected.by, due)]:
            faults.append(f"the bill is {list(observed.spent)}")
        if observed.heard.usage != _totals(due):
            faults.append(f"the client was told {observed.heard.usage}")
    elif any(s.usage.output_tokens for s in answers):
        faults.append(f"an answer that nobody got is billed: {answers}")
    if len(lost) != expected.lost or any(s.usage.output_tokens <= 0 for s in lost):
        faults.append(f"{len(lost)} lost attempts are billed, not {expected.lost}")
    return faults


def _judge_cost(cell: Cell, observed: Observed) -> list[str]:
    due = sum(_pico_usd(spent) for spent in observed.spent)
    faults = []
    if observed.cost is None or observed.cost.pico_usd != due:
        faults.append(f"the cost is {observed.cost}, not {due} pico-dollars")
    # A stream's headers are gone before anybody knows.
    told = observed.cost_told
    tells = cell.expected.kind is Kind.DELIVERED and not cell.stream
    if tells and (told is None or Decimal(told) != Decimal(due).scaleb(-12)):
        faults.append(f"the client was told that it cost {told}")
    return faults


def _pico_usd(spent: Spent) -> int:
    """What an attempt costs, reckoned apart from the code under test."""
    rates, usage = PRICES[spent.deployment], spent.usage
    billed = (
        (rates.input, usage.input_uncached),
        (rates.cache_read, usage.cache_read),
        (rates.output, usage.output_text + usage.reasoning),
    )
    return sum(rate.pico_usd * tokens for rate, tokens in billed if rate is not None)


def _totals(usage: Usage) -> tuple[int, int]:
    return usage.prompt_tokens, usage.output_tokens


def _judge_rest(observed: Observed) -> list[str]:
    faults = []
    if observed.stopped != 1:
        faults.append(f"telemetry told {observed.stopped} ends of the request")
    if observed.held:
        faults.append(f"{observed.held} permits were not given back")
    if observed.open_upstream:
        faults.append(f"{observed.open_upstream} upstream answers were left open")
    return faults


def _describe(kind: Kind | None, observed: Observed) -> str:
    counts = "+".join(str(count) for count in observed.asked.values())
    if kind is Kind.DELIVERED:
        paid = [s.deployment for s in observed.spent if not s.usage.interrupted]
        return f"delivered by {' and '.join(paid)} ({counts} requests)"
    if kind is None:
        return f"silent truncation ({counts} requests)"
    return f"{observed.status} {kind.value} ({counts} requests)"
