"""What comes of a message for a process of another node."""

from __future__ import annotations

from atomr.errors.base import AtomrError, short
from atomr.errors.calls import CallError, NoProcessError


class NoConnectionError(NoProcessError):
    """There is no link with the node of that process; the request was not sent."""

    def _problem(self) -> str:
        return "no link with its node"


class RemoteCallError(CallError):
    """The other node, or the way to it, has no answer; its server lives on.

    Attributes:
        code: ``busy``: too much waits for that node already, and nothing was sent;
            ``too_long``: the request is over what a link carries, and was not sent;
            ``unknown_message``: it takes no messages of that type;
            ``bad_message``: what it was sent is none of that type;
            ``bad_reply``: the reply cannot cross, as its type is not registered, or
            not here; ``long_reply``: it is over what a link carries.
        detail: the same for people.
    """

    def __init__(
        self, server: object, request: object, *, code: str, detail: str
    ) -> None:
        super().__init__(server, request)
        self.code = code
        self.detail = detail

    def _problem(self) -> str:
        return f"{self.code}: {self.detail}"


class RemoteError(AtomrError):
    """An exception on another node: what it is, never the object itself.

    Attributes:
        node: where it was raised.
        type_name: the class, as ``ValueError``.
        text: what it says.
    """

    def __init__(self, node: str, type_name: str, text: str) -> None:
        self.node = node
        self.type_name = type_name
        self.text = text
        super().__init__(node, type_name, text)

    def __str__(self) -> str:
        """Return it as the other node would show it, and which node that is."""
        return f"{self.type_name}: {self.text} (on {self.node})"


class UnregisteredMessageError(AtomrError):
    """A message of that type does not cross between nodes; nothing was sent.

    Attributes:
        type_name: its class.
    """

    def __init__(self, value: object, *, remedy: str) -> None:
        self.type_name = type(value).__qualname__
        super().__init__(
            f"{short(value)}: {self.type_name} is not among the messages that cross"
            f" between nodes; {remedy}"
        )


class SpawnRefusedError(AtomrError):
    """A node starts no such process for others; nothing was started.

    Attributes:
        node: which.
        name: what was asked for.
    """

    def __init__(self, node: str, name: str, problem: str) -> None:
        self.node = node
        self.name = name
        super().__init__(f"{self.begin(node, name)}{problem}")

    @staticmethod
    def begin(node: str, name: str) -> str:
        """Return what the text begins with."""
        return f"spawn_on({node!r}, {name!r}): "
