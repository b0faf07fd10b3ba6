"""Messages as bytes, and back.

A message is a tag and a body.  The tag of a registered type is its name, and the
body is decoded by that type alone.  With an empty tag the body is a plain value,
whose tuples, pids and registered messages are extension types of msgpack, so that a
tuple comes as a tuple and a message as a message.

What comes from a peer is trusted in nothing: a tag that nobody registered, a body
that is not of its type and nesting deeper than ``MAX_DEPTH`` are
:class:`RefusedError`, which concerns that message alone.

Pure, but for what a user's own type does when it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from atomr.cluster.remote.frames import Tag, Target
from atomr.cluster.remote.messages import is_message_type
from atomr.errors import UnregisteredMessageError, short
from atomr.refs import Pid

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.cluster.remote.messages import Messages

MAX_DEPTH: Final = 32
"""Plain values inside of each other."""

_PID, _TUPLE, _MESSAGE = 1, 2, 3

Coded: TypeAlias = tuple[str, msgspec.Raw]


class RefusedError(Exception):
    """What a peer sent is no message of ours.

    Attributes:
        code: a word, as of ``RemoteCallError``.
        detail: for people; quotes nothing of what was sent.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(code, detail)


class PidForm(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A pid on its way.

    Attributes:
        node: the name of its node.
        boot: that node's life.
        target: its number, or a name that is looked up at each use.
        label: for people.
    """

    node: Tag
    boot: int
    target: Target
    label: Tag


class _Tagged(msgspec.Struct, array_like=True, frozen=True, gc=False):
    tag: Tag
    body: msgspec.Raw


class Codec:
    """Encodes and decodes for one node.

    Args:
        messages: what crosses.
        form: a pid as it is written; raises ValueError for one that has no address.
        pid: the pid that was written.
    """

    def __init__(
        self,
        messages: Messages,
        *,
        form: Callable[[Pid], PidForm],
        pid: Callable[[PidForm], Pid],
    ) -> None:
        self._names = messages.names
        self._form = form
        self._pid = pid
        self._depth = 0
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._unknown)
        self._any: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(
            ext_hook=self._extension
        )
        self._pids = msgspec.msgpack.Decoder(PidForm)
        self._tagged = msgspec.msgpack.Decoder(_Tagged)
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
            name: msgspec.msgpack.Decoder(cls, ext_hook=self._extension)
            for name, cls in messages.by_name.items()
        }

    # --- encoding ---------------------------------------------------------------------

    def encode(self, message: object) -> Coded:
        """Return tag and body of a message.

        Raises:
            UnregisteredMessageError: its type, or that of something in it, does not
                cross.
            ValueError: it is nested too deep, or holds a number of over 64 bits.
        """
        name = self._names.get(type(message))
        try:
            if name is not None:
                return name, msgspec.Raw(self._encoder.encode(message))
            return "", msgspec.Raw(self._encoder.encode(self._plain(message, 0)))
        except (OverflowError, RecursionError) as error:
            raise ValueError(f"{short(message)} does not cross: {error}") from error

    def _plain(self, value: object, depth: int) -> object:
        kind = type(value)
        if kind in _SCALARS:
            return value
        if depth >= MAX_DEPTH:
            raise ValueError(f"{short(value)}: nested deeper than {MAX_DEPTH}")
        if kind is list:
            return [self._plain(item, depth + 1) for item in value]  # type: ignore[attr-defined]
        if kind is tuple:
            items = [self._plain(item, depth + 1) for item in value]  # type: ignore[attr-defined]
            return self._extended(_TUPLE, items)
        if kind is dict:
            return {
                self._key(key): self._plain(item, depth + 1)
                for key, item in value.items()  # type: ignore[attr-defined]
            }
        name = self._names.get(kind)
        if name is not None:
            body = msgspec.Raw(self._encoder.encode(value))
            return self._extended(_MESSAGE, _Tagged(name, body))
        return self._unknown(value)

    def _key(self, key: object) -> object:
        if type(key) not in _SCALARS:
            remedy = "a key of a dict is a text, a number or bytes"
            raise UnregisteredMessageError(key, remedy=remedy)
        return key

    def _extended(self, code: int, value: object) -> msgspec.msgpack.Ext:
        return msgspec.msgpack.Ext(code, self._encoder.encode(value))

    def _unknown(self, value: object) -> object:
        if isinstance(value, Pid):
            return self._extended(_PID, self._form(value))
        raise UnregisteredMessageError(value, remedy=_remedy(type(value)))

    # --- decoding ---------------------------------------------------------------------

    def decode(self, tag: str, body: msgspec.Raw) -> object:
        """Return the message of a tag and a body.

        Raises:
            RefusedError: there is none.
        """
        self._depth = 0
        return self._decoded(tag, body)

    def _decoded(self, tag: str, body: msgspec.Raw) -> object:
        decoder = self._decoders.get(tag) if tag else self._any
        if decoder is None:
            detail = f"no message is registered there as {short(tag)}"
            raise RefusedError("unknown_message", detail)
        try:
            message: object = decoder.decode(body)
        except RefusedError:
            raise
        except Exception as error:
            # Also what a user's type raises when it is made of such fields.
            detail = f"it is no {tag or 'plain value'}: {type(error).__name__}"
            raise RefusedError("bad_message", detail) from error
        return message

    def _extension(self, code: int, data: memoryview) -> object:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RefusedError("bad_message", f"it is nested deeper than {MAX_DEPTH}")
        try:
            return self._extended_value(code, data)
        finally:
            self._depth -= 1

    def _extended_value(self, code: int, data: memoryview) -> object:
        if code == _PID:
            return self._pid(self._pids.decode(data))
        if code == _TUPLE:
            items = self._any.decode(data)
            if type(items) is list:
                return tuple(items)
        if code == _MESSAGE:
            tagged = self._tagged.decode(data)
            if tagged.tag:
                return self._decoded(tagged.tag, tagged.body)
        raise RefusedError("bad_message", "it holds something that is unknown here")


def _remedy(cls: type[Any]) -> str:
    if is_message_type(cls):
        return f"add it: Messages(..., {cls.__qualname__})"
    return (
        "send a list, a tuple or a dict in its place, or a class of your own that is"
        " registered (attrs, a dataclass, a msgspec.Struct) and holds what is in it"
    )


_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
