"""Ways to break permit escrow, each of which the scenarios must notice.

A mutant is a line of ours that reads otherwise: mistakes that were made, here or
elsewhere, or that the next one who touches the code might make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomr.gossip.escrow.cooling import Cooling
from atomr.gossip.escrow.holdings import Holdings
from atomr.gossip.escrow.home import Home
from atomr.gossip.escrow.lessee import Lessee
from atomr.gossip.escrow.limit import Limit
from atomr.gossip.escrow.member import Member
from atomr.gossip.escrow.outcomes import Granted
from atomr.gossip.escrow.use_log import UseLog, cooling_after
from tests.atomr.gossip.escrow_scenarios import SCENARIOS
from tests.atomr.gossip.mutants import Mutant

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS, TOKENS, LEASES, HAMMER, RESTARTS, CHANGED = SCENARIOS


def _derived(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = vars(Limit)[name].func
    return function


MUTANTS = (
    Mutant(
        "trap 18: a grant says how many more",
        Holdings.renew,
        "self.granted = max(self.granted, granted)",
        "self.granted = self.granted + granted",
        REQUESTS,
    ),
    Mutant(
        "trap 18: a return says how many more",
        Home.ask,
        "max(account.returned, min(frame.returned, account.granted))",
        "min(account.returned + frame.returned, account.granted)",
        REQUESTS,
    ),
    Mutant(
        "lent again at the lapse, without a window",
        Home._closes_s,
        "account.lapse_s + self._limit.cooling_s",
        "account.lapse_s",
        REQUESTS,
    ),
    Mutant(
        "the home is no later than the lessee",
        _derived("lapse_s"),
        "self.lease_s * max(_LAPSE_FACTOR, apart) + _LAPSE_MARGIN_S",
        "self.lease_s",
        LEASES,
    ),
    Mutant(
        "trap 20: a restarted node has its floor at once",
        Member.__init__,
        "cooling = _NEVER if past.quiet_s < _NEVER else 0.0",
        "cooling = 0.0",
        REQUESTS,
    ),
    Mutant(
        "a restarted home lends at once",
        Home._begin,
        "self._lock_forgotten(limit.pool, at_s)",
        "pass",
        REQUESTS,
    ),
    Mutant(
        "permits cool for a window of a fast clock",
        _derived("cooling_s"),
        "self.window_s * (1.0 + self.drift)",
        "self.window_s",
        REQUESTS,
    ),
    Mutant(
        "the lease counts from the answer",
        Lessee.granted,
        "self.holdings.renew(frame.granted, frame.echo_s, self._limit.lease_s)",
        "self.holdings.renew(frame.granted, now_s, self._limit.lease_s)",
        LEASES,
    ),
    Mutant(
        "the lessee does not mind the end of its lease",
        Holdings.pass_time,
        "if now_s >= self.until_s:",
        "if now_s >= self.until_s + 1e9:",
        REQUESTS,
        first_seed=110,
    ),
    Mutant(
        "one more is given back than is free",
        Holdings.give_back,
        "min(permits, self.pool_free)",
        "min(permits + 1, self.pool_free + 1)",
        REQUESTS,
    ),
    Mutant(
        "what is locked is given back when the lease ends",
        Holdings.pass_time,
        "self.returned = self.granted - pool.count",
        "self.returned = self.granted; pool.forget()",
        REQUESTS,
    ),
    Mutant(
        "a grant of any account will do",
        Lessee.granted,
        "if not self._is_of_account(sender, frame):",
        "if self._account is None:",
        REQUESTS,
        first_seed=300,
    ),
    Mutant(
        "an account that another replaces is free at once",
        Home._close,
        "self._closing.add(account.out, max(now_s, account.lapse_s))",
        "pass",
        REQUESTS,
    ),
    Mutant(
        "a lost account leaves its permits",
        Lessee._drop,
        "self.holdings.drop()",
        "pass",
        REQUESTS,
    ),
    Mutant(
        "a batch cools from its first use",
        Cooling.thaw,
        "now_s >= batches[0].last_s + self._cooling_s",
        "now_s >= batches[0].opened_s + self._cooling_s",
        HAMMER,
        first_seed=595,
    ),
    Mutant(
        "settling twice gives back twice",
        Granted.settled,
        "self._pool_batch = self._floor_batch = None",
        "pass",
        TOKENS,
    ),
    Mutant(
        "more is given back than was taken",
        Holdings.settle,
        "min(spare, granted.pool)",
        "spare + 1",
        TOKENS,
    ),
    Mutant(
        "the floor is used before the log is synced",
        UseLog.room.fget,  # type: ignore[attr-defined]
        "self._synced - self.used",
        "self._asked - self.used",
        RESTARTS,
    ),
    Mutant(
        "the log's last line counts as old",
        cooling_after,
        "old = before.used - chunk_of(limit)",
        "old = mark.used",
        RESTARTS,
        first_seed=1090,
    ),
    Mutant(
        "the log is believed to be of every use",
        cooling_after,
        "last.used - max(0, old)",
        "last.used - max(0, old) - chunk_of(limit)",
        RESTARTS,
        first_seed=130,
    ),
    Mutant(
        "the home forgets what it lent",
        Home.free.fget,  # type: ignore[attr-defined]
        "out += account.granted - account.returned",
        "out += account.out if account.want else 0",
        REQUESTS,
    ),
    Mutant(
        "who holds more than a lowered limit goes on with it",
        Home.resize,
        "account.most = min(holds, part) if out > left else None",
        "account.most = None",
        CHANGED,
    ),
    Mutant(
        "each may hold as much as all",
        Home.resize,
        "part = account.out * left // max(1, out)",
        "part = left",
        CHANGED,
    ),
    Mutant(
        "a firm cap is kept to when there is time",
        Lessee.granted,
        "frame.cap if frame.is_firm else _NEVER",
        "_NEVER",
        CHANGED,
    ),
    Mutant(
        "a larger pool has what an earlier life lent of it",
        Home.resize,
        "self._lock_forgotten(limit.pool - self._limit.pool, now_s)",
        "pass",
        CHANGED,
        first_seed=395,
    ),
    Mutant(
        "a floor that is lowered stays",
        Holdings.resize,
        "self._floor = floor",
        "self._floor = max(floor, self._floor)",
        CHANGED,
    ),
)
