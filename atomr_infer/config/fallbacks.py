"""The key ``fallbacks`` of a deployment: names, or tables with ``to`` and ``on``.

Pure.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from atomr_infer.config.mistakes import Mistakes
from atomr_infer.config.reader import TableReader, type_name
from atomr_infer.errors import ConfigError
from atomr_infer.model.failover import Fallback, FallbackReason
from atomr_infer.policy.failures.fallback import check_chains
from atomr_infer.policy.limits.rate_permits import LONGEST_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from atomr_infer.config.reader import Origin
    from atomr_infer.config.readings import Readings
    from atomr_infer.model.deployment import Deployment

_FIX = 'write fallbacks = ["other"] or [{ to = "other", on = ["timeout"] }]'
_REASONS = {reason.value: reason for reason in FallbackReason}


def read_fallbacks(reader: TableReader) -> tuple[Fallback, ...]:
    """Read a deployment's ``fallbacks``.

    Args:
        reader: the deployment's table; the key is there.

    Raises:
        ConfigError: it is no array of names and tables, or one of them is wrong.
    """
    elements = reader.content["fallbacks"]
    if not isinstance(elements, list):
        problem = f"fallbacks is {type_name(elements)}, not an array"
        raise reader.fail("fallbacks", f"{problem}; {_FIX}")
    mistakes, found = Mistakes(), []
    for index, element in enumerate(elements):
        with mistakes.kept():
            found.append(_fallback(reader, index, element))
    mistakes.tell()
    return tuple(found)


def _fallback(reader: TableReader, index: int, element: object) -> Fallback:
    where = (*reader.where, "fallbacks", index)
    label = f"{reader.label}: fallbacks[{index}]"
    if isinstance(element, str):
        element = {"to": element}
    if not isinstance(element, dict):
        raise reader.fail("fallbacks", f"fallbacks[{index}] is no name; {_FIX}")
    table = TableReader(reader.origin, where, label, element)
    return table.read(Fallback, {"on": lambda: _reasons(table)}, required={"to": _FIX})


def _reasons(table: TableReader) -> frozenset[FallbackReason]:
    given = table.content["on"]
    if not isinstance(given, list) or not given:
        allowed = ", ".join(_REASONS)
        raise table.fail("on", f"on is no array of reasons; there are {allowed}")
    return frozenset(_reason(table, name) for name in given)


def _reason(table: TableReader, name: object) -> FallbackReason:
    if isinstance(name, str) and name in _REASONS:
        return _REASONS[name]
    near = difflib.get_close_matches(str(name), _REASONS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(_REASONS)}"
    raise table.fail("on", f"{name!r} is no reason for a fallback; {hint}")


def check_fallbacks(readings: Readings, origin: Origin, mistakes: Mistakes) -> None:
    """Keep fallbacks to nobody, and those that go round in a circle.

    Args:
        readings: all deployments of the file.
        origin: the file.
        mistakes: where they are kept.
    """
    if readings.knows_names:
        for nobody in _to_nobody(readings, origin):
            mistakes.keep(nobody)
    chains = {each.name: each.fallbacks for each in readings.values}
    for index, deployment in readings:
        try:
            check_chains(chains, deployment.name)
        except ConfigError as error:
            where = ("deployment", index, "fallbacks")
            mistakes.keep(origin.error(where, error.message))
            # Of one circle only one that leads there tells.
            for name in _reached(chains, deployment.name):
                chains[name] = ()
    for too_long in _too_long(readings, origin):
        mistakes.keep(too_long)


def _to_nobody(readings: Readings, origin: Origin) -> Iterator[ConfigError]:
    names = [deployment.name for deployment in readings.values]
    for index, deployment in readings:
        for position, fallback in enumerate(deployment.fallbacks):
            if fallback.to in names:
                continue
            others = [name for name in names if name != deployment.name]
            near = difflib.get_close_matches(fallback.to, others, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield origin.error(
                ("deployment", index, "fallbacks", position),
                f"deployment {deployment.name!r}: fallbacks: there is no deployment "
                f"{fallback.to!r}{hint}",
            )


def _reached(chains: Mapping[str, tuple[Fallback, ...]], start: str) -> set[str]:
    seen, left = {start}, [start]
    while left:
        for fallback in chains.get(left.pop(), ()):
            if fallback.to not in seen:
                seen.add(fallback.to)
                left.append(fallback.to)
    return seen


def _too_long(readings: Readings, origin: Origin) -> Iterator[ConfigError]:
    """Yield chains whose requests may outlast the permits of one of its members.

    A permit of ``max_concurrent`` comes back, if its node has died, when the longest
    request of its deployment must be over; one that began elsewhere takes the time of
    the deployment that it began at.  Who serves the same name is asked before all
    fallbacks.
    """
    whole = [each for each in readings.values if readings.is_whole(each.name)]
    by_name = {deployment.name: deployment for deployment in whole}
    for index, first in readings:
        if first.name not in by_name or first.timeouts.total_s <= LONGEST_S:
            continue  # every permit is counted for as long
        group = [each.name for each in whole if _is_beside(first, each)]
        for member in _chain(first, group, by_name):
            counts_s = max(LONGEST_S, member.timeouts.total_s)
            limits = member.rate_limits
            is_counted = limits is not None and limits.max_concurrent is not None
            if is_counted and first.timeouts.total_s > counts_s:
                called = f"its fallback {member.name!r}"
                if member.name in group:
                    called = f"{member.name!r}, of its group,"
                where = ("fallbacks",) if first.fallbacks else ()
                yield origin.error(
                    ("deployment", index, *where),
                    f"deployment {first.name!r}: its requests may take "
                    f"{first.timeouts.total_s:g} s, and rate_limits.max_concurrent of "
                    f"{called} counts one for {counts_s:g} s; give "
                    f"{member.name!r} timeouts.total_s = {first.timeouts.total_s:g}",
                )
                break  # the next one says the same of the same number


def _is_beside(one: Deployment, other: Deployment) -> bool:
    """Whether two serve a name together."""
    return one is not other and not set(one.serves).isdisjoint(other.serves)


def _chain(
    first: Deployment, group: Sequence[str], by_name: Mapping[str, Deployment]
) -> Iterator[Deployment]:
    """Yield all that a request which begins at one may come to, each once."""
    seen, left = {first.name}, [first]
    to = list(group)
    while left:
        to += [fallback.to for fallback in left.pop().fallbacks]
        for name in to:
            if name not in seen and name in by_name:
                seen.add(name)
                left.append(by_name[name])
                yield by_name[name]
        to.clear()
