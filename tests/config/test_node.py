"""The tables ``[node]`` and ``[cluster]``."""

from __future__ import annotations

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.config.node import ClusterConfig, NodeConfig
from atomr_infer.errors import ConfigError
from atomr_infer.model.secret import FileSecret

CLUSTER = """\
[cluster]
name = "prod"
voters = ["a", "b", "c"]
cookie = { file = "cookie" }
ca = "certs/ca.pem"
certificate = "certs/a.pem"
private_key = "certs/a.key"
"""


def test_a_node_that_is_not_written_keeps_nothing_and_has_no_others() -> None:
    config = parse_config("", "/etc/atomr.toml")
    assert (config.node, config.cluster) == (NodeConfig(), None)


def test_paths_are_relative_to_the_configuration() -> None:
    text = '[node]\nname = "a"\nstate_dir = "state"\n' + CLUSTER
    config = parse_config(text, "/etc/atomr.toml")
    assert config.node == NodeConfig(name="a", state_dir="/etc/state")
    assert config.cluster == ClusterConfig(
        name="prod",
        voters=("a", "b", "c"),
        cookie=FileSecret("/etc/cookie"),
        ca="/etc/certs/ca.pem",
        certificate="/etc/certs/a.pem",
        private_key="/etc/certs/a.key",
    )


def test_a_node_says_of_itself_where_it_is() -> None:
    config = parse_config('[node]\nlabels = { region = "eu" }\n', "f.toml")
    assert config.node == NodeConfig(labels={"region": "eu"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            '[node]\nstatedir = "x"\n',
            "2: node: unknown key 'statedir'; did you mean 'state_dir'?",
            id="unknown",
        ),
        pytest.param(
            '[node]\nname = "a b"\n',
            "2: node: name: 'a b' is not a node's name; use letters, digits and . _ -",
            id="name",
        ),
        pytest.param(
            '[node]\nroles = ["cpu"]\n',
            "2: node: roles: 'cpu' is no role; use control, gpu, egress, edge",
            id="role",
        ),
        pytest.param(
            "[node]\nlabels = { region = 1 }\n",
            "2: node: labels: {'region': 1} is not a text",
            id="label",
        ),
        pytest.param(
            '[node]\nlabels = "eu"\n',
            "2: node: labels: 'eu' is not a table of texts, as { region = \"eu\" }",
            id="labels",
        ),
        pytest.param(
            CLUSTER + "replace_after_s = 0\n",
            "8: cluster: replace_after_s: 0 must be a number above 0",
            id="replace-after",
        ),
        pytest.param(
            CLUSTER.replace('voters = ["a", "b", "c"]\n', ""),
            "1: cluster: voters is missing; a [cluster] needs it",
            id="no-voters",
        ),
        pytest.param(
            CLUSTER.replace('"b", "c"', '"a"'),
            "3: cluster: voters: ['a', 'a'] names a node twice",
            id="voter-twice",
        ),
        pytest.param(
            CLUSTER.replace('{ file = "cookie" }', '"secret"'),
            "4: cluster: a key does not belong in this file; "
            'write cookie = { file = "PATH" } or { env = "NAME" }',
            id="cookie",
        ),
        pytest.param(
            CLUSTER + 'seeds = "a:4370"\n',
            "8: cluster: seeds: 'a:4370' is not an array of addresses, as"
            ' ["host:4370"]',
            id="seeds",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_remedy(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "f.toml")
    assert str(caught.value) == f"f.toml:{message}"
