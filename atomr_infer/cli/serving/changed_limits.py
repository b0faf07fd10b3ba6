"""What a reload that changes a rate limit costs, in words.

Other numbers cost nothing.  With another window or another mode it is another limit,
and where several nodes keep it together, nobody knows at once how much of it the others
have used: it is lent sparingly for a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.team import Team


def changed_limits(running: ServePlan, wanted: ServePlan) -> Iterator[str]:
    """Yield one sentence for each rate limit that begins anew."""
    yield from _changed("deployment", running.deployments, wanted.deployments)
    yield from _changed("team", running.teams, wanted.teams)


def _changed(
    kind: str,
    before: Iterable[Deployment] | Iterable[Team],
    after: Iterable[Deployment] | Iterable[Team],
) -> Iterator[str]:
    limits = {each.name: each.rate_limits for each in before}
    for each in after:
        old, new = limits.get(each.name), each.rate_limits
        if old is None or new is None:
            continue
        if (old.window_s, old.mode) == (new.window_s, new.mode):
            continue
        window_s = max(old.window_s, new.window_s)
        yield (
            f"the rate limit of {kind} {each.name!r} is another one: for "
            f"{window_s:g} s most of it is withheld, as what the nodes have used of "
            "the old one counts"
        )
