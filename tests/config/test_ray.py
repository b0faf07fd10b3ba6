"""``[deployment.ray]``: what is read, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomr_infer.config.deployment_table import deployment_table, table_deployment
from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.ray import RayHost

HEAD = '[[deployment]]\nname = "tiny"\nruntime = "mock"\n[deployment.ray]\n'
ALL = """
address = "10.0.0.1:6379"
num_gpus = 0.5
num_cpus = 4
resources = { TPU = 2 }
interpreter = "venv/bin/python"
"""


def test_all_keys_are_read_and_go_to_other_nodes() -> None:
    [deployment] = parse_config(HEAD + ALL, "/etc/atomr.toml").deployments
    assert deployment.ray == RayHost(
        address="10.0.0.1:6379",
        num_gpus=0.5,
        num_cpus=4,
        resources={"TPU": 2},
        interpreter=str(Path("/etc/venv/bin/python")),
    )
    assert table_deployment(deployment_table(deployment)) == deployment


def test_an_empty_table_is_ray_as_this_machine_knows_it() -> None:
    [deployment] = parse_config(HEAD, "atomr.toml").deployments
    assert deployment.ray == RayHost()
    assert RayHost().address == "auto"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gpus = 2", "unknown key 'gpus'; did you mean 'num_gpus'?"),
        ("num_gpus = -1", "num_gpus: -1 must be a number of 0 or more"),
        ('address = "ray://head:10001"', 'is no address of a Ray cluster; write "HOST'),
        ('address = "head:²"', 'is no address of a Ray cluster; write "HOST:PORT"'),
        ('address = "head:0"', 'is no address of a Ray cluster; write "HOST:PORT"'),
        ('address = "head:65536"', 'is no address of a Ray cluster; write "HOST:PO'),
        (f'address = "h:{"9" * 5000}"', 'is no address of a Ray cluster; write "HOST'),
        ('address = "head"', 'is no address of a Ray cluster; write "HOST:PORT"'),
        ("resources = 4", "resources is a number, not a table of amounts"),
        ("resources = { GPU = 1 }", "'GPU' has a key of its own; write num_gpus"),
        ("resources = { CPU = 1 }", "'CPU' has a key of its own; write num_cpus"),
        ("resources = { memory = 1 }", "'memory' is Ray's own; leave it out"),
        ("resources = { object_store_memory = 1 }", "memory' is Ray's own; leave it"),
        ("num_gpus = 1.5", "num_gpus: 1.5 is neither whole nor a part of one; write 2"),
        ("resources = { TPU = 0 }", "resources: 0 must be a number above 0"),
        ('interpreter = ""', "interpreter: '' is empty; give it a value"),
        (
            'interpreter = "~no-such-user/p"',
            "interpreter: there is no home for '~no",
        ),
    ],
)
def test_a_mistake_is_said_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_config(HEAD + text, "atomr.toml")
    assert caught.value.line == 5


@pytest.mark.parametrize("written", ["", 'runtime = "auto"\n'])
def test_a_runtime_is_named_for_what_is_not_seen_from_here(written: str) -> None:
    text = f'[[deployment]]\nname = "tiny"\nmodel = "gpt-5"\n{written}'
    assert parse_config(text, "atomr.toml").deployments[0].runtime == "openai"
    with pytest.raises(ConfigError, match="is not seen from here; write the one that"):
        parse_config(f"{text}[deployment.ray]\n", "atomr.toml")
