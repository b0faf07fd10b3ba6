"""What a provider tells of a key's limits, in the headers of its answers.

Where less is told than was declared, the declared limit is above the key's tier, and
what is told is kept (:func:`lowered`).  That is only as good as the headers are:

*Anthropic's* say what there is in a minute, so they are believed at once.

*OpenAI's* say how much there is, and not in what time: with the same names some tell of
a day, and a gateway of a second.  But they also say what is left, and when all of it is
there again.  A bucket of a minute that has given a tenth is full again after a tenth of
a minute; so the three figures together show a minute, or something else.  What shows a
minute in each of the first answers is believed, and what has shown anything else once
is not, until another limit is told.

Pure.

Source: OpenAI API guide, "Rate limits in headers"; Azure OpenAI, "Rate limits";
Anthropic API, "Rate limits: response headers".
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import attrs

from atomr_infer.policy.limits.rate_permits import Dimension

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.rate_limits import RateLimits

_MINUTE_S = 60.0
_TOLERANCE = 0.1
_MIN_RESET_S = 0.02
"""What is full again sooner is rounded too much to show anything."""

_ANSWERS = 3
"""So many have to show a minute."""

_MAX = 2**53

_ANTHROPIC = {
    Dimension.REQUESTS: "anthropic-ratelimit-requests-limit",
    Dimension.INPUT_TOKENS: "anthropic-ratelimit-input-tokens-limit",
    Dimension.OUTPUT_TOKENS: "anthropic-ratelimit-output-tokens-limit",
    Dimension.TOKENS: "anthropic-ratelimit-tokens-limit",
}
_OPENAI = {
    Dimension.REQUESTS: "x-ratelimit-limit-requests",
    Dimension.TOKENS: "x-ratelimit-limit-tokens",
}

_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "": 1.0}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|[dhms])?){1,5}", re.ASCII)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms]?)", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,15}", re.ASCII)


@attrs.define
class _Track:
    """What is known of one limit that is told.

    Attributes:
        limit: how much there is.
        shown: answers that showed a minute.
        is_other: whether one showed anything else.
    """

    limit: int
    shown: int = 0
    is_other: bool = False


class ToldLimits:
    """What one key was told, over its answers.

    Attributes:
        believed: how much there is in a minute, by what is counted.
    """

    def __init__(self) -> None:
        self.believed: Mapping[Dimension, int] = {}
        self._tracks: dict[Dimension, _Track] = {}

    def hear(self, headers: Mapping[str, str]) -> bool:
        """Take an answer's headers; return whether something else is believed now.

        >>> told = ToldLimits()
        >>> told.hear({"anthropic-ratelimit-requests-limit": "50"}), told.believed
        (True, {<Dimension.REQUESTS: 'requests_per_minute'>: 50})
        """
        found = dict(self.believed)
        for dimension, name in _ANTHROPIC.items():
            if limit := _count(headers.get(name)):
                found[dimension] = limit
        for dimension, name in _OPENAI.items():
            if limit := _count(headers.get(name)):
                self._take(dimension, name, limit, headers)
        for dimension, track in self._tracks.items():
            if track.shown >= _ANSWERS and not track.is_other:
                found[dimension] = track.limit
            else:
                found.pop(dimension, None)
        changed = found != self.believed
        self.believed = found
        return changed

    def confirms(self, headers: Mapping[str, str]) -> bool:
        """Whether an answer that was heard tells what is believed, and nothing else.

        A provider's routes tell of what they count, each of something else, so a part
        of it will do.

        >>> told = ToldLimits()
        >>> told.confirms({"anthropic-ratelimit-requests-limit": "50"})
        False
        >>> told.hear({"anthropic-ratelimit-requests-limit": "50"})
        True
        >>> told.confirms({"anthropic-ratelimit-requests-limit": "50"})
        True
        >>> told.confirms({})
        False
        """
        told = [
            (limit, found)
            for each, limit in self.believed.items()
            for names in (_ANTHROPIC, _OPENAI)
            if (found := _count(headers.get(names.get(each, "")))) is not None
        ]
        return bool(told) and all(limit == found for limit, found in told)

    def _take(
        self, dimension: Dimension, name: str, limit: int, headers: Mapping[str, str]
    ) -> None:
        track = self._tracks.get(dimension)
        if track is None or track.limit != limit:
            track = self._tracks[dimension] = _Track(limit)
        if track.is_other or track.shown >= _ANSWERS:
            return
        left = _count(headers.get(name.replace("-limit-", "-remaining-")))
        full_s = seconds(headers.get(name.replace("-limit-", "-reset-"), ""))
        if left is None or full_s is None or left >= limit or full_s < _MIN_RESET_S:
            return
        minutes = limit * full_s / (limit - left) / _MINUTE_S
        if abs(minutes - 1.0) <= _TOLERANCE:
            track.shown += 1
        else:
            track.is_other = True


def lowered(limits: RateLimits, told: Mapping[Dimension, int]) -> RateLimits:
    """Return limits of which none is above what is told.

    Args:
        limits: as they were declared.
        told: how much there is in a minute.
    """
    found = above(limits, told)
    if not found:
        return limits
    rates = {name: most for name, (_, most) in found.items()}
    window_s = limits.window_s
    if min(rates.values()) * window_s < _MINUTE_S:
        window_s = _MINUTE_S  # in a shorter one there would be less than one
    return attrs.evolve(limits, window_s=window_s, **rates)  # type: ignore[arg-type] # rates only


def above(
    limits: RateLimits, told: Mapping[Dimension, int]
) -> dict[str, tuple[int, int]]:
    """Return the declared rates that are above what is told: those, and what is.

    A limit on tokens of one kind is above one that is told of both.

    >>> from atomr_infer.model.rate_limits import RateLimits
    >>> limits = RateLimits(requests_per_minute=600, input_tokens_per_minute=50_000)
    >>> above(limits, {Dimension.REQUESTS: 500, Dimension.TOKENS: 60_000})
    {'requests_per_minute': (600, 500)}
    """
    both = told.get(Dimension.TOKENS, _MAX)
    most = {
        Dimension.REQUESTS: told.get(Dimension.REQUESTS, _MAX),
        Dimension.INPUT_TOKENS: min(told.get(Dimension.INPUT_TOKENS, _MAX), both),
        Dimension.OUTPUT_TOKENS: min(told.get(Dimension.OUTPUT_TOKENS, _MAX), both),
        Dimension.TOKENS: both,
    }
    found: dict[str, tuple[int, int]] = {}
    for dimension, there in most.items():
        declared: int | None = getattr(limits, dimension.value)
        if declared is not None and declared > there:
            found[dimension.value] = declared, there
    return found


def seconds(text: str) -> float | None:
    """Return a duration such as ``6m0s``, ``120ms`` or ``1.5``; None: it is none.

    >>> seconds("1h2m3.5s"), seconds("120ms"), seconds("7"), seconds("soon")
    (3723.5, 0.12, 7.0, None)
    """
    if _DURATION.fullmatch(text) is None:
        return None
    found = sum(float(n) * _UNITS_S[unit] for n, unit in _PIECE.findall(text))
    return found if math.isfinite(found) else None


def _count(text: str | None) -> int | None:
    """Return a whole number; None: there is none, or it is something else."""
    if text is None or _COUNT.fullmatch(text) is None:
        return None
    return int(text)
