"""The catalogue over real links: deployed on one node, served by all."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from atomr_infer.errors import ConfigError, NotReadyError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.placement import Check, Placement
from atomr_infer.model.secret import EnvSecret, Secret
from atomr_infer.policy.lifecycle.deployment_state import State
from atomr_infer.testing.upstream import open_openai_upstream
from tests.ports import free_port
from tests.serving.placing.real import open_fleet, until

if TYPE_CHECKING:
    from pathlib import Path

MOCK = Deployment(name="tiny", runtime="mock")


def remote(url: str, **more: object) -> Deployment:
    return Deployment(
        name="gpt",
        runtime="openai",
        model="gpt",
        options={"endpoint": url},
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.slow
async def test_what_one_node_deploys_every_node_answers_for(tmp_path: Path) -> None:
    async with open_openai_upstream() as upstream, open_fleet(tmp_path, "a", "b") as f:
        a, b = f.nodes["a"], f.nodes["b"]
        await b.cluster.deploy(MOCK)
        await a.cluster.deploy(remote(upstream.base_url))
        assert sum(node.runs().get("tiny", 0) for node in (a, b)) == 1
        assert [node.runs()["gpt"] for node in (a, b)] == [1, 1]
        for node in (a, b):
            await until(lambda node=node: "tiny" in node.cluster.models())  # type: ignore[misc]
            assert (await node.chat(model="tiny")).status == 200
            assert (await node.chat(model="gpt")).status == 200
        assert await a.cluster.undeploy("tiny")
        await until(lambda: "tiny" not in b.cluster.models())
        assert (await b.chat(model="tiny")).status == 404


@pytest.mark.slow
async def test_a_node_that_leaves_hands_its_replica_over_first(tmp_path: Path) -> None:
    async with open_fleet(tmp_path, "a", "b") as fleet:
        await fleet.nodes["a"].cluster.deploy(MOCK)
        [holder] = [n for n, node in fleet.nodes.items() if node.runs()]
        [other] = {"a", "b"} - {holder}
        await fleet.stop(holder)
        assert fleet.nodes[other].runs() == {"tiny": 1}
        assert (await fleet.nodes[other].chat(model="tiny")).status == 200


@pytest.mark.slow
async def test_a_request_waits_for_a_replica_that_is_taken_over(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path, "a", "b", replace_after_s=0.5) as fleet:
        await fleet.nodes["a"].cluster.deploy(MOCK)
        [holder] = [n for n, node in fleet.nodes.items() if node.runs()]
        [other] = {"a", "b"} - {holder}
        await fleet.kill(holder)
        assert (await fleet.nodes[other].chat(model="tiny")).status == 200


async def test_a_key_that_no_node_has_is_said_by_each_of_them(tmp_path: Path) -> None:
    async with open_fleet(tmp_path, "a", "b") as fleet:
        wanted = remote("http://127.0.0.1:9/v1", credential=EnvSecret("NOT_THERE"))
        with pytest.raises(NotReadyError) as caught:
            await fleet.nodes["a"].cluster.deploy(wanted)
        told = str(caught.value)
        # By each that has tried by now.
        assert told.count("the environment variable NOT_THERE is not set") >= 1
        assert ": deployment 'gpt' has no credential" in told
        await until(lambda: not fleet.nodes["b"].cluster.deployments())


async def test_a_key_in_the_program_is_refused_in_a_cluster(tmp_path: Path) -> None:
    async with open_fleet(tmp_path, "a") as fleet:
        wanted = remote("http://127.0.0.1:9/v1", credential=Secret("sk-1"))
        with pytest.raises(ConfigError, match="cannot be told to other nodes"):
            await fleet.nodes["a"].cluster.deploy(wanted)


@pytest.mark.slow
async def test_what_has_no_place_is_said_with_the_reason(tmp_path: Path) -> None:
    async with open_fleet(tmp_path, "a", "b") as fleet:
        wanted = Deployment(name="big", runtime="mock", placement=Placement(gpus=1))
        with pytest.raises(ConfigError, match="cannot be placed: a: lacks the role"):
            await fleet.nodes["b"].cluster.deploy(wanted)
        assert fleet.nodes["a"].cluster.explain(wanted).missing == 1
        await until(lambda: not fleet.nodes["a"].cluster.deployments())


@pytest.mark.slow
async def test_a_provider_out_of_reach_is_served_and_shown_until_it_is_there(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with open_fleet(tmp_path, "a") as fleet:
        node = fleet.nodes["a"]
        await node.cluster.deploy(remote(f"http://127.0.0.1:{port}/v1"))
        [status] = node.cluster.deployments()
        assert status.state is State.SERVING
        assert status.reason.startswith(f"a: no connection to http://127.0.0.1:{port}")
        with socket.create_server(("127.0.0.1", port)):
            # Tried again after five seconds.
            await until(lambda: not node.cluster.deployments()[0].reason)


async def test_a_provider_that_shall_not_be_tried_is_not(tmp_path: Path) -> None:
    async with open_fleet(tmp_path, "a") as fleet:
        node = fleet.nodes["a"]
        quiet = Placement(check=Check.NONE)
        await node.cluster.deploy(remote("http://127.0.0.1:9/v1", placement=quiet))
        assert node.cluster.deployments()[0].reason == ""
