"""Wrong arguments are refused where they are given, with the value and the remedy."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial, wraps
from math import inf, nan
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import pytest
import trio
import trio.testing

from atomr.core import state_engine
from atomr.core.intensity import RestartIntensity
from atomr.errors import (
    BadActionError,
    BadReturnError,
    ChildError,
    InitStoppedError,
    RootExitError,
    ServerDownError,
    StartError,
)
from atomr.interop import Blocking, call_asyncio, call_blocking
from atomr.otp import (
    BRUTAL_KILL,
    INFINITY,
    Agent,
    AgentRef,
    Application,
    AutoShutdown,
    ChildKind,
    ChildSpec,
    DynamicSupervisor,
    EventTimeout,
    From,
    GaveUp,
    GenServer,
    Internal,
    Keep,
    MailboxLimit,
    Next,
    Overflow,
    PartitionSupervisor,
    Postpone,
    Registry,
    Reply,
    Restart,
    Shutdown,
    StateEvent,
    StateMachine,
    StateResult,
    StateTimeout,
    Supervisor,
    Task,
    TaskSupervisor,
    Timeout,
    async_,
    async_nolink,
    async_stream,
    async_stream_nolink,
    call,
    child,
    count_children,
    server_results,
    start_child,
    start_task,
    sys,
    which_children,
    yield_many,
)
from atomr.otp.children import StartChild, TerminateChild
from atomr.otp.partition_supervisor import Resize
from atomr.process import (
    Node,
    PlainProcess,
    Startable,
    kill,
    open_node,
    send_after,
    send_interval,
    spawn,
    wait_exit,
    whereis,
)
from atomr.refs import Pid, Via

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason
    from atomr.process.process import Process
    from atomr.process.task_process import TaskProcess

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
# The mistakes of this file are those that a type checker would see.
Anything: TypeAlias = Any
MEMBERS = "expected a member of Restart: PERMANENT, TRANSIENT, TEMPORARY"
SECONDS = "expected seconds, at least 0"


class Counter(GenServer):
    def __init__(self) -> None:
        self.total = 0

    def __repr__(self) -> str:
        return "<a counter>"

    def handle_call(self, request: int, from_: From) -> Reply:
        self.total += 12 // request
        return Reply(self.total)


def spec(**options: Anything) -> ChildSpec:
    options.setdefault("id", "cache")
    return child(Counter, **options)


def said(fn: Callable[[], object]) -> tuple[type[Exception], str]:
    """Return what the call raised."""
    with pytest.raises((TypeError, ValueError)) as caught:
        fn()
    return caught.type, str(caught.value)


# --- options --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"restart": "temporary"},
            TypeError,
            "restart='temporary': expected a member of Restart;"
            " did you mean Restart.TEMPORARY?",
        ),
        (
            {"restart": "Transiant"},
            TypeError,
            "restart='Transiant': expected a member of Restart;"
            " did you mean Restart.TRANSIENT?",
        ),
        ({"restart": "nonsense"}, TypeError, f"restart='nonsense': {MEMBERS}"),
        ({"restart": None}, TypeError, f"restart=None: {MEMBERS}"),
        (
            {"restart": ChildKind.WORKER},
            TypeError,
            f"restart=<ChildKind.WORKER: 'worker'>: {MEMBERS}",
        ),
        (
            {"shutdown": "infinity"},
            TypeError,
            "shutdown='infinity': expected seconds, BRUTAL_KILL or INFINITY;"
            " did you mean INFINITY?",
        ),
        (
            {"shutdown": "brutal_kill"},
            TypeError,
            "shutdown='brutal_kill': expected seconds, BRUTAL_KILL or INFINITY;"
            " did you mean BRUTAL_KILL?",
        ),
        (
            {"shutdown": "soon"},
            TypeError,
            "shutdown='soon': expected seconds, BRUTAL_KILL or INFINITY",
        ),
        ({"shutdown": True}, TypeError, f"shutdown=True: {SECONDS}"),
        ({"shutdown": -1}, ValueError, f"shutdown=-1: {SECONDS}"),
        ({"shutdown": nan}, ValueError, f"shutdown=nan: {SECONDS}"),
        (
            {"kind": "worker"},
            TypeError,
            "kind='worker': expected a member of ChildKind;"
            " did you mean ChildKind.WORKER?",
        ),
        (
            {"significant": "yes"},
            TypeError,
            "significant='yes': expected True or False",
        ),
        (
            {"significant": True},
            ValueError,
            "significant=True needs a transient or temporary child; a permanent one"
            " never ends by itself",
        ),
        ({"name": 5}, TypeError, "name=5: expected a text or a registry's via"),
        ({"init_timeout_s": -1}, ValueError, f"init_timeout_s=-1: {SECONDS}"),
        ({"init_timeout_s": "1"}, TypeError, f"init_timeout_s='1': {SECONDS}"),
        ({"backoff_s": nan}, ValueError, f"backoff_s=nan: {SECONDS}"),
        ({"backoff_s": None}, TypeError, f"backoff_s=None: {SECONDS}"),
        ({"max_backoff_s": -0.1}, ValueError, f"max_backoff_s=-0.1: {SECONDS}"),
        (
            {"mailbox": 10},
            TypeError,
            "mailbox=10: expected a MailboxLimit, as MailboxLimit(10, Overflow.REJECT)",
        ),
        ({"mailbox": "10"}, TypeError, "mailbox='10': expected a MailboxLimit"),
    ],
)
def test_an_option_of_a_child_that_nothing_understands_is_refused(
    options: dict[str, Anything], error: type[Exception], text: str
) -> None:
    assert said(lambda: spec(**options)) == (error, f"child 'cache': {text}")
    right = spec()
    # A changed copy is checked as well.
    assert said(lambda: attrs.evolve(right, **options))[0] is error


def test_an_id_and_a_start_are_checked() -> None:
    assert said(lambda: spec(id=5)) == (TypeError, "child 5: id=5: expected a text")
    start: Anything = 7
    assert said(lambda: ChildSpec(id="x", start=start)) == (
        TypeError,
        "child 'x': start=7: expected a class, or a function that makes a fresh one",
    )


def test_what_is_right_is_taken() -> None:
    for shutdown in (0, 2.5, inf, BRUTAL_KILL, INFINITY, None):
        assert spec(shutdown=shutdown).shutdown == shutdown
    full = spec(
        restart=Restart.TEMPORARY,
        kind=ChildKind.SUPERVISOR,
        significant=True,
        name="c",
        init_timeout_s=0,
        backoff_s=1,
        max_backoff_s=inf,
        mailbox=MailboxLimit(1, Overflow.WAIT),
    )
    assert (full.significant, full.name, full.backoff_s) == (True, "c", 1)


Make: TypeAlias = Callable[..., object]


def partitions(**options: Anything) -> PartitionSupervisor:
    return PartitionSupervisor(spec(), **options)


def empty(**options: Anything) -> Application:
    options = {"name": "web", "start": Supervisor, **options}
    return Application(**options)


@pytest.mark.parametrize("make", [Supervisor, DynamicSupervisor, TaskSupervisor])
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_restarts": -1}, ValueError, "max_restarts=-1: expected at least 0"),
        (
            {"max_restarts": 1.5},
            TypeError,
            "max_restarts=1.5: expected an integer, at least 0",
        ),
        (
            {"max_restarts": None},
            TypeError,
            "max_restarts=None: expected an integer, at least 0",
        ),
        ({"max_seconds": 0}, ValueError, "max_seconds=0: expected seconds, above 0"),
        (
            {"max_seconds": nan},
            ValueError,
            "max_seconds=nan: expected seconds, above 0",
        ),
        ({"max_seconds": "5"}, TypeError, "max_seconds='5': expected seconds, above 0"),
        ({"backoff_s": nan}, ValueError, f"backoff_s=nan: {SECONDS}"),
        ({"max_backoff_s": -1}, ValueError, f"max_backoff_s=-1: {SECONDS}"),
    ],
)
def test_each_supervisor_refuses_limits_that_are_none(
    make: Make, options: dict[str, Anything], error: type[Exception], text: str
) -> None:
    assert said(lambda: make(**options)) == (error, text)
    assert said(lambda: partitions(**options)) == (error, text)


@pytest.mark.parametrize(
    ("make", "options", "error", "text"),
    [
        (
            Supervisor,
            {"strategy": "one_for_all"},
            TypeError,
            "strategy='one_for_all': expected a member of Strategy;"
            " did you mean Strategy.ONE_FOR_ALL?",
        ),
        (
            Supervisor,
            {"strategy": "nonsense"},
            TypeError,
            "strategy='nonsense': expected a member of Strategy:"
            " ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE",
        ),
        (
            Supervisor,
            {"auto_shutdown": "never"},
            TypeError,
            "auto_shutdown='never': expected a member of AutoShutdown;"
            " did you mean AutoShutdown.NEVER?",
        ),
        (
            partitions,
            {"strategy": AutoShutdown.NEVER},
            TypeError,
            "strategy=<AutoShutdown.NEVER: 'never'>: expected a member of Strategy:"
            " ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE",
        ),
        (partitions, {"partitions": 0}, ValueError, "partitions=0: expected at least"),
        (
            partitions,
            {"partitions": "4"},
            TypeError,
            "partitions='4': expected an integer",
        ),
        (
            partitions,
            {"with_arguments": (1,)},
            TypeError,
            "with_arguments=(1,): expected a class, or a function",
        ),
        (
            DynamicSupervisor,
            {"max_children": -1},
            ValueError,
            "max_children=-1: expected at least 0",
        ),
        (
            TaskSupervisor,
            {"max_children": "3"},
            TypeError,
            "max_children='3': expected an integer, at least 0",
        ),
        (
            DynamicSupervisor,
            {"extra_arguments": "db"},
            TypeError,
            "extra_arguments='db': expected a tuple, as ('db',)",
        ),
        (
            Registry,
            {"keys": "unique"},
            TypeError,
            "keys='unique': expected a member of Keys; did you mean Keys.UNIQUE?",
        ),
        (
            MailboxLimit,
            {"size": 0, "overflow": Overflow.WAIT},
            ValueError,
            "MailboxLimit: size=0: expected at least 1",
        ),
        (
            MailboxLimit,
            {"size": True, "overflow": Overflow.WAIT},
            TypeError,
            "MailboxLimit: size=True: expected an integer, at least 1",
        ),
        (
            MailboxLimit,
            {"size": 1, "overflow": "drop-oldest"},
            TypeError,
            "MailboxLimit: overflow='drop-oldest': expected a member of Overflow;"
            " did you mean Overflow.DROP_OLDEST?",
        ),
        (
            empty,
            {"restart": "permanent"},
            TypeError,
            "Application 'web': restart='permanent': expected a member of Restart;"
            " did you mean Restart.PERMANENT?",
        ),
        (
            empty,
            {"depends_on": "store"},
            TypeError,
            "Application 'web': depends_on='store': expected a tuple, as ('store',)",
        ),
        (
            empty,
            {"start": Supervisor()},
            TypeError,
            "Application 'web': start=",
        ),
        (empty, {"name": None}, TypeError, "Application None: name=None: expected a"),
        (
            RestartIntensity,
            {"max_restarts": "3"},
            TypeError,
            "max_restarts='3': expected an integer, at least 0",
        ),
    ],
)
def test_an_option_that_nothing_understands_is_refused(
    make: Make, options: dict[str, Anything], error: type[Exception], text: str
) -> None:
    kind, message = said(lambda: make(**options))
    assert kind is error
    assert message.startswith(text)


async def test_options_of_functions_are_checked(clean_node: CleanNode) -> None:
    async def nothing(*_: object) -> None:
        pass

    wrong: Anything = "kill_task"
    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        with pytest.raises(TypeError, match="KILL_TASK"):
            async_stream("tasks", [], nothing, on_timeout=wrong)
        with pytest.raises(TypeError, match="KILL_TASK"):
            await yield_many([], on_timeout=wrong)
        with pytest.raises(TypeError, match="TRANSIENT"):
            start_task("tasks", nothing, restart="transient")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="did you mean INFINITY"):
            start_task("tasks", nothing, shutdown="infinity")  # type: ignore[arg-type]
        assert (await count_children("tasks")).active == 0


# --- what is to be a child ------------------------------------------------------------


def serve() -> Counter:
    return Counter()


async def work() -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            Counter(),
            "child(<a counter>): pass the class, or a function that makes a fresh one"
            " at each start: child(Counter)",
        ),
        (None, "child(None): expected a class, or a function that makes a fresh one"),
        (
            work,
            "child(work): an async function runs by"
            " child(lambda: PlainProcess(work), id='work')",
        ),
    ],
)
def test_child_takes_what_makes_a_fresh_one(given: Anything, text: str) -> None:
    assert said(lambda: child(given)) == (TypeError, text)
    assert said(lambda: child(given, id="x")) == (TypeError, text)


NO_SPEC = [
    (Counter, "use child(Counter)"),
    (serve, "use child(serve)"),
    (partial(Counter), "use child(Counter)"),
    (Counter(), "use child(Counter), which makes a fresh one"),
    (None, "make one by child(...)"),
    ("Counter", "make one by child(...)"),
]


@pytest.mark.parametrize(("given", "remedy"), NO_SPEC)
async def test_start_child_refuses_in_the_client_what_is_no_specification(
    clean_node: CleanNode, given: Anything, remedy: str
) -> None:
    async with clean_node() as node:
        top = await node.start(Supervisor([child(Counter, name="sibling")]))
        sibling = whereis("sibling")

        with pytest.raises(TypeError) as caught:
            await start_child(top, given)

        text = str(caught.value)
        assert text.startswith("start_child(): expected a ChildSpec, not ")
        assert text.endswith(f": {remedy}")
        assert whereis("sibling") is sibling


@pytest.mark.parametrize(("given", "remedy"), NO_SPEC)
def test_a_supervisors_children_are_specifications(
    given: Anything, remedy: str
) -> None:
    kind, text = said(lambda: Supervisor([spec(), given]))
    assert kind is TypeError
    assert text.startswith("Supervisor: children[1]: expected a ChildSpec, not ")
    assert text.endswith(f": {remedy}")
    assert said(lambda: PartitionSupervisor(given))[1].endswith(f": {remedy}")


@pytest.mark.parametrize("given", [spec(), Counter, None, "children", 3])
def test_a_supervisors_children_are_several(given: Anything) -> None:
    kind, text = said(lambda: Supervisor(given))
    assert kind is TypeError
    assert "): expected a list of child specifications" in text
    assert text.endswith(": use [...]") is isinstance(given, ChildSpec)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Counter, "use child(Counter)"),
        (serve, "use child(serve)"),
        (None, "make one by child(...)"),
    ],
)
async def test_a_root_is_a_specification_or_an_instance(
    clean_node: CleanNode, given: Anything, text: str
) -> None:
    async with clean_node() as node:
        with pytest.raises(TypeError) as caught:
            await node.start(given)
        assert str(caught.value).startswith("Node.start(")
        assert str(caught.value).endswith(
            f"): expected a ChildSpec, a server or a supervisor: {text}"
        )
        assert node.size == 0


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (lambda: Counter, "start returned the class Counter, expected Counter()"),
        (lambda: 3, "start returned int, expected a GenServer, a supervisor or"),
        (
            # Not found by child(): it is no async function itself.
            lambda: work(),  # noqa: PLW0108 - the mistake in question
            "an async function runs as one by PlainProcess(fn)",
        ),
    ],
)
async def test_a_start_that_returns_something_else_says_what(
    clean_node: CleanNode, start: Callable[[], object], text: str
) -> None:
    async with clean_node() as node:
        with pytest.raises(StartError) as caught:
            await node.start(child(start, id="it"))
        assert isinstance(caught.value.reason, TypeError)
        assert text in str(caught.value)


# --- supervisors survive --------------------------------------------------------------


class Hostile:
    """A key that nothing can be done with."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError("not to be compared")


class BrokenVia(Via):
    def __init__(self, breaks: str) -> None:
        self.breaks = breaks

    def whereis(self) -> Pid | None:
        if self.breaks == "whereis":
            raise ArithmeticError("no look-up")
        return None

    def register(self, pid: Pid) -> None:
        raise ArithmeticError("no registration")

    def unregister(self, pid: Pid) -> None:
        raise ArithmeticError("no registration")


class Sticky(Startable):
    """Code of a user that fails when it is asked to stop, as often as it is told."""

    def __init__(self, refusals: list[str]) -> None:
        self.refusals = refusals

    async def run_process(self, process: TaskProcess) -> ExitReason:
        process.started()
        await trio.sleep_forever()

    def stops_gracefully(self, process: Process) -> bool:
        return True

    def ask_to_stop(self, process: Process, reason: ExitReason) -> None:
        if self.refusals:
            raise ArithmeticError(self.refusals.pop())
        process.cancel(reason)


class Unmakeable(Startable):
    """Code of a user that fails when its process is made."""

    async def run_process(self, process: TaskProcess) -> ExitReason:
        raise NotImplementedError

    def make_process(self, *_: object, **__: object) -> Process:
        raise ArithmeticError("no process")


Tops = pytest.mark.parametrize(
    "make", [Supervisor, DynamicSupervisor, TaskSupervisor, partitions]
)
REQUESTS: list[Anything] = [
    None,
    "nonsense",
    StartChild(None),  # type: ignore[arg-type]
    StartChild(Counter),  # type: ignore[arg-type]
    TerminateChild(Hostile()),  # type: ignore[arg-type]
    TerminateChild(None),  # type: ignore[arg-type]
    StartChild(spec(id="via", name=BrokenVia("whereis"))),
    StartChild(spec(id="via", name=BrokenVia("register"))),
    StartChild(child(Unmakeable)),
    Resize("x"),  # type: ignore[arg-type]
]


@Tops
async def test_a_supervisor_survives_any_request(
    clean_node: CleanNode, make: Callable[[], Startable], schedule: int
) -> None:
    async with clean_node() as node:
        top = await node.start(make())
        children = await which_children(top)
        for request in REQUESTS:
            with pytest.raises(
                (TypeError, AttributeError, ArithmeticError, ChildError, StartError)
            ):
                await call(top, request)
            assert await which_children(top) == children


@pytest.mark.parametrize("make", [Supervisor, DynamicSupervisor])
async def test_a_child_that_could_not_be_stopped_is_still_a_child(
    clean_node: CleanNode, make: Callable[[], Startable]
) -> None:
    refusals = ["not now"]
    async with clean_node() as node:
        top = await node.start(make())
        pid = await start_child(top, child(lambda: Sticky(refusals), id="sticky"))
        children = await which_children(top)

        with pytest.raises(ArithmeticError, match="not now"):
            await call(top, TerminateChild(pid), timeout_s=None)

        assert await which_children(top) == children
        kill(pid)
        await trio.testing.wait_all_tasks_blocked()
        (again,) = await which_children(top)
        assert again.pid is not None
        assert again.pid is not pid
        pid = again.pid
        await call(top, TerminateChild(pid), timeout_s=None)
        assert await wait_exit(pid) is not None
        assert (await count_children(top)).active == 0


async def test_partitions_that_could_not_be_stopped_keep_their_keys(
    clean_node: CleanNode,
) -> None:
    refusals: list[str] = []
    async with clean_node() as node:
        each = child(lambda: Sticky(refusals), id="sticky")
        top = await node.start(PartitionSupervisor(each, partitions=3))
        children = await which_children(top)
        refusals.append("not now")

        with pytest.raises(ArithmeticError, match="not now"):
            await call(top, Resize(1))

        assert await which_children(top) == children
        assert await call(top, Resize(1)) == 3
        assert await which_children(top) == children[:1]


async def test_a_broken_look_up_in_a_restart_counts_as_a_failed_start(
    clean_node: CleanNode,
) -> None:
    class Fickle(BrokenVia):
        def register(self, pid: Pid) -> None:
            self.breaks = "whereis"

        def unregister(self, pid: Pid) -> None:
            pass

    async with clean_node() as node:
        tree = Supervisor([spec(name=Fickle("later"))], max_restarts=2)
        top = await node.start(child(lambda: tree, id="top", restart=Restart.TEMPORARY))
        (info,) = await which_children(top)
        assert info.pid is not None
        with pytest.raises(ServerDownError):
            await call(info.pid, 0)
        reason = await wait_exit(top)
        assert isinstance(reason, Shutdown)
        assert isinstance(reason.detail, GaveUp)
        assert str(reason.detail.reason) == (
            "start of 'cache' failed: ArithmeticError('no look-up')"
        )


@pytest.mark.parametrize("base", [Supervisor, DynamicSupervisor, TaskSupervisor])
@pytest.mark.parametrize("name", ["init", "handle_info", "handle_call", "terminate"])
def test_a_supervisor_with_callbacks_is_refused(
    base: type[Supervisor], name: str
) -> None:
    assert said(lambda: type("Top", (base,), {name: lambda _: None})) == (
        TypeError,
        f"class Top: a supervisor has no {name}(); write a function that returns"
        " Supervisor([...]) with its options",
    )
    assert type("Top", (base,), {"other": None}).__name__ == "Top"


# --- functions ------------------------------------------------------------------------


def add(a: int, b: int) -> int:
    return a + b


def plain(_: object = None) -> None:
    pass


async def double(item: int) -> int:
    return 2 * item


class Worker:
    def plain_method(self) -> None:
        pass

    async def async_method(self) -> None:
        pass


SYNC = "expected an async function: write `async def`"
CALLED = "it was called already: pass the function, and its arguments after it"
STARTERS: dict[str, Callable[..., object]] = {
    "spawn()": spawn,
    "PlainProcess()": PlainProcess,
    "Task.async_()": Task.async_,
    "Task.child()": Task.child,
    "async_()": partial(async_, "tasks"),
    "async_nolink()": partial(async_nolink, "tasks"),
    "start_task()": partial(start_task, "tasks"),
    "async_stream()": partial(async_stream, "tasks", []),
    "async_stream_nolink()": partial(async_stream_nolink, "tasks", []),
}


@pytest.mark.parametrize("operation", STARTERS)
async def test_what_runs_as_a_process_is_an_async_function(
    clean_node: CleanNode, operation: str
) -> None:
    run = STARTERS[operation]
    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        for given, text in (
            (plain, f"plain: {SYNC}"),
            (partial(add, 1), f"add: {SYNC}"),
            (Worker().plain_method, f"Worker.plain_method: {SYNC}"),
            (work(), f"work(...): {CALLED}"),
            (None, "None: expected an async function"),
            (5, "5: expected an async function"),
        ):
            assert said(partial(run, given)) == (TypeError, f"{operation}: {text}")
        assert node.size == 1


def wrapped(fn: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    @wraps(fn)
    def inner() -> Awaitable[None]:
        return fn()

    return inner


@wraps(double)
def relayed(item):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return double(item)


del relayed.__annotations__["return"]


def unmarked(fn: Anything) -> Anything:
    def inner(*args):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN202
        return fn(*args)

    return inner


def annotated() -> Awaitable[int]:
    return double(2)


class AsyncCallable:
    def __call__(self) -> Awaitable[int]:
        return double(2)


async def test_what_returns_an_awaitable_in_any_way_is_taken(
    clean_node: CleanNode,
) -> None:
    async with clean_node():
        for fn in (
            partial(double, 2),
            wrapped(Worker().async_method),
            unmarked(partial(double, 2)),
            annotated,
            partial(relayed, 2),
            AsyncCallable(),
            lambda: double(2),
            Worker().async_method,
        ):
            task: Task[object] = Task.async_(fn)
            assert await task.result() in (4, None)


async def test_a_function_that_returned_nothing_to_await_says_so(
    clean_node: CleanNode,
) -> None:
    given: Anything = lambda: 3  # noqa: E731 - the mistake in question
    async with clean_node() as node:
        await node.start(child(TaskSupervisor, name="tasks"))
        reasons = (
            await wait_exit(spawn(given)),
            await wait_exit(start_task("tasks", given)),
        )
        assert [str(reason) for reason in reasons] == [
            "<lambda> returned 3: expected an async function"
        ] * 2
        assert isinstance(reasons[0], TypeError)


async def test_what_an_agent_or_a_thread_runs_is_a_plain_function(
    clean_node: CleanNode,
) -> None:
    wrong: Anything = work
    agent = AgentRef[dict[str, int]]("agent")
    in_agent = "it would run in the agent; await before, or after"
    in_thread = "a thread has no event loop; for asyncio there is call_asyncio()"

    def refused(operation: str, remedy: str) -> str:
        expected = "expected a plain function, not an async one"
        return f"{operation}: work: {expected}: {remedy}"

    async with clean_node() as node:
        await node.start(child(Agent.of(dict), name="agent"))
        for name in ("get", "update", "get_and_update"):
            with pytest.raises(TypeError) as caught:
                await getattr(agent, name)(wrong)
            assert str(caught.value) == refused(f"AgentRef.{name}()", in_agent)
        assert said(lambda: agent.cast(wrong)) == (
            TypeError,
            refused("AgentRef.cast()", in_agent),
        )
        with pytest.raises(TypeError) as caught:
            await call_blocking("nobody", wrong)
        assert str(caught.value) == refused("call_blocking()", in_thread)
        assert await agent.get(len) == 0
    assert said(lambda: Agent.of(wrong))[1] == refused("Agent.of()", in_agent)
    assert said(lambda: Agent.of(5)) == (  # type: ignore[arg-type]
        TypeError,
        "make=5: expected a class, or a function that makes a fresh one",
    )
    assert said(lambda: Blocking.of(work()))[1].startswith(  # type: ignore[arg-type]
        "Blocking.of(): work: expected a plain function"
    )
    with pytest.raises(TypeError, match=r"call_asyncio\(\): plain: expected an async"):
        await call_asyncio("nobody", plain)  # type: ignore[arg-type]


async def test_other_arguments_of_a_spawn_are_checked(clean_node: CleanNode) -> None:
    wrong: Anything = 10
    async with clean_node() as node:
        assert said(lambda: spawn(work, mailbox=wrong))[1].startswith("mailbox=10: ")
        assert said(lambda: spawn(work, name=wrong)) == (
            TypeError,
            "spawn(): name=10: expected a text",
        )
        assert node.size == 0


@pytest.mark.parametrize(
    ("seconds", "error"), [("1", TypeError), (None, TypeError), (nan, ValueError)]
)
async def test_a_timers_time_is_a_number(
    clean_node: CleanNode, seconds: Anything, error: type[Exception]
) -> None:
    async with clean_node() as node:
        for name, arm in (
            ("send_after(): delay_s", send_after),
            ("send_interval(): interval_s", send_interval),
        ):
            assert said(partial(arm, seconds, "nobody", "x")) == (
                error,
                f"{name}={seconds!r}: {SECONDS}",
            )
        assert node.timers.size == 0


# --- one instance runs once -----------------------------------------------------------

USED = "this instance runs already, or has run: make a fresh one at each start"


async def test_a_running_instance_is_not_started_again(clean_node: CleanNode) -> None:
    counter = Counter()
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        pid = await start_child(top, child(lambda: counter, id="first"))
        assert await call(pid, 3) == 4
        with pytest.raises(StartError) as caught:
            await start_child(top, child(lambda: counter, id="second"))
        assert (caught.value.child, str(caught.value.reason)) == ("second", USED)
        with pytest.raises(StartError, match="make a fresh one"):
            await node.start(counter)
        assert await call(pid, 3) == 8
        assert node.size == 2


class Door(StateMachine):
    def init(self) -> Next:
        return Next(self.shut)

    def shut(self, event: StateEvent) -> StateResult:
        return Keep()


@attrs.frozen
class Frozen(GenServer):
    limit: int = 3


@pytest.mark.parametrize(
    "make", [Counter, Door, Frozen, Supervisor, lambda: PlainProcess(work)]
)
async def test_an_instance_that_has_run_is_not_started_again(
    clean_node: CleanNode, make: Callable[[], Startable]
) -> None:
    used = make()
    async with clean_node() as node:
        top = await node.start(DynamicSupervisor())
        pid = await start_child(top, child(lambda: used, id="it"))
        await call(top, TerminateChild(pid))
        with pytest.raises(StartError) as caught:
            await start_child(top, child(lambda: used, id="it"))
        assert str(caught.value.reason) == USED
        assert (await count_children(top)).specs == 0


async def test_a_restart_with_the_crashed_instance_fails() -> None:
    used = Counter()
    with pytest.raises(RootExitError) as caught:
        async with open_node() as node:
            await node.start(Supervisor([child(lambda: used, id="it", name="it")]))
            with pytest.raises(ServerDownError):
                await call("it", 0)
            await trio.sleep_forever()
    assert isinstance(caught.value.reason, Shutdown)
    assert str(caught.value.reason.detail.reason) == (  # type: ignore[attr-defined]
        f"start of 'it' failed: ValueError({USED!r})"
    )


async def test_the_mark_of_a_used_instance_is_nowhere_to_be_seen(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        counter = await node.start(Counter())
        door = await node.start(Door())
        state = await sys.get_state(counter)
        assert vars(state) == {"total": 0}
        assert (await sys.get_status(counter)).state == {"total": 0}
        assert (await sys.get_status(door)).state == ("shut", {})
        # A state that was taken out may live another time.
        assert isinstance(state, Counter)
        other = await node.start(state)
        assert await call(other, 3) == 4


# --- callbacks and their results ------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "name", "method", "meant"),
    [
        (GenServer, "handel_call", lambda _s, _r, _f: None, "handle_call"),
        (GenServer, "handle_cal", lambda _s, _r, _f: None, "handle_call"),
        (GenServer, "handle_infos", lambda _s, _m: None, "handle_info"),
        (GenServer, "terminat", lambda _s, _r: None, "terminate"),
        (GenServer, "format_state", lambda _s: None, "format_status"),
        (GenServer, "formatstatus", lambda _s: None, "format_status"),
        (GenServer, "handle_order", lambda _s, _m: None, None),
        (GenServer, "handle_case", lambda _s: None, None),
        (GenServer, "_handel_call", lambda _s, _r, _f: None, None),
        (GenServer, "handle_calls", 3, None),
        (StateMachine, "handle_evnt", lambda _s, _e, _t: None, "handle_event"),
        # A state of that name.
        (StateMachine, "terminated", lambda _s, _e: None, None),
    ],
)
def test_a_misspelt_callback_is_warned_of(
    base: type[Startable], name: str, method: object, meant: str | None
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        type("Mine", (base,), {name: method})
    expected = [f"class Mine: {name}() is no callback; is it {meant}()?"]
    assert [str(w.message) for w in caught] == (expected if meant else [])
    assert [w.filename for w in caught] == [__file__] * len(caught)


class Machine(StateMachine):
    def __init__(self, action: Anything) -> None:
        self.action = action

    def init(self) -> Next:
        return Next(self.only)

    def only(self, event: StateEvent) -> StateResult:
        return Keep(self.action)


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (StateTimeout(3), "expected an action; use StateTimeout.after(3)"),
        (EventTimeout(), "expected an action; use EventTimeout.after(seconds)"),
        (Timeout("poll", 3), "expected an action; use Timeout.after('poll', 3)"),
        (Postpone, "expected an action; use Postpone()"),
        (Internal(1), "expected an action; use Insert(Internal(content=1))"),
        (3, "expected an action"),
    ],
)
async def test_an_event_in_the_place_of_an_action_is_told_how_it_is_written(
    clean_node: CleanNode, action: object, text: str
) -> None:
    async with clean_node() as node:
        spec_ = child(lambda: Machine(action), id="it", restart=Restart.TEMPORARY)
        pid = await node.start(spec_)
        with pytest.raises(ServerDownError) as caught:
            await call(pid, "x")
        assert isinstance(caught.value.reason, BadActionError)
        assert str(caught.value.reason).endswith(f": {text}")


def test_the_errors_of_callbacks_are_where_all_errors_are() -> None:
    old = (
        vars(state_engine)["BadActionError"],
        vars(server_results)["BadReturnError"],
        vars(server_results)["InitStoppedError"],
    )
    new = (BadActionError, BadReturnError, InitStoppedError)
    assert old == new
    assert {error.__module__ for error in new} == {"atomr.errors"}
