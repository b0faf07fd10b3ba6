"""What a caller gets instead of a reply, and a sender whose message has no room."""

from __future__ import annotations

from atomr.errors.base import AtomrError, short


class CallError(AtomrError):
    """A ``call`` got no reply.

    Attributes:
        server: the pid or name that was called.
        request: the request, so that a log line says what was asked.
    """

    def __init__(self, server: object, request: object) -> None:
        self.server = server
        self.request = request
        # The text is made when it is read: most of these are caught, not shown.
        super().__init__(server, request)

    def __str__(self) -> str:
        """Return ``call(server, request): what went wrong``."""
        return f"call({self.server!r}, {short(self.request)}): {self._problem()}"

    def __repr__(self) -> str:
        """Return the text as well: as an exit reason this is all that is seen."""
        return f"{type(self).__name__}({str(self)!r})"

    def _problem(self) -> str:
        return "no reply"


class NoProcessError(CallError):
    """Nothing lives under that pid or name; the request was not delivered."""

    def _problem(self) -> str:
        return "no such process"


class NoRegistryError(NoProcessError):
    """No registry or pubsub runs under that name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, None)

    def __str__(self) -> str:
        """Return which name it is."""
        return f"no registry runs under the name {self.server!r}"


class ServerDownError(CallError):
    """The server exited before replying; the request may have taken effect.

    Attributes:
        reason: the server's exit reason (see ``atomr.core.exits``).  An exception
            is the ``__cause__`` as well.
    """

    def __init__(self, server: object, request: object, reason: object) -> None:
        super().__init__(server, request)
        self.reason = reason
        if isinstance(reason, BaseException):
            # The caller's traceback then shows where the server failed.
            self.__cause__ = reason

    def _problem(self) -> str:
        return f"the server exited before replying: {short(self.reason)}"


class CallTimeoutError(CallError):
    """No reply within ``timeout_s``; the server may still act on the request.

    Attributes:
        timeout_s: the bound in seconds that passed.
    """

    def __init__(self, server: object, request: object, timeout_s: float) -> None:
        super().__init__(server, request)
        self.timeout_s = timeout_s

    def _problem(self) -> str:
        return f"no reply within {self.timeout_s} s"


class CallCycleError(CallError):
    """The call can never be answered: the server waits, in turn, for the caller.

    Attributes:
        chain: the pids from the caller through all that wait, back to the caller.
    """

    def __init__(
        self, server: object, request: object, chain: tuple[object, ...]
    ) -> None:
        super().__init__(server, request)
        self.chain = chain

    def _problem(self) -> str:
        return f"deadlock {' -> '.join(map(repr, self.chain))}"


class SystemMessageError(CallError):
    """A process answers no system messages, or one failed; it lives on.

    Attributes:
        problem: what went wrong.
    """

    def __init__(self, server: object, request: object, problem: str) -> None:
        super().__init__(server, request)
        self.problem = problem

    def _problem(self) -> str:
        return self.problem


class MailboxFullError(AtomrError):
    """A bounded mailbox is full, and its policy is not to drop.

    Attributes:
        to: the pid whose mailbox it is.
        size: its bound in messages.
    """

    def __init__(self, to: object, size: int, *, hint: str = "") -> None:
        self.to = to
        self.size = size
        super().__init__(f"mailbox of {to!r} is full ({size} messages){hint}")
