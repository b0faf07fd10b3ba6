"""Links, monitors, traps and exits against a model, under random schedules.

The model is a few sets; the processes are real, driven by messages.  After
each step all tasks have settled, so the model and the node must agree on who
lives, with which reason each other ended, and what every mailbox received.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr.core.exits import (
    KILL,
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    ExitReason,
)
from atomr.core.messages import Down, Exit
from atomr.process import (
    Node,
    demonitor,
    exit_process,
    link,
    monitor,
    open_node,
    receive,
    send,
    spawn,
    trap_exit,
    unlink,
)
from atomr.refs import Pid, Ref

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 4
CRASH = ValueError("crash")
REASONS: list[ExitReason] = [NORMAL, SHUTDOWN, KILL, KILLED, CRASH]

Step: TypeAlias = tuple[str, int, int, int]


@attrs.define
class Model:
    """What must be so, after each step."""

    ended: dict[int, ExitReason] = attrs.Factory(dict)
    traps: set[int] = attrs.Factory(set)
    links: set[frozenset[int]] = attrs.Factory(set)
    monitors: dict[int, tuple[int, int]] = attrs.Factory(dict)
    received: dict[int, list[tuple[str, int, ExitReason]]] = attrs.Factory(
        lambda: {n: [] for n in range(COUNT)}
    )

    def end(self, who: int, reason: ExitReason) -> None:
        """Let ``who`` end; tell its links, then its monitors."""
        self.ended[who] = reason
        peers = [next(iter(pair - {who})) for pair in self.links if who in pair]
        self.links = {pair for pair in self.links if who not in pair}
        self.monitors = {
            ref: pair for ref, pair in self.monitors.items() if pair[0] != who
        }
        told = [(r, w) for r, (w, t) in self.monitors.items() if t == who]
        for ref, watcher in told:
            del self.monitors[ref]
            self.received[watcher].append(("down", who, reason))
        for peer in peers:
            self.signal(peer, who, reason)

    def signal(self, to: int, sender: int, reason: ExitReason) -> None:
        """Let an exit signal arrive."""
        if to in self.ended:
            return
        if reason is KILL:
            self.end(to, KILLED)
        elif to in self.traps:
            self.received[to].append(("exit", sender, reason))
        elif reason is not NORMAL or to == sender:
            self.end(to, reason)


@attrs.define
class System:
    """The real processes, and what they have seen."""

    node: Node
    pids: list[Pid] = attrs.Factory(list)
    refs: dict[int, Ref] = attrs.Factory(dict)
    ended: dict[int, ExitReason] = attrs.Factory(dict)
    received: dict[int, list[tuple[str, int, ExitReason]]] = attrs.Factory(
        lambda: {n: [] for n in range(COUNT)}
    )

    async def run(self, me: int) -> None:
        """Do what is sent; record what the process layer sends."""
        while True:
            message = await receive()
            if isinstance(message, Exit):
                assert message.pid is not None
                sender = self.pids.index(message.pid)
                self.received[me].append(("exit", sender, message.reason))
            elif isinstance(message, Down):
                assert message.pid is not None
                target = self.pids.index(message.pid)
                self.received[me].append(("down", target, message.reason))
            else:
                assert callable(message)
                message()

    async def do(self, who: int, action: Callable[[], object]) -> None:
        """Let process ``who`` run ``action``, and wait for all that follows."""
        before = {p.pid: p for p in self.node.processes.values()}
        send(self.pids[who], action)
        await trio.testing.wait_all_tasks_blocked()
        for number, pid in enumerate(self.pids):
            process = before.get(pid)
            if process is not None and process.reason is not None:
                self.ended[number] = process.reason


def steps() -> st.SearchStrategy[list[Step]]:
    who = st.integers(0, COUNT - 1)
    names = ["link", "unlink", "monitor", "demonitor", "trap", "untrap", "exit"]
    step = st.tuples(st.sampled_from(names), who, who, st.integers(0, len(REASONS) - 1))
    return st.lists(step, max_size=25)


def act(  # noqa: C901, PLR0911 - one arm per kind of step
    model: Model, system: System, step: Step, number: int
) -> Callable[[], object] | None:
    """Apply a step to the model; return what the process must do."""
    name, who, to, reason_number = step
    pid, reason = system.pids[to], REASONS[reason_number]
    match name:
        case "link":
            if who == to:
                pass
            elif to in model.ended:
                model.signal(who, to, NOPROC)
            else:
                model.links.add(frozenset({who, to}))
            return lambda: link(pid)
        case "unlink":
            model.links.discard(frozenset({who, to}))
            return lambda: unlink(pid)
        case "monitor":
            if to in model.ended:
                model.received[who].append(("down", to, NOPROC))
            else:
                model.monitors[number] = (who, to)
            return lambda: system.refs.__setitem__(number, monitor(pid))
        case "demonitor":
            own = [
                ref for ref, (watcher, _) in model.monitors.items() if watcher == who
            ]
            if not own:
                return None
            del model.monitors[own[0]]
            return lambda: demonitor(system.refs[own[0]])
        case "trap":
            model.traps.add(who)
            return lambda: trap_exit(True)
        case "untrap":
            model.traps.discard(who)
            return lambda: trap_exit(False)
    model.signal(to, who, reason)
    return lambda: exit_process(pid, reason)


@settings(max_examples=300, deadline=None)
@given(steps())
def test_the_processes_do_what_the_model_says(program: list[Step]) -> None:
    async def main() -> None:
        async with open_node() as node:
            model, system = Model(), System(node)
            system.pids.extend(spawn(system.run, me) for me in range(COUNT))
            await trio.testing.wait_all_tasks_blocked()
            for number, step in enumerate(program):
                if step[1] in model.ended:
                    continue
                action = act(model, system, step, number)
                if action is not None:
                    await system.do(step[1], action)
                assert system.ended == model.ended
                for who in range(COUNT):
                    if who not in model.ended:
                        assert sorted(map(repr, system.received[who])) == sorted(
                            map(repr, model.received[who])
                        )
            for who, pid in enumerate(system.pids):
                process = node.processes.get(pid.number)
                assert (process is None) is (who in model.ended)
                if process is not None:
                    linked = {p.pid for p in process.links or ()}
                    expected = {
                        system.pids[next(iter(pair - {who}))]
                        for pair in model.links
                        if who in pair
                    }
                    assert linked == expected
            for pid in system.pids:
                exit_process(pid, KILL)

    trio.run(main)
