"""SIGHUP, after the configuration was changed: what is taken, and what is told."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import attrs

from atomr_infer.cli.plan import ServePlan
from atomr_infer.cli.reload import Changes, changes
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from tests.cli.conftest import mock_config
from tests.gateway.http import chat, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Start

M = Deployment(name="m", runtime="mock")
N = Deployment(name="n", runtime="mock")
PLAN = ServePlan(deployments=(M,), gateway=GatewayConfig(), source="atomr.toml")

MORE = '[[deployment]]\nname = "n"\nruntime = "mock"\nfallbacks = ["o"]\n'
LAST = '[[deployment]]\nname = "o"\nruntime = "mock"\n'


def test_what_is_new_is_taken_and_what_was_changed_at_heart_waits() -> None:
    other = attrs.evolve(M, model="x")
    wanted = attrs.evolve(PLAN, deployments=(other, N))
    later = ("the changed deployment 'm'",)
    assert changes(PLAN, wanted) == Changes((N,), (), later)
    assert changes(wanted, PLAN).later == (*later, "the end of 'n'")


def test_what_is_looked_up_for_each_request_is_changed() -> None:
    other = attrs.evolve(M, serves=("m", "alias"))
    wanted = attrs.evolve(PLAN, deployments=(other,))
    assert changes(PLAN, wanted) == Changes((), (other,), ())


def test_what_says_the_same_changes_nothing() -> None:
    same = attrs.evolve(PLAN, deployments=(Deployment(name="m", runtime="mock"),))
    assert changes(PLAN, same) == Changes((), (), ())


def test_what_is_the_gateways_own_waits() -> None:
    for wanted in (
        attrs.evolve(PLAN, gateway=GatewayConfig(keepalive_s=1.0)),
        attrs.evolve(PLAN, keys=(Secret("another"),)),
        attrs.evolve(PLAN, admin_key=Secret("another")),
    ):
        assert changes(PLAN, wanted) == Changes((), (), ("[gateway]",))


async def test_a_new_deployment_is_served_without_a_restart(
    write: Callable[[str], str], serve: Start
) -> None:
    async with serve() as command:
        await command.serving()
        assert (await chat(command.port, model="n")).status == 404
        write(mock_config("tokens = 2") + MORE + LAST)
        command.send(signal.SIGHUP)
        await command.said("SIGHUP: n is served now")
        await command.said("SIGHUP: o is served now")
        await command.said("takes effect with a restart: the changed deployment 'm'\n")
        assert (await chat(command.port, model="n")).status == 200
        assert (await chat(command.port, model="m")).status == 200
        command.send(signal.SIGHUP)
        await until(lambda: command.stderr.count("takes effect") == 2, within_s=30)
        command.send(signal.SIGTERM)
        assert await command.ended() == 0
    assert command.stderr.count("n is served now") == 1
    assert "Traceback" not in command.stderr


async def test_a_configuration_that_cannot_work_leaves_all_as_it_was(
    write: Callable[[str], str], serve: Start
) -> None:
    async with serve() as command:
        await command.serving()
        path = write(mock_config() + MORE)  # what it falls back to is not there
        command.send(signal.SIGHUP)
        await command.said(f"SIGHUP: the configuration is not taken: {path}:")
        assert (await chat(command.port, model="m")).status == 200
        assert (await chat(command.port, model="n")).status == 404
        write(mock_config() + LAST)
        command.send(signal.SIGHUP)
        await command.said("SIGHUP: o is served now")
        command.send(signal.SIGTERM)
        assert await command.ended() == 0
    assert "Traceback" not in command.stderr


ALIAS = """\
[[deployment]]
name = "m"
runtime = "mock"
serves = ["m", "alias"]
fallbacks = ["o"]
retry = { max_attempts = 1 }
[deployment.options]
"""


async def test_a_name_and_a_fallback_are_added_while_it_serves(
    write: Callable[[str], str], serve: Start
) -> None:
    async with serve() as command:
        await command.serving()
        assert (await chat(command.port, model="alias")).status == 404
        write(ALIAS + LAST)
        command.send(signal.SIGHUP)
        await command.said("SIGHUP: m is changed")
        assert (await chat(command.port, model="alias")).status == 200
        command.send(signal.SIGHUP)
        await until(lambda: command.stderr.count("anew") == 2, within_s=30)
        command.send(signal.SIGTERM)
        assert await command.ended() == 0
    assert command.stderr.index("o is served now") < command.stderr.index("is changed")
    assert command.stderr.count("is changed") == 1
    assert "takes effect with a restart" not in command.stderr
