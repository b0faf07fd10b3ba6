"""How fast logs are compared, and how much is sent at once."""

from __future__ import annotations

import attrs

from atomr.core.checks import check_count, check_seconds

_DAY_S = 86_400.0


@attrs.frozen
class ReplicationOptions:
    """Times in seconds of the node's own clock; the defaults are for 3 to 64 nodes.

    Attributes:
        push_s: the first event of a push waits so long for others.
        push_all: up to so many peers get each push.
        push_some: of more peers, so many get it; the others learn of it by digests.
        round_s: a digest is sent each so often.
        busy_round_s: and so often while there is news.
        busy_rounds: news are told by so many rounds.
        fanout: a digest goes to so many peers.
        settle_s: events that came within it are on their way to all by pushes, and
            are not sent in answer to a digest; to a peer that is slow, within as long
            as it was measured to take.
        resend_s: but within no more than that; then what a peer was sent, and does
            not have, is sent again.
        batch_events: events in one frame at most.
        batch_bytes: bytes in one frame, about.
        chunk_bytes: bytes of one part of a snapshot, about.
        ask_s: who has asked one peer for what it lacks waits so long before it asks
            another one.
        retry_s: a snapshot's part is asked for again after that, or after up to four
            times as long where parts take longer.
        retries: so often, and then its sender is given up.
        keep_s: a snapshot is kept for a peer so long after its last question.
        away_s: while a node is away for less than that, nobody else is retired: it
            may know more of him.
        forget_s: a retired origin is remembered for that long.
        reset_s: who had no majority for that long must reset.

    Raises:
        TypeError: one is of another type.
        ValueError: one is too small.
    """

    push_s: float = 0.005
    push_all: int = 16
    push_some: int = 3
    round_s: float = 0.2
    busy_round_s: float = 0.05
    busy_rounds: int = 4
    fanout: int = 2
    settle_s: float = 0.05
    resend_s: float = 8.0
    batch_events: int = 500
    batch_bytes: int = 128 * 1024
    chunk_bytes: int = 64 * 1024
    ask_s: float = 0.05
    retry_s: float = 1.0
    retries: int = 5
    keep_s: float = 30.0
    away_s: float = 600.0
    forget_s: float = 7 * _DAY_S
    reset_s: float = 7 * _DAY_S

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(ReplicationOptions):
            value = getattr(self, field.name)
            if field.name.endswith("_s"):
                check_seconds(field.name, value, zero=field.name == "settle_s")
            else:
                check_count(field.name, value, least=1)
