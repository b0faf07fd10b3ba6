"""What code in an application can ask about it: its configuration, its name.

::

    @attrs.frozen
    class WebConfig:
        port: int = 8080

    Application("web", start=make_tree, config=WebConfig())

    await run_applications([web], config={"web": {"port": 80}})

    application_config(WebConfig).port  # in any process of "web"

It is known through context variables, so it holds in all that an application
starts: processes, their helper tasks, and threads that run in a copy of their
context.  It is a value, and does not change while the applications run.

Source: OTP ``application``: ``get_env``, ``get_application``,
``which_applications``; Elixir ``Application``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, overload

import attrs

from atomr.core.application_config import resolve_config, unknown
from atomr.core.child_spec import Restart
from atomr.errors import ApplicationConfigError, NoApplicationError
from atomr.process.signals import is_alive
from atomr.refs import Pid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr.otp.application import Application

C = TypeVar("C")


@attrs.frozen
class ApplicationInfo:
    """One running application.

    Attributes:
        name: its name.
        pid: its top supervisor.
        restart: what its end by itself means.
        description: what it is, for people.
    """

    name: str
    pid: Pid
    restart: Restart
    description: str = ""


@attrs.define(eq=False)
class Run:
    """One run of applications.

    Attributes:
        configs: the configuration of each.
        stop: begins the orderly stop.
        started: those that have started, in that order.
    """

    configs: Mapping[str, object]
    stop: Callable[[], None]
    started: list[ApplicationInfo] = attrs.field(factory=list)


RUN: ContextVar[Run | None] = ContextVar("atomr_applications", default=None)
APPLICATION: ContextVar[str | None] = ContextVar("atomr_application", default=None)


def resolve_configs(
    applications: Sequence[Application], given: Mapping[str, object]
) -> dict[str, object]:
    """Return each application's configuration.

    Raises:
        ApplicationConfigError: something in it is refused.
    """
    names = [application.name for application in applications]
    for name in given:
        if name not in names:
            problem = unknown(name, names, what="application")
            raise ApplicationConfigError(name, None, problem)
    return {
        a.name: resolve_config(a.name, a.config, given.get(a.name, {}))
        for a in applications
    }


def current_application() -> str:
    """Return the name of the application that the running code belongs to.

    Raises:
        NoApplicationError: it belongs to none.
    """
    name = APPLICATION.get()
    if name is None:
        raise NoApplicationError("current_application(): this code runs in none")
    return name


def which_applications() -> tuple[ApplicationInfo, ...]:
    """Return the applications that run, in the order of their start.

    Raises:
        NoApplicationError: the code runs outside ``run_applications()``.
    """
    started = _run("which_applications()").started
    return tuple(info for info in started if is_alive(info.pid))


def stop_applications() -> None:
    """Begin the orderly stop of all, as the first SIGTERM does; returns at once.

    Raises:
        NoApplicationError: the code runs outside ``run_applications()``.
    """
    _run("stop_applications()").stop()


def application_config(kind: type[C], *, application: str | None = None) -> C:
    """Return the configuration of an application, with its type.

    Args:
        kind: its class, checked.
        application: whose; None: that of the running code.

    Raises:
        NoApplicationError: the code runs in none, or there is none of that name.
        ApplicationConfigError: it is no ``kind``.
    """
    name, config = _config("application_config()", application)
    if not isinstance(config, kind):
        problem = f"expected a {kind.__name__}, not a {type(config).__name__}"
        raise ApplicationConfigError(name, None, problem)
    return config


@overload
def get_env(key: str, *, application: str | None = None) -> object | None: ...
@overload
def get_env(key: str, default: C, *, application: str | None = None) -> object | C: ...
def get_env(
    key: str, default: object = None, *, application: str | None = None
) -> object:
    """Return one value of an application's configuration.

    Args:
        key: which.
        default: what to return when there is no such key.
        application: whose; None: that of the running code.

    Raises:
        NoApplicationError: the code runs in none, or there is none of that name.
    """
    _, config = _config("get_env()", application)
    return _values(config).get(key, default)


def fetch_env(key: str, *, application: str | None = None) -> object:
    """Return one value of an application's configuration, which must be there.

    Raises:
        ApplicationConfigError: there is no such key.
        NoApplicationError: the code runs in none, or there is none of that name.
    """
    name, config = _config("fetch_env()", application)
    values = _values(config)
    if key not in values:
        raise ApplicationConfigError(name, key, unknown(key, values))
    return values[key]


def _run(operation: str) -> Run:
    run = RUN.get()
    if run is None:
        problem = "this code runs outside run_applications()"
        raise NoApplicationError(f"{operation}: {problem}")
    return run


def _config(operation: str, application: str | None) -> tuple[str, object]:
    configs = _run(operation).configs
    name = current_application() if application is None else application
    if name not in configs:
        problem = unknown(name, configs, what="application")
        raise NoApplicationError(f"{operation}: {name!r}: {problem}")
    return name, configs[name]


def _values(config: object) -> Mapping[str, object]:
    if isinstance(config, Mapping):
        return config
    # Not recursive: a field that holds an attrs instance is that instance.
    cls: Any = type(config)
    return {f.alias: getattr(config, f.name) for f in attrs.fields(cls)}
