"""A provider that refuses the key: it fails, and serves when another one is there."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.otp import call, which_children
from atomr_infer.errors import (
    EngineCrashedError,
    NotReadyError,
    UpstreamAuthError,
    UpstreamConnectError,
    UpstreamError,
)
from atomr_infer.gateway.admin.shown import shown_deployment
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.model.placement import Check, Placement
from atomr_infer.model.secret import EnvSecret, FileSecret, HeaderSecret, PluginSecret
from atomr_infer.model.secret import Secret as Literal
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.names import DEPLOYMENTS, MANAGER
from atomr_infer.serving.placing.status import local_status
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.key_check import CHECK_S, waits_for_key, whence
from atomr_infer.testing.mock_script import MockScript
from tests.serving.conftest import Tree, until
from tests.serving.lab import PLUGIN, LabPlugin, Provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from importlib.metadata import Distribution

    from atomr_infer.model.secret import SecretSource

    Open = Callable[[dict[str, str]], AbstractAsyncContextManager[Tree]]

REFUSED = UpstreamAuthError("no such key", status=401)
WHY = "the provider refuses the key from the environment variable KEY: no such key"


@pytest.fixture
def open_lab(
    lab_installed: Callable[[], Iterator[Distribution]],
    monkeypatch: pytest.MonkeyPatch,
) -> Open:
    for field in attrs.fields(LabPlugin):
        monkeypatch.setattr(PLUGIN, field.name, getattr(LabPlugin(), field.name))

    @asynccontextmanager
    async def open_it(environ: dict[str, str]) -> AsyncIterator[Tree]:
        async with open_serving(environ=environ, installed=lab_installed) as serving:
            yield Tree(serving, PLUGIN)

    return open_it


def deployment(name: str = "m", **more: Any) -> Deployment:
    kept = {"credential": EnvSecret("KEY"), **more}
    return Deployment(name=name, runtime="lab", **kept)


def shown(tree: Tree, name: str = "m") -> tuple[str, str, bool]:
    [status] = [each for each in local_status(tree.serving) if each.name == name]
    return status.state.value, status.reason, tree.serving.readiness().ready


def keys_shown(tree: Tree) -> object:
    return shown_deployment(tree.serving, tree.serving.deployments["m"])["keys"]


async def start(tree: Tree, wanted: Deployment) -> None:
    """Deploy as ``serve`` does: what fails stays."""
    assert await call(MANAGER, messages.Deploy(wanted), timeout_s=None) is None


async def test_a_refused_key_fails_the_deploy_and_says_where_it_is_from(
    autojump_clock: object, open_lab: Open
) -> None:
    async with open_lab({"KEY": "sk-1"}) as tree:
        tree.lab.plan.append(Provider(REFUSED))
        with pytest.raises(UpstreamAuthError) as caught:
            await tree.serving.deploy(deployment())
        assert (caught.value.message, caught.value.status) == (WHY, 401)
        assert dict(tree.serving.deployments) == {}
        assert await which_children(DEPLOYMENTS) == ()


async def test_it_is_tried_again_later_and_later_until_the_key_is_taken(
    autojump_clock: object, open_lab: Open
) -> None:
    provider = Provider(REFUSED, REFUSED, REFUSED)
    async with open_lab({"KEY": "sk-1"}) as tree:
        tree.lab.plan.append(provider)
        await start(tree, deployment())
        await until(lambda: waits_for_key(tree.serving, "m"))
        assert shown(tree) == ("failed", WHY, False)
        assert keys_shown(tree) == ("refused",)
        with pytest.raises(UpstreamAuthError, match="refuses the key"):
            await tree.ask()
        await until(lambda: shown(tree)[0] == "serving")
        first = provider.asked_at[0]
        assert [at - first for at in provider.asked_at] == [0, 5, 15, 35]
        assert (await tree.ask("one two")).texts == ["one", " two"]
        assert shown(tree) == ("serving", "", True)
        assert keys_shown(tree) == ("fresh",)


async def test_another_key_is_tried_when_it_is_there(
    autojump_clock: object, open_lab: Open
) -> None:
    provider = Provider(REFUSED, REFUSED, REFUSED, REFUSED, REFUSED)
    environ = {"KEY": "sk-1"}
    async with open_lab(environ) as tree:
        tree.lab.plan.append(provider)
        await start(tree, deployment())
        await until(lambda: len(provider.asked_at) == 4)
        environ["KEY"] = "sk-2"
        await trio.sleep(1.5)
        assert len(provider.asked_at) == 5
        assert tree.serving.renew_credentials("m")
        await trio.sleep(1.5)
        assert len(provider.asked_at) == 6
        assert shown(tree) == ("serving", "", True)


async def test_who_waits_while_it_is_asked_is_told(
    autojump_clock: object, open_lab: Open
) -> None:
    async with open_lab({"KEY": "sk-1"}) as tree:
        tree.lab.plan.append(Provider(REFUSED, after_s=2.0))
        await start(tree, deployment())
        assert shown(tree)[0] == "loading"
        with pytest.raises(NotReadyError, match="m is not available"):
            await tree.ask()


@pytest.mark.parametrize(
    "provider",
    [
        Provider(UpstreamConnectError("nobody there")),
        Provider(UpstreamError("no such path", status=404)),
        Provider(after_s=3600.0),
    ],
    ids=["down", "without a list", "silent"],
)
async def test_a_provider_that_says_nothing_of_the_key_is_served(
    autojump_clock: object, open_lab: Open, provider: Provider
) -> None:
    async with open_lab({"KEY": "sk-1"}) as tree:
        tree.lab.plan.append(provider)
        began = trio.current_time()
        await tree.serving.deploy(deployment())
        assert trio.current_time() - began <= CHECK_S
        assert shown(tree) == ("serving", "", True)


@pytest.mark.parametrize(
    "wanted",
    [
        {"credential": None},
        {"credential": HeaderSecret("x-key")},
        {"placement": Placement(check=Check.CONNECT)},
        {"placement": Placement(check=Check.NONE)},
    ],
    ids=["no key", "the client's", "connect", "none"],
)
async def test_nothing_is_asked_where_there_is_nothing_to_find_out(
    autojump_clock: object, open_lab: Open, wanted: dict[str, Any]
) -> None:
    provider = Provider(REFUSED)
    async with open_lab({"KEY": "sk-1"}) as tree:
        tree.lab.plan.append(provider)
        await tree.serving.deploy(deployment(**wanted))
        assert provider.asked_at == []


async def test_one_refused_key_keeps_no_node_from_serving_the_others(
    autojump_clock: object, open_lab: Open
) -> None:
    async with open_lab({"KEY": "sk-1"}) as tree:
        tree.lab.plan.extend([Provider(*[REFUSED] * 9), MockScript()])
        await start(tree, deployment("bad"))
        await until(lambda: waits_for_key(tree.serving, "bad"))
        await tree.serving.deploy(deployment("m"))
        assert shown(tree, "bad") == ("failed", WHY, True)
        assert (await tree.ask("one")).texts == ["one"]
        await tree.serving.undeploy("m")
        assert not tree.serving.readiness().ready


async def test_what_serves_keeps_its_key_where_the_next_one_is_refused(
    autojump_clock: object, open_lab: Open
) -> None:
    async with open_lab({"KEY": "sk-1", "NEW": "sk-2"}) as tree:
        tree.lab.plan.extend([Provider(), Provider(REFUSED)])
        await tree.serving.deploy(deployment())
        with pytest.raises(UpstreamAuthError, match="environment variable NEW"):
            await tree.serving.replace(deployment(credential=EnvSecret("NEW")))
        assert shown(tree) == ("serving", "", True)
        assert tree.lab.closed == 1
        assert (await tree.ask("one")).texts == ["one"]


async def test_what_has_served_and_waits_for_a_key_ends_when_it_is_replaced(
    autojump_clock: object, open_lab: Open
) -> None:
    """The other replica serves on: so the new one is opened beside both."""
    served, waits = Provider(), Provider(*[REFUSED] * 99)
    two = Serving(replicas=2)
    async with open_lab({"KEY": "sk-1", "NEW": "sk-2"}) as tree:
        tree.lab.plan.extend([served, Provider(), waits, Provider(), Provider()])
        await tree.serving.deploy(deployment(serving=two))
        served.fail(EngineCrashedError("gone"))
        await until(lambda: len(waits.asked_at) == 2)
        new = deployment(credential=EnvSecret("NEW"), serving=two)
        await tree.serving.replace(new)
        await trio.sleep(1.0)
        asked = len(waits.asked_at)
        await trio.sleep(600.0)
        assert len(waits.asked_at) == asked
        assert (tree.lab.opened, tree.lab.closed) == (5, 3)
        assert shown(tree) == ("serving", "", True)
        assert (await tree.ask("one")).texts == ["one"]


@pytest.mark.parametrize(
    ("sources", "place"),
    [
        ([], ""),
        ([HeaderSecret("x-key")], ""),
        ([EnvSecret("KEY")], "the environment variable KEY"),
        ([Literal("sk-1")], "the program"),
        ([PluginSecret("google")], "the credential provider 'google'"),
        (
            [EnvSecret("A"), FileSecret("/run/b")],
            "the environment variable A, the file /run/b",
        ),
    ],
)
def test_an_error_says_where_a_key_is_from_and_never_the_key(
    sources: list[SecretSource], place: str
) -> None:
    many = {"credentials": tuple(sources), "credential": None}
    one = {"credential": sources[0] if sources else None}
    assert whence(deployment(**(many if len(sources) > 1 else one))) == place
