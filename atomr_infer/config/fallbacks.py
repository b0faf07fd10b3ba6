"""The key ``fallbacks`` of a deployment: names, or tables with ``to`` and ``on``.

Pure.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from atomr_infer.config.reader import TableReader, type_name
from atomr_infer.errors import ConfigError
from atomr_infer.model.failover import Fallback, FallbackReason
from atomr_infer.policy.failures.fallback import check_chains
from atomr_infer.policy.limits.rate_permits import LONGEST_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from atomr_infer.config.reader import Origin
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
    return tuple(
        _fallback(reader, index, element) for index, element in enumerate(elements)
    )


def _fallback(reader: TableReader, index: int, element: object) -> Fallback:
    where = (*reader.where, "fallbacks", index)
    label = f"{reader.label}: fallbacks[{index}]"
    if isinstance(element, str):
        element = {"to": element}
    if not isinstance(element, dict):
        raise reader.fail("fallbacks", f"fallbacks[{index}] is no name; {_FIX}")
    table = TableReader(reader.origin, where, label, element)
    if "to" not in element:
        raise table.fail("to", f"to is missing; {_FIX}")
    if "on" not in element:
        return table.read(Fallback)
    return table.read(Fallback, on=_reasons(table))


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


def check_fallbacks(deployments: Sequence[Deployment], origin: Origin) -> None:
    """Refuse fallbacks to nobody, and those that go round in a circle.

    Args:
        deployments: all of the file, in its order.
        origin: the file.

    Raises:
        ConfigError: at the first mistake.
    """
    names = [deployment.name for deployment in deployments]
    for index, deployment in enumerate(deployments):
        for position, fallback in enumerate(deployment.fallbacks):
            if fallback.to in names:
                continue
            others = [name for name in names if name != deployment.name]
            near = difflib.get_close_matches(fallback.to, others, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise origin.error(
                ("deployment", index, "fallbacks", position),
                f"deployment {deployment.name!r}: fallbacks: there is no deployment "
                f"{fallback.to!r}{hint}",
            )
    chains = {deployment.name: deployment.fallbacks for deployment in deployments}
    for index, deployment in enumerate(deployments):
        try:
            check_chains(chains, deployment.name)
        except ConfigError as error:
            raise origin.error(
                ("deployment", index, "fallbacks"), error.message
            ) from error
    _check_durations(deployments, origin)


def _check_durations(deployments: Sequence[Deployment], origin: Origin) -> None:
    """Refuse a chain whose requests may outlast the permits of one of its members.

    A permit of ``max_concurrent`` comes back, if its node has died, when the longest
    request of its deployment must be over; one that began elsewhere takes the time of
    the deployment that it began at.  Who serves the same name is asked before all
    fallbacks.
    """
    by_name = {deployment.name: deployment for deployment in deployments}
    for index, first in enumerate(deployments):
        if first.timeouts.total_s <= LONGEST_S:
            continue  # every permit is counted for as long
        group = [each.name for each in deployments if _is_beside(first, each)]
        for member in _chain(first, group, by_name):
            counts_s = max(LONGEST_S, member.timeouts.total_s)
            limits = member.rate_limits
            is_counted = limits is not None and limits.max_concurrent is not None
            if is_counted and first.timeouts.total_s > counts_s:
                called = f"its fallback {member.name!r}"
                if member.name in group:
                    called = f"{member.name!r}, of its group,"
                where = ("fallbacks",) if first.fallbacks else ()
                raise origin.error(
                    ("deployment", index, *where),
                    f"deployment {first.name!r}: its requests may take "
                    f"{first.timeouts.total_s:g} s, and rate_limits.max_concurrent of "
                    f"{called} counts one for {counts_s:g} s; give "
                    f"{member.name!r} timeouts.total_s = {first.timeouts.total_s:g}",
                )


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
            if name not in seen:
                seen.add(name)
                left.append(by_name[name])
                yield by_name[name]
        to.clear()
