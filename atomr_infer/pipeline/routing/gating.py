"""Whom a router asks: by what a request is, and by what a gate says of it.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.model.validation import at_least, non_empty
from atomr_infer.pipeline.asking.options import (
    from_table,
    is_pattern,
    is_target,
    tables,
)
from atomr_infer.pipeline.asking.questions import filled
from atomr_infer.pipeline.asking.words import asked_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.batch import ExecuteBatch

_optional = attrs.validators.optional


@attrs.frozen(kw_only=True)
class Route:
    """A model, and which requests are for it.

    Attributes:
        model: its public name.
        label: what the gate calls its requests; None: the gate does not choose it.
        matches: a pattern that must be found in the last words of the user.
        min_chars: the least text of the conversation.
        max_chars: the most text of the conversation.
        tools: whether the request offers tools.
    """

    model: str = attrs.field(validator=non_empty)
    label: str | None = attrs.field(default=None, validator=_optional(non_empty))
    matches: str | None = attrs.field(default=None, validator=_optional(is_pattern))
    min_chars: int | None = attrs.field(default=None, validator=_optional(at_least(0)))
    max_chars: int | None = attrs.field(default=None, validator=_optional(at_least(0)))
    tools: bool | None = attrs.field(
        default=None, validator=_optional(attrs.validators.instance_of(bool))
    )

    @property
    def has_rules(self) -> bool:
        """Whether the request itself may be for it."""
        rules = (self.matches, self.min_chars, self.max_chars, self.tools)
        return any(rule is not None for rule in rules)

    def takes(self, batch: ExecuteBatch) -> bool:
        """Whether all of its rules hold of a request."""
        chars = sum(len(message.text) for message in batch.messages)
        return not (
            (self.matches is not None and not re.search(self.matches, asked_of(batch)))
            or (self.min_chars is not None and chars < self.min_chars)
            or (self.max_chars is not None and chars > self.max_chars)
            or (self.tools is not None and self.tools != bool(batch.tools))
        )


@attrs.frozen(kw_only=True)
class Gate:
    """A model that is asked which label a request has.

    Attributes:
        model: its public name.
        prompt: what it is asked; ``{question}`` and ``{labels}`` are put in.
        max_tokens: the most that it may reply.
        timeout_s: how long that may take.
    """

    model: str = attrs.field(validator=non_empty)
    prompt: str = attrs.field(
        default=(
            "Which of these does the request belong to: {labels}?\n"
            "Reply with one of these words only.\n\nRequest:\n{question}"
        ),
        validator=non_empty,
    )
    max_tokens: int = attrs.field(default=8, validator=at_least(1))
    timeout_s: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))

    def prompt_for(self, question: str, labels: Iterable[str]) -> str:
        """Return what the gate is asked."""
        return filled(self.prompt, question=question, labels=", ".join(labels))


def _gate(given: object) -> Gate | str | None:
    if given is None or isinstance(given, str):
        return given
    return from_table(Gate, given, where="gate")


def _routes(given: object) -> tuple[Route, ...]:
    return tables(Route, given, where="routes")


def _is_gate(_: object, field: attrs.Attribute[str], value: object) -> None:
    if isinstance(value, str):
        is_target(_, field, value)


@attrs.frozen(kw_only=True)
class RouterOptions:
    """A router: specialists, and who is asked where none is meant.

    Attributes:
        routes: the specialists, in order.
        default: who is asked when no route is meant, or those that are have failed.
        gate: a model that says a request's label, or ``python:<module>:<name>``, a
            function ``(batch)`` that returns a label or a score for each label.
        threshold: the least score of a label.
        top_k: how many of the gate's labels are tried, the best first.
    """

    routes: tuple[Route, ...] = attrs.field(converter=_routes)
    default: str = attrs.field(validator=non_empty)
    gate: Gate | str | None = attrs.field(
        default=None, converter=_gate, validator=_is_gate
    )
    threshold: float = attrs.field(default=0.0, converter=float)
    top_k: int = attrs.field(default=1, validator=at_least(1))

    def __attrs_post_init__(self) -> None:
        for number, route in enumerate(self.routes):
            if not route.has_rules and (route.label is None or self.gate is None):
                raise ConfigError(
                    f"routes[{number}]: no request is for {route.model!r}; give it a "
                    "rule, or a label and the router a gate"
                )
        if self.gate is not None and not self.labels:
            raise ConfigError("gate: no route has a label for it to choose")

    @property
    def labels(self) -> tuple[str, ...]:
        """What the gate may say, each once, in the order of the routes."""
        labels = [route.label for route in self.routes if route.label is not None]
        return tuple(dict.fromkeys(labels))

    def asks(self) -> tuple[str, ...]:
        """The models that may be asked, each once."""
        models = [route.model for route in self.routes]
        if isinstance(self.gate, Gate):
            models.append(self.gate.model)
        return tuple(dict.fromkeys((*models, self.default)))

    def by_rules(self, batch: ExecuteBatch) -> tuple[str, ...]:
        """Return the models whose rules all hold, in order; the gate is not asked."""
        return tuple(
            route.model
            for route in self.routes
            if route.has_rules and route.takes(batch)
        )

    def by_scores(self, scores: Mapping[str, float]) -> tuple[str, ...]:
        """Return the models of the best labels, the best one first.

        >>> routes = [{"model": "a", "label": "x"}, {"model": "b", "label": "y"}]
        >>> gate = "python:gates:choose"
        >>> options = RouterOptions(
        ...     routes=routes, default="c", gate=gate, threshold=0.5, top_k=2
        ... )
        >>> options.by_scores({"x": 0.6, "y": 0.9, "z": 1.0})
        ('b', 'a')
        >>> options.by_scores({"x": 0.6, "y": 0.4})
        ('a',)
        """
        good = [
            label
            for label in self.labels
            if label in scores and scores[label] >= self.threshold
        ]
        best = sorted(good, key=lambda label: -scores[label])[: self.top_k]
        return tuple(
            route.model
            for label in best
            for route in self.routes
            if route.label == label
        )


def scores_of(said: object, labels: Iterable[str]) -> dict[str, float]:
    """Return a score for each label that a gate named.

    Args:
        said: a label, or a reply that begins with one; or a score for each.
        labels: those that there are.

    >>> scores_of("Code, I think.", ["code", "law"])
    {'code': 1.0}
    >>> scores_of({"law": 0.25, "art": 1}, ["code", "law"])
    {'law': 0.25}
    """
    if isinstance(said, Mapping):
        return {name: float(said[name]) for name in labels if name in said}
    text = str(said).strip().casefold()
    # The longest first: one label may be the beginning of another.
    for label in sorted(labels, key=len, reverse=True):
        if text.startswith(label.casefold()):
            return {label: 1.0}
    return {}
