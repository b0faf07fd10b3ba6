"""An application's configuration, and what its code may ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr.errors import ApplicationConfigError, NoApplicationError
from atomr.otp import (
    Application,
    ApplicationInfo,
    DynamicSupervisor,
    From,
    GenServer,
    Reply,
    Restart,
    Supervisor,
    application_config,
    call,
    child,
    current_application,
    fetch_env,
    get_env,
    run_applications,
    start_child,
    stop_applications,
    which_applications,
)
from atomr.process import send

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.process import Node


@attrs.frozen
class Web:
    port: int = attrs.field(default=8080, validator=attrs.validators.lt(65536))
    host: str = "127.0.0.1"
    timeout_s: float | None = 5.0


@attrs.frozen
class Needs:
    url: str
    size: int = 3


def empty() -> Supervisor:
    return Supervisor([])


def never() -> Supervisor:
    raise AssertionError("started")


async def run_with(config: object, given: dict[str, object]) -> object:
    """Return the configuration that an application "web" runs with."""
    seen: list[object] = []

    def start() -> Supervisor:
        seen.append(application_config(object))
        return Supervisor([])

    stop = trio.Event()
    stop.set()
    stopped = [Application("web", start, config=config)]
    await run_applications(stopped, config={"web": given}, ready=None, stop=stop)
    return seen[0]


@pytest.mark.parametrize(
    ("defaults", "given", "config"),
    [
        (Web(), {}, Web()),
        (Web(), {"port": 1}, Web(port=1)),
        (Web(host="::1"), {"timeout_s": None}, Web(host="::1", timeout_s=None)),
        (Web(), {"timeout_s": 3}, Web(timeout_s=3)),
        (Web(), Web(port=2), Web(port=2)),
        (Web, {"port": 3}, Web(port=3)),
        (Needs, {"url": "x"}, Needs("x")),
        ({"a": 1, "b": 2}, {"b": "two"}, {"a": 1, "b": "two"}),
        ({}, {}, {}),
    ],
)
async def test_what_is_given_overrides_the_defaults(
    defaults: object, given: dict[str, object], config: object
) -> None:
    """[Application: The application environment] What is given to the system overrides
    the defaults of the application.
    """
    assert await run_with(defaults, given) == config


@pytest.mark.parametrize(
    ("defaults", "config", "problem"),
    [
        (Web(), {"wbe": {}}, "wbe: no such application; did you mean 'web'?"),
        (Web(), {"x": {}}, "x: no such application; there are 'web'"),
        (Web(), {"web": {"prot": 1}}, "web.prot: no such key; did you mean 'port'?"),
        ({}, {"web": {"port": 1}}, "web.port: no such key; there are none"),
        (Web(), {"web": {"port": "1"}}, "web.port: expected int, not '1'"),
        (Web(), {"web": {"port": True}}, "web.port: expected int, not True"),
        (Web(), {"web": {"host": None}}, "web.host: expected str, not None"),
        (Web(), {"web": {"timeout_s": ""}}, "timeout_s: expected float | None, not ''"),
        (Web(), {"web": {"port": 70000}}, "web: 'port' must be < 65536: 70000"),
        (Web(), {"web": 3}, "web: expected a mapping of keys, not 3"),
        (Needs, {}, "web.url: it must be given: str, without a default"),
        (3, {}, "web: expected an attrs class or a mapping, not 3"),
    ],
)
async def test_what_is_wrong_is_said_before_anything_starts(
    defaults: object, config: dict[str, object], problem: str
) -> None:
    """[Application: The application environment] differs: keys and types are checked
    before anything starts. In Elixir a misspelt key is one that nobody reads.
    """
    apps = [Application("web", never, config=defaults)]
    with pytest.raises(ApplicationConfigError) as caught:
        await run_applications(apps, config=config)
    assert str(caught.value).endswith(problem)
    assert str(caught.value).startswith("configuration of ")


async def ask_everywhere(question: Callable[[], object]) -> list[object]:
    """Return what the question answers in several places of one application."""
    answers: list[object] = []

    class Task(GenServer):
        async def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(question())

    class Lean(GenServer):
        def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(question())

    class Thread(GenServer):
        async def handle_call(self, request: object, from_: From) -> Reply:
            return Reply(await trio.to_thread.run_sync(question))

    class Asks(GenServer):
        async def handle_info(self, message: object) -> None:
            await start_child("many", child(Lean, id="late", name="late"))
            for name in ("Task", "Lean", "Thread", "late"):
                answers.append(await call(name, 1))
            stop_applications()

    def tree() -> Supervisor:
        answers.append(question())
        kinds = (Task, Lean, Thread, DynamicSupervisor, Asks)
        names = ("Task", "Lean", "Thread", "many", "asks")
        return Supervisor(
            [child(k, id=n, name=n) for k, n in zip(kinds, names, strict=True)]
        )

    def ready(node: Node) -> None:
        send("asks", "now")

    apps = [
        Application("web", tree, ("other",), config=Web(), description="serves"),
        Application("other", empty, config={"size": 1}, restart=Restart.TEMPORARY),
    ]
    with trio.fail_after(30):
        await run_applications(apps, config={"web": {"port": 1}}, ready=ready)
    return answers


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (current_application, "web"),
        (lambda: application_config(Web), Web(port=1)),
        (lambda: get_env("port"), 1),
        (lambda: get_env("prot"), None),
        (lambda: get_env("prot", 5), 5),
        (lambda: fetch_env("host"), "127.0.0.1"),
        (lambda: get_env("size", application="other"), 1),
        (lambda: dict(application_config(Mapping, application="other")), {"size": 1}),  # type: ignore[type-abstract]
    ],
)
async def test_code_of_an_application_reads_its_configuration_anywhere(
    question: Callable[[], object], answer: object
) -> None:
    """[Application.get_env/3] A value, or the default, wherever the code of the
    application runs.
    """
    # In start, a task, a lean server, a thread, and a child that came later.
    assert await ask_everywhere(question) == 5 * [answer]


async def test_a_configuration_that_is_asked_for_wrongly_is_an_error() -> None:
    """[Application.fetch_env!/2] A key that is not there is an error."""

    def question() -> object:
        said = []
        asks: list[Callable[[], object]] = [
            lambda: fetch_env("prot"),
            lambda: application_config(Needs),
            lambda: get_env("x", application="othr"),
        ]
        for ask in asks:
            with pytest.raises((ApplicationConfigError, NoApplicationError)) as caught:
                ask()
            said.append(str(caught.value))
        return said

    assert (await ask_everywhere(question))[0] == [
        "configuration of web.prot: no such key; did you mean 'port'?",
        "configuration of web: expected a Needs, not a Web",
        "get_env(): 'othr': no such application; did you mean 'other'?",
    ]


async def test_a_mapping_cannot_be_changed_by_those_who_read_it() -> None:
    """[Application.put_env/4] differs: nobody changes the configuration while it runs.
    In Elixir it is a global store, which its documentation warns of.
    """
    config = await run_with({"a": 1}, {})
    with pytest.raises(TypeError):
        config["a"] = 2  # type: ignore[index]


async def test_which_applications_run_in_the_order_of_their_start() -> None:
    """[Application.started_applications/1] Those that run.
    [Application.restart_type()] differs: the default is permanent. Elixir's is
      temporary, but its releases start all as permanent.
    """

    def question() -> object:
        return [(info.name, info.restart, info.description) for info in which()]

    def which() -> tuple[ApplicationInfo, ...]:
        return which_applications()

    in_start, *later = await ask_everywhere(question)
    other = ("other", Restart.TEMPORARY, "")
    assert in_start == [other]
    assert later == 4 * [[other, ("web", Restart.PERMANENT, "serves")]]


async def test_one_application_alone_takes_its_configuration() -> None:
    seen: list[Web] = []

    def start() -> Supervisor:
        seen.append(application_config(Web))
        return Supervisor([])

    app = Application("web", start, config=Web())
    assert (
        await app.run(config={"port": 7}, ready=lambda _: stop_applications()) is None
    )
    assert seen == [Web(port=7)]


async def test_outside_there_is_nothing_to_ask() -> None:
    for ask in (current_application, which_applications, stop_applications):
        with pytest.raises(NoApplicationError):
            ask()
    stop = trio.Event()
    stop.set()
    await run_applications([Application("a", empty)], stop=stop)
    with pytest.raises(NoApplicationError):
        get_env("x")
