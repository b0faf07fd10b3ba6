"""What two nodes say to each other about processes.

Each is one message of the service ``process``, told over the lane ``msg``: what is
said about one pair of processes is handled in its order, and nothing is missing in
between for as long as the link holds.

A process of the receiver is named by its number or its registered name; one of the
sender by its number alone, as the link says whose it is.  What a user sends is a tag
and a body, see :mod:`atomr.cluster.remote.codec`.

Pure.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

MAX_NAME_CHARACTERS = 255

Number: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Name: TypeAlias = Annotated[
    str, msgspec.Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)
]
Target: TypeAlias = Number | Name
Sender: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
"""0: no process sent it."""
Tag: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARACTERS)]
Word: TypeAlias = Annotated[str, msgspec.Meta(max_length=32)]
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=4096)]


class _Frame(
    msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True
):
    pass


_NONE = msgspec.Raw(b"\xc0")


class Told(_Frame, frozen=True):
    """An exit reason, or an error: what is known of it elsewhere.

    Attributes:
        word: a signal's value, ``shutdown`` with a detail, or ``error``.
        node: where an error was raised.
        name: the class of an error.
        text: what an error says.
        tag: of a shutdown's detail.
        body: of a shutdown's detail; else an encoded None.
    """

    word: Word
    node: Tag = ""
    name: Tag = ""
    text: Text = ""
    tag: Tag = ""
    body: msgspec.Raw = _NONE


class Send(_Frame, tag=1, frozen=True):
    """A message for a mailbox."""

    to: Target
    tag: Tag
    body: msgspec.Raw


class CastTo(_Frame, tag=2, frozen=True):
    """A cast."""

    to: Target
    tag: Tag
    body: msgspec.Raw


class Call(_Frame, tag=3, frozen=True):
    """A call; :class:`Reply` or :class:`Failed` with its id answers it."""

    id: Number
    caller: Sender
    to: Target
    tag: Tag
    body: msgspec.Raw


class Reply(_Frame, tag=4, frozen=True):
    """The answer to a call."""

    id: Number
    tag: Tag
    body: msgspec.Raw


class Failed(_Frame, tag=5, frozen=True):
    """There is no answer to a call.

    Attributes:
        id: of the call.
        code: ``raised``: ``why`` is what the server gave as error; ``down``: it ended
            for ``why``; ``no_process``; or a code of ``RemoteCallError``.
        why: see there; else its text is for people.
    """

    id: Number
    code: Word
    why: Told


class Cancel(_Frame, tag=6, frozen=True):
    """Nobody waits for the answer to a call any more."""

    id: Number


class Signal(_Frame, tag=7, frozen=True):
    """An exit signal, as ``exit_process`` sends it."""

    to: Target
    sender: Sender
    reason: Told


class Stop(_Frame, tag=8, frozen=True):
    """Asks for an orderly end, as ``stop`` does."""

    to: Target
    reason: Told


class Watch(_Frame, tag=9, frozen=True):
    """Asks to be told of a process' end, by one :class:`Ended` with that id."""

    id: Number
    to: Target


class Unwatch(_Frame, tag=10, frozen=True):
    """Takes that back."""

    id: Number


class Ended(_Frame, tag=11, frozen=True):
    """A process that was watched has ended, or was not there."""

    id: Number
    reason: Told


class LinkTo(_Frame, tag=12, frozen=True):
    """Links a process of the sender and one of the receiver."""

    sender: Number
    to: Number


class Unlink(_Frame, tag=13, frozen=True):
    """Undoes a link; see :mod:`atomr.cluster.remote.unlinks` for the id."""

    sender: Number
    to: Number
    id: Number


class Unlinked(_Frame, tag=14, frozen=True):
    """Says that an :class:`Unlink` was handled."""

    sender: Number
    to: Number
    id: Number


class LinkEnded(_Frame, tag=15, frozen=True):
    """A linked process of the sender has ended, or was not there."""

    sender: Number
    to: Number
    reason: Told


Frame: TypeAlias = (
    Send
    | CastTo
    | Call
    | Reply
    | Failed
    | Cancel
    | Signal
    | Stop
    | Watch
    | Unwatch
    | Ended
    | LinkTo
    | Unlink
    | Unlinked
    | LinkEnded
)
