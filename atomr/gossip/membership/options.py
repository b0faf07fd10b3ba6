"""How fast members are probed, suspected and told of."""

from __future__ import annotations

import attrs

from atomr.core.checks import check_count, check_seconds


@attrs.frozen
class MembershipOptions:
    """Times in seconds of the node's own clock; the defaults are for 3 to 64 nodes.

    Attributes:
        probe_s: one member is probed each so often.
        probe_timeout_s: then others are asked to probe it too.
        retry_s: an unanswered probe is sent again each so often; it costs nothing
            while answers come, and without it a lossy network makes suspects.
        helpers: how many others are asked.
        suspicion_mult: a suspect has at least that many probe intervals, times
            log10 of the number of members.
        suspicion_max_mult: and at most that many times as much, until others
            suspect it too.
        confirmations: how many others bring it down to the least.
        last_word_s: a suspect is asked each ``retry_s`` for that long before it is
            held dead.
        second_opinions: how many members probe a suspect at once, on average.
        max_health: how far a node slows itself down; 8: nine times.
        lag_s: a node that is woken that late takes itself to be unwell.
        gossip_s: updates are told each so often.
        fanout: to how many.
        max_updates: in one frame.
        retransmit_mult: each update is told that often, times log10 of the number
            of members.
        sync_s: tables are compared with one member each so often.
        dead_probe_s: one dead member, and one seed, are tried each so often.
        forget_s: a dead member is forgotten after that.
        join_s: seeds are asked each so often until there is another member.
        max_members: how many are known at most, the dead among them; a bound on
            what a broken peer can fill.

    Raises:
        TypeError: one is of another type.
        ValueError: one is too small.
    """

    probe_s: float = 1.0
    probe_timeout_s: float = 0.5
    retry_s: float = 0.1
    helpers: int = 3
    suspicion_mult: float = 4.0
    suspicion_max_mult: float = 6.0
    confirmations: int = 2
    last_word_s: float = 1.5
    second_opinions: int = 10
    max_health: int = 8
    lag_s: float = 0.1
    gossip_s: float = 0.2
    fanout: int = 3
    max_updates: int = 20
    retransmit_mult: int = 4
    sync_s: float = 10.0
    dead_probe_s: float = 10.0
    forget_s: float = 86_400.0
    join_s: float = 1.0
    max_members: int = 4096

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            if field.type == "int":
                check_count(field.name, value, least=_LEAST.get(field.name, 1))
            else:
                check_seconds(field.name, value, zero=False)
        if self.probe_timeout_s >= self.probe_s:
            raise ValueError(
                f"probe_timeout_s={self.probe_timeout_s!r}: expected less than "
                f"probe_s={self.probe_s!r}, or there is no time to ask others"
            )


_LEAST = {"helpers": 0, "confirmations": 0, "second_opinions": 0, "max_health": 0}
