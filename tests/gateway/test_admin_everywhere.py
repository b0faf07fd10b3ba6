"""The operators' routes of all nodes at once, over real links between two of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from atomr_infer.cluster import Cluster
from atomr_infer.config.node import ClusterConfig, NodeConfig
from atomr_infer.model.secret import EnvSecret, Secret
from atomr_infer.serving.node import ServingNode, make_node
from tests.atomr.http2.conftest import CLUSTER, Authority
from tests.gateway.http import Answer, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = "adm-0123456789"
COOKIE = {"COOKIE": "a secret of all nodes"}


def node_of(authority: Authority, name: str, seed: str | None = None) -> ServingNode:
    files = authority.files(name)
    config = ClusterConfig(
        name=CLUSTER,
        voters=("a", "b"),
        cookie=EnvSecret("COOKIE"),
        ca=str(files.ca),
        certificate=str(files.certificate),
        private_key=str(files.key),
        listen="127.0.0.1:0",
        seeds=() if seed is None else (seed,),
    )
    return make_node(NodeConfig(name=name), config, COOKIE)


@asynccontextmanager
async def two_nodes(
    folder: Path, *, second_key: str | None = KEY
) -> AsyncIterator[tuple[int, Cluster]]:
    """Two nodes with a gateway each: the port of a's, and b."""
    authority = Authority(folder)
    first = node_of(authority, "a")
    async with Cluster.connect("inproc://a", environ={}, node=first) as a:
        second = node_of(authority, "b", a.address)
        async with Cluster.connect("inproc://b", environ={}, node=second) as b:
            assert first.cluster is not None
            with a.at_home():
                await first.cluster.wait_for(2, timeout_s=20)
            gateway = await a.serve("127.0.0.1:0", admin_key=Secret(KEY))
            other = None if second_key is None else Secret(second_key)
            await b.serve("127.0.0.1:0", admin_key=other)
            yield int(gateway.url.rpartition(":")[2]), b


async def admin(port: int, method: str, path: str, *, key: str = KEY) -> Answer:
    return await request(port, method, path, authorization=f"Bearer {key}")


async def test_each_node_shows_its_own(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (port, _):
        answer = await admin(port, "GET", "/admin/tree?nodes=all")
    assert answer.status == 200
    nodes = answer.json["nodes"]
    assert {name: shown["status"] for name, shown in nodes.items()} == {
        "a": 200,
        "b": 200,
    }
    assert {name: shown["answer"]["id"] for name, shown in nodes.items()} == {
        "a": "a",
        "b": "b",
    }


async def test_a_node_without_such_routes_is_told_of(tmp_path: Path) -> None:
    async with two_nodes(tmp_path, second_key=None) as (port, _):
        answer = await admin(port, "GET", "/admin/tree?nodes=all")
    assert answer.status == 501
    there = answer.json["nodes"]
    assert (there["a"]["status"], there["b"]["status"]) == (200, 501)
    assert there["b"]["answer"]["error"]["code"] == "no_operators_routes"


async def test_who_shows_no_key_is_asked_for_it_and_no_other_node_is(
    tmp_path: Path,
) -> None:
    async with two_nodes(tmp_path) as (port, b):
        asked: list[object] = []
        b_node = b._serving.node  # to see that nobody asks it
        perform = b_node.steering.perform
        assert perform is not None

        async def count(order: Any) -> Any:
            asked.append(order)
            return await perform(order)

        b_node.steering.perform = count
        refused = await admin(port, "GET", "/admin/tree?nodes=all", key="wrong")
        assert (refused.status, refused.json["error"]["code"], asked) == (
            401,
            "invalid_admin_key",
            [],
        )
        await admin(port, "GET", "/admin/tree?nodes=all")
        assert len(asked) == 1


async def test_what_is_not_found_anywhere_is_not_found(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (port, _):
        answer = await admin(port, "POST", "/admin/breakers/x/open?nodes=all")
    assert answer.status == 404
    codes = [
        shown["answer"]["error"]["code"] for shown in answer.json["nodes"].values()
    ]
    assert codes == ["deployment_not_found"] * 2


async def test_alone_all_nodes_are_one() -> None:
    async with Cluster.connect("inproc://a", environ={}) as cluster:
        gateway = await cluster.serve("127.0.0.1:0", admin_key=Secret(KEY))
        port = int(gateway.url.rpartition(":")[2])
        with trio.fail_after(10):
            answer = await admin(port, "GET", "/admin/deployments?nodes=all")
    [shown] = answer.json["nodes"].values()
    assert shown == {"status": 200, "answer": {"deployments": []}}


async def test_a_body_that_would_travel_to_all_nodes_has_a_bound() -> None:
    async with Cluster.connect("inproc://a", environ={}) as cluster:
        gateway = await cluster.serve("127.0.0.1:0", admin_key=Secret(KEY))
        port = int(gateway.url.rpartition(":")[2])
        path, key = "/admin/placement?nodes=all", f"Bearer {KEY}"
        body = b" " * (512 * 1024 + 1)
        answer = await request(port, "POST", path, body, authorization=key)
        assert (answer.status, answer.json["error"]["code"]) == (413, "body_too_large")
        answer = await request(port, "POST", path, body[1:], authorization=key)
        assert answer.status == 400
