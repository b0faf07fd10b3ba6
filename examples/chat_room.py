"""A chat room: one process per guest, rooms as topics, names in a registry.

    python examples/chat_room.py

Each guest is a server of its own, started under a dynamic supervisor and found
by name in a registry.  What is said in a room goes to whoever subscribed to it.
A guest who crashes is gone from every room and from the registry before
anybody can speak to them; their supervisor brings them back, and they join
again.
"""

from __future__ import annotations

import logging

import attrs
import trio

from atomr.errors import ServerDownError
from atomr.otp import (
    DynamicSupervisor,
    From,
    GenServer,
    NoReply,
    PubSub,
    Registry,
    RegistryRef,
    Reply,
    Request,
    Supervisor,
    call,
    cast,
    child,
    start_child,
)
from atomr.process import Node, open_node

GUESTS: RegistryRef[str, None] = RegistryRef("guests")
ROOMS: PubSub[Said] = PubSub("rooms")


@attrs.frozen
class Said:
    """Something that was said in a room."""

    guest: str
    words: str


@attrs.frozen
class Speak:
    """Let a guest say something; no words are more than they can bear."""

    words: str


@attrs.frozen
class Heard(Request[tuple[str, ...]]):
    """Ask a guest what they heard."""


class Guest(GenServer):
    """Speaks when told to, and remembers what others said."""

    def __init__(self, name: str, room: str) -> None:
        self.name = name
        self.room = room
        self.heard: list[str] = []

    def init(self) -> None:
        """Enter the room."""
        ROOMS.subscribe(self.room)

    def handle_cast(self, message: Speak) -> None:
        """Say it to all others in the room."""
        if not message.words:
            raise ValueError(f"{self.name} was asked to say nothing")
        ROOMS.broadcast_from(self.room, Said(self.name, message.words))

    def handle_info(self, message: Said) -> NoReply:
        """Remember what somebody said."""
        self.heard.append(f"{message.guest}: {message.words}")
        return NoReply()

    def handle_call(self, request: Heard, from_: From) -> Reply:
        """Tell what was heard."""
        return Reply(tuple(self.heard))


async def enter(name: str, room: str) -> None:
    """Let a guest enter a room."""
    spec = child(lambda: Guest(name, room), id=name, name=GUESTS.via(name))
    await start_child("everybody", spec)


async def open_house(node: Node) -> None:
    """Start what the guests need, in order, each before what needs it."""
    await node.start(
        Supervisor(
            [
                child(Registry, id="guests", name="guests"),
                child(PubSub.registry, id="rooms", name="rooms"),
                child(DynamicSupervisor, id="everybody", name="everybody"),
            ]
        )
    )


async def main() -> None:
    """Let three guests talk, and one of them fall over."""
    async with open_node() as node:
        await open_house(node)
        for name in ("ann", "bob", "cyd"):
            await enter(name, "kitchen")
        cast(GUESTS.via("ann"), Speak("hello"))
        # A call comes after what its caller has cast before, so ann has spoken.
        print("ann heard", await call(GUESTS.via("ann"), Heard()))
        cast(GUESTS.via("bob"), Speak("hello, ann"))
        print("bob heard", await call(GUESTS.via("bob"), Heard()))
        print("cyd heard", await call(GUESTS.via("cyd"), Heard()))

        cast(GUESTS.via("bob"), Speak(""))
        try:
            await call(GUESTS.via("bob"), Heard())
        except ServerDownError as error:
            print("bob fell over:", error.reason)
        while GUESTS.whereis("bob") is None:
            await trio.lowlevel.checkpoint()  # his supervisor is about to help
        print("in the kitchen:", len(ROOMS.subscribers("kitchen")))
        print("bob heard", await call(GUESTS.via("bob"), Heard()))


if __name__ == "__main__":
    logging.basicConfig(format="%(name)s %(levelname)s: %(message)s")
    trio.run(main)
