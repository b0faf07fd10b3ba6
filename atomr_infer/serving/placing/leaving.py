"""What becomes of a node's replicas when it is about to go.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.policy.lifecycle.deployment_state import HOLDS, State
from atomr_infer.policy.lifecycle.placement import Why

if TYPE_CHECKING:
    from atomr_infer.serving.placing.picture import Picture


@attrs.frozen(kw_only=True)
class Move:
    """What becomes of a deployment that runs on a node which goes.

    Attributes:
        deployment: its name.
        to: the nodes that have it from then on; none: it stays.
        is_there: whether they serve it already.
        reason: why it stays; "": it does not.
    """

    deployment: str
    to: tuple[str, ...] = ()
    is_there: bool = False
    reason: str = ""


def mine(picture: Picture) -> set[str]:
    """Return the deployments of which this node has a share."""
    return {name for name, nodes in picture.claims.items() if picture.me in nodes}


def goes(name: str, picture: Picture) -> bool:
    """Whether something of a deployment runs here that others take, or that ends."""
    claim = picture.claims.get(name, {}).get(picture.me)
    if claim is None or claim.state not in HOLDS | {State.DRAINING}:
        return False
    if name not in picture.plan:
        return True
    takers = _takers(name, picture)
    return bool(takers) and picture.me not in takers


def moves(picture: Picture) -> tuple[Move, ...]:
    """Return what becomes of all that runs here, by name, as all nodes know it now."""
    return tuple(
        _move(name, picture)
        for name in sorted(mine(picture))
        if name in picture.plan
        and picture.claims[name][picture.me].state in HOLDS | {State.DRAINING}
    )


def _move(name: str, picture: Picture) -> Move:
    takers = _takers(name, picture)
    if goes(name, picture):
        is_there = picture.may_end(name)
        return Move(deployment=name, to=tuple(sorted(takers)), is_there=is_there)
    told = [
        f"{passed.node}: {passed.detail}"
        for passed in picture.plan[name].passed
        if passed.node != picture.me and passed.why is not Why.NOT_NEEDED
    ]
    reason = "; ".join(told) or "there is no other node"
    return Move(deployment=name, reason=reason)


def _takers(name: str, picture: Picture) -> set[str]:
    # Who is out of sight takes over from nobody: it may have left, too.
    return picture.plan[name].nodes.keys() - picture.away
