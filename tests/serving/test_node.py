"""The node that a serving tree stands on."""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING

import pytest

from atomr.cluster.replicator import ReplicatorOptions
from atomr.crdt import GSet
from atomr_infer.config.node import ClusterConfig, NodeConfig
from atomr_infer.errors import ConfigError
from atomr_infer.model.secret import EnvSecret
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.node import ServingNode, make_node
from tests.atomr.http2.conftest import CLUSTER, Authority

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_node_without_others_keeps_its_values(tmp_path: Path) -> None:
    config = NodeConfig(name="a", state_dir=str(tmp_path / "state"))
    for count in (1, 2):
        node = ServingNode(config)
        async with open_serving(environ={}, node=node):
            words = node.replicator.open(GSet, "words")
            words.write(methodcaller("add", str(count)))
            await node.replicator.sync()
            assert len(words.read().value) == count
            assert (node.name, node.voters, node.peers.all()) == ("a", ("a",), ())


async def test_what_a_node_alone_keeps_is_there_in_a_cluster(tmp_path: Path) -> None:
    kept = NodeConfig(name="a", state_dir=str(tmp_path / "state"))
    alone = ServingNode(kept)
    async with open_serving(environ={}, node=alone):
        alone.replicator.open(GSet, "words").write(methodcaller("add", "one"))
        await alone.replicator.sync()
    config = _Places(tmp_path).cluster(signed_as="a")
    together = make_node(kept, config, {"COOKIE": "a secret of all nodes"})
    async with open_serving(environ={}, node=together):
        assert together.replicator.open(GSet, "words").read().value == {"one"}


def test_values_are_divided_only_where_they_are_told_or_kept(tmp_path: Path) -> None:
    config = _Places(tmp_path).cluster(signed_as="a")
    environ = {"COOKIE": "a secret of all nodes"}
    told = make_node(NodeConfig(name="a"), config, environ)
    assert told.replicator.options == ReplicatorOptions()
    assert ServingNode().replicator.options == ReplicatorOptions(shards=1)


async def test_a_folder_is_one_process(tmp_path: Path) -> None:
    config = NodeConfig(name="a", state_dir=str(tmp_path))
    async with ServingNode(config).open():
        with pytest.raises(ConfigError, match="is another process'; each node needs"):
            async with ServingNode(config).open():
                raise AssertionError("it does not open")
    async with ServingNode(config).open():
        pass


async def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    config = NodeConfig(name="a", state_dir=str(tmp_path / "file" / "state"))
    with pytest.raises(ConfigError, match="Not a directory; name a folder that can"):
        async with ServingNode(config).open():
            raise AssertionError("it does not open")


async def test_a_file_that_is_no_database_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "values.sqlite").write_text("no database, " * 1000)
    config = NodeConfig(name="a", state_dir=str(tmp_path))
    with pytest.raises(ConfigError, match=r"the node does not start: .*values\.sqlite"):
        async with ServingNode(config).open():
            raise AssertionError("it does not open")


class _Places:
    """Where the files of a cluster's nodes are."""

    def __init__(self, folder: Path) -> None:
        self._authority = Authority(folder)

    def cluster(self, *, signed_as: str, seed: str = "") -> ClusterConfig:
        files = self._authority.files(signed_as)
        return ClusterConfig(
            name=CLUSTER,
            voters=("b", "a"),
            cookie=EnvSecret("COOKIE"),
            ca=str(files.ca),
            certificate=str(files.certificate),
            private_key=str(files.key),
            listen="127.0.0.1:0",
            seeds=(seed,) if seed else (),
        )


async def test_two_nodes_find_each_other(tmp_path: Path) -> None:
    places, environ = _Places(tmp_path), {"COOKIE": "a secret of all nodes"}
    first = make_node(NodeConfig(name="a"), places.cluster(signed_as="a"), environ)
    async with open_serving(environ={}, node=first):
        assert first.cluster is not None
        second = make_node(
            NodeConfig(name="b"),
            places.cluster(signed_as="b", seed=first.cluster.address),
            environ,
        )
        async with open_serving(environ={}, node=second):
            assert second.cluster is not None
            await second.cluster.wait_for(2, timeout_s=20)
            assert second.voters == ("a", "b")
            assert [peer.name for peer in second.peers.all()] == ["a"]


def test_a_certificate_of_another_node_is_a_config_error(tmp_path: Path) -> None:
    config = _Places(tmp_path).cluster(signed_as="b")
    with pytest.raises(ConfigError, match="expected a certificate that names node:"):
        make_node(NodeConfig(name="a"), config, {"COOKIE": "a secret of all nodes"})


def test_a_short_cookie_is_not_shown(tmp_path: Path) -> None:
    config = _Places(tmp_path).cluster(signed_as="a")
    with pytest.raises(ConfigError, match="cookie of 6 bytes") as caught:
        make_node(NodeConfig(name="a"), config, {"COOKIE": "cookie"})
    assert "'cookie'" not in str(caught.value)


def test_a_cookie_that_is_not_there_is_told_with_its_variable(tmp_path: Path) -> None:
    config = _Places(tmp_path).cluster(signed_as="a")
    with pytest.raises(ConfigError, match=r"the cluster has no cookie: .* COOKIE"):
        make_node(NodeConfig(name="a"), config, {})
