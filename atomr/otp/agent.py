"""Agent: a state in a process of its own, and functions that are run on it.

::

    async with open_node() as node:
        pid = await node.start(child(Agent.of(dict)))
        words = AgentRef[dict[str, int]](pid)
        await words.update(lambda state: {**state, "apple": 1})
        assert await words.get(lambda state: state["apple"]) == 1

The functions run *in the agent*, one at a time: a slow one makes all others
wait, so what takes long belongs into the caller, before or after.  One that
raises crashes the agent, as in Elixir: nobody can say in what state it left it.

When to use: state that several processes share and whose operations are as
simple as reading and replacing.  When not: as soon as there are rules, a
:class:`~atomr.otp.GenServer` names them in one place; for a cache that is read
far more often than written, a plain dict in one process' module will do.

Source: Elixir ``Agent``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs

from atomr.core.checks import check_function, check_plain
from atomr.otp.gen_server import GenServer
from atomr.otp.results import Reply
from atomr.process.calls import DEFAULT_TIMEOUT_S, From, Request, call, cast
from atomr.process.signals import stop

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason
    from atomr.refs import Address

S = TypeVar("S")
R = TypeVar("R")

_REMEDY: Final = "it would run in the agent; await before, or after"


@attrs.frozen
class _Apply(Request[R], Generic[S, R]):
    function: Callable[[S], tuple[R, S]]


class Agent(GenServer, Generic[S]):
    """Holds ``state``; talk to it through an :class:`AgentRef`.

    Args:
        make: makes the first state; called in the agent, so that a state that
            takes memory or fails is the agent's, not its starter's.
    """

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make
        self.state: S

    @classmethod
    def of(cls, make: Callable[[], S]) -> Callable[[], Agent[S]]:
        """Return what a child specification starts: a fresh agent each time.

        Raises:
            TypeError: ``make`` is no function.
        """
        check_function("make", make)
        check_plain("Agent.of()", make, _REMEDY)

        def start() -> Agent[S]:
            return cls(make)

        start.__name__ = f"Agent of {getattr(make, '__name__', 'a state')}"
        return start

    def init(self) -> None:
        """Make the state."""
        self.state = self._make()

    def handle_call(self, request: _Apply[S, object], from_: From) -> Reply:
        """Run a function, and reply what it returned."""
        value, self.state = request.function(self.state)
        return Reply(value)

    def handle_cast(self, message: Callable[[S], S]) -> None:
        """Run a function on the state."""
        self.state = message(self.state)

    def format_status(self) -> object:
        """Return the state."""
        return getattr(self, "state", None)


class AgentRef(Generic[S]):
    """An agent's address, and what its state is, for type checkers.

    Args:
        agent: pid or name.
    """

    __slots__ = ("agent",)

    def __init__(self, agent: Address) -> None:
        self.agent = agent

    async def get(
        self, function: Callable[[S], R], *, timeout_s: float | None = DEFAULT_TIMEOUT_S
    ) -> R:
        """Return ``function(state)``; the state stays.

        Raises:
            TypeError: ``function`` is async, or no function; so for the others.
            CallError: the agent is not there, ended meanwhile (``function``
                raised), or took too long; it goes on with it all the same.
        """
        check_plain("AgentRef.get()", function, _REMEDY)
        apply = _Apply[S, R](lambda state: (function(state), state))
        return await call(self.agent, apply, timeout_s=timeout_s)

    async def update(
        self, function: Callable[[S], S], *, timeout_s: float | None = DEFAULT_TIMEOUT_S
    ) -> None:
        """Replace the state by ``function(state)``.

        Raises:
            CallError: as for :meth:`get`.
        """
        check_plain("AgentRef.update()", function, _REMEDY)
        apply = _Apply[S, None](lambda state: (None, function(state)))
        await call(self.agent, apply, timeout_s=timeout_s)

    async def get_and_update(
        self,
        function: Callable[[S], tuple[R, S]],
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> R:
        """Run ``function(state)``, which returns a value and the next state.

        Raises:
            CallError: as for :meth:`get`.
        """
        check_plain("AgentRef.get_and_update()", function, _REMEDY)
        return await call(self.agent, _Apply[S, R](function), timeout_s=timeout_s)

    def cast(self, function: Callable[[S], S]) -> None:
        """Replace the state some time later; nothing tells whether it worked."""
        check_plain("AgentRef.cast()", function, _REMEDY)
        cast(self.agent, function)

    async def stop(self, reason: ExitReason | None = None) -> None:
        """Stop the agent and wait until it has ended.

        Args:
            reason: None: ``NORMAL``.
        """
        if reason is None:
            await stop(self.agent)
        else:
            await stop(self.agent, reason)
