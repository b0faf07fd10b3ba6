"""Exit reasons and errors as values that cross between nodes.

An exception does not cross: its class may be unknown over there, and would be code
that a peer names.  What comes is a :class:`~atomr.errors.RemoteError` that says its
class and its text.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.cluster.remote.codec import RefusedError
from atomr.cluster.remote.frames import MAX_NAME_CHARACTERS, Told
from atomr.core.exits import ExitSignal, Shutdown
from atomr.errors import RemoteError, UnregisteredMessageError, short

if TYPE_CHECKING:
    from atomr.cluster.remote.codec import Codec, Coded
    from atomr.core.exits import ExitReason

MAX_TEXT_CHARACTERS = 2000
MAX_DETAIL_BYTES = 65_536

_SHUTDOWN, _ERROR = "detailed", "error"


def told(reason: ExitReason, *, node: str, codec: Codec) -> Told:
    """Return a reason as it crosses.

    Args:
        reason: why a process ended.
        node: ours.
        codec: for the detail of a ``Shutdown``; one that does not cross is told as
            text, and one that is too long not at all.
    """
    if isinstance(reason, ExitSignal):
        return Told(reason.value)
    if isinstance(reason, Shutdown):
        tag, body = _detail(reason.detail, codec)
        return Told(_SHUTDOWN, tag=tag, body=body)
    return told_error(reason, node=node)


def _detail(detail: object, codec: Codec) -> Coded:
    try:
        tag, body = codec.encode(detail)
    except (UnregisteredMessageError, ValueError):
        return codec.encode(short(detail))
    return (tag, body) if len(bytes(body)) <= MAX_DETAIL_BYTES else codec.encode("...")


def told_error(error: BaseException, *, node: str) -> Told:
    """Return an exception as it crosses; one that came from elsewhere stays."""
    if isinstance(error, RemoteError):
        node, name, text = error.node, error.type_name, error.text
    else:
        name, text = type(error).__name__, _text(error)
    name, node = name[:MAX_NAME_CHARACTERS], node[:MAX_NAME_CHARACTERS]
    text = encodable(text[:MAX_TEXT_CHARACTERS])
    return Told(_ERROR, node=node, name=encodable(name), text=text)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a value's own code; said in its place
        return short(error)


def words(text: str) -> Told:
    """Return something for people."""
    return Told(_ERROR, text=encodable(text[:MAX_TEXT_CHARACTERS]))


def encodable(text: str) -> str:
    """Return a text without the half characters that UTF-8 does not have."""
    return text.encode(errors="replace").decode()


def reason_of(frame: Told, codec: Codec) -> ExitReason:
    """Return the reason that was told.

    What a peer made up is a ``RemoteError`` as well: whatever it says, a process has
    ended.
    """
    if frame.word == _SHUTDOWN:
        try:
            return Shutdown(codec.decode(frame.tag, frame.body))
        except RefusedError as error:
            return Shutdown(error.detail)
    signal = _SIGNALS.get(frame.word)
    return error_of(frame) if signal is None else signal


def error_of(frame: Told) -> RemoteError:
    """Return the exception that was told."""
    return RemoteError(frame.node, frame.name or frame.word, frame.text)


_SIGNALS = {signal.value: signal for signal in ExitSignal}
