"""Who polls clients' sockets may end before those who own them."""

from __future__ import annotations

import socket

import attrs
import trio

from atomr_infer.gateway.http1.poller import Poller


@attrs.define(eq=False)
class Owner:
    """One that has all the time in the world."""

    due_at: float = float("inf")
    woken: trio.Event = attrs.field(factory=trio.Event)

    def wake(self, *, ended: bool) -> None:
        assert not ended
        self.woken.set()

    def expire(self) -> None:
        raise AssertionError("it has time")


async def test_an_owner_that_outlives_it_leaves_and_another_comes() -> None:
    poller, owner, late = Poller(), Owner(), Owner()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.add(ours, owner)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run)
            theirs.send(b"x")
            await owner.woken.wait()
            nursery.cancel_scope.cancel()
        poller.remove(ours)
        poller.add(theirs, late)
        poller.remove(theirs)

    assert not late.woken.is_set()
