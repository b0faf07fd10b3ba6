"""What nodes' files say alike or not, while it is on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.budget import Budget, OwnedBudget, Per
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.team import Team
from tests.gateway.http import until
from tests.serving.test_announced import two_trees

if TYPE_CHECKING:
    from pathlib import Path

    from atomr.cluster.replicator import OwnedHandle
    from atomr_infer.serving.shared import Serving

TEAM = Team(name="web", rate_limits=RateLimits(requests_per_minute=60))
BUDGET = OwnedBudget(budget=Budget(per=Per.DAY, usd="10"), team="web")
PIECES = {"", "team web", "budget of team web, usd/day"}
WHOLE = ""


def map_of(tree: Serving) -> OwnedHandle:
    return tree.node.replicator.open_owned("terms in files")


def said_by(tree: Serving, name: str) -> set[str]:
    items = map_of(tree).items()
    return {str(key) for key, owner, _ in items if owner.name == name}


def take_file(tree: Serving) -> None:
    tree.key_ring.take_teams([TEAM])
    tree.budgets.take([BUDGET])


async def test_teams_and_budgets_of_a_file_are_said_at_once(tmp_path: Path) -> None:
    async with two_trees(tmp_path) as (a, b):
        a.key_ring.take_teams([TEAM])
        assert said_by(a, "a") == set()
        a.budgets.take([BUDGET])
        await until(lambda: said_by(a, "a") == PIECES)
        await until(lambda: said_by(b, "a") == PIECES)


async def test_a_file_of_which_a_piece_is_missing_differs_from_nobody(
    tmp_path: Path,
) -> None:
    async with two_trees(tmp_path) as (a, b):
        take_file(a)
        of_b = map_of(b)
        of_b.put("team ops", {"name": "ops"})
        await until(lambda: said_by(a, "b") == {"team ops"})
        assert a.node.agreement.problems() == ()
        of_b.put(WHOLE, b"the digest of another file")
        await until(lambda: said_by(a, "b") == {"team ops", WHOLE})
        assert a.node.agreement.problems() == ()


async def test_a_file_that_says_less_is_told_when_that_is_known(
    tmp_path: Path,
) -> None:
    async with two_trees(tmp_path) as (a, b):
        for tree in (a, b):
            take_file(tree)
        await until(lambda: said_by(a, "b") == PIECES)
        b.budgets.take([])
        left = "budget of team web, usd/day"
        await until(lambda: said_by(a, "b") == PIECES - {left})
        await until(lambda: bool(a.node.agreement.problems()))
        assert a.node.agreement.problems() == (
            f"{left}: is in the file here, and not in that of b",
        )
