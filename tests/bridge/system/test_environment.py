"""The environment variables of a child, and what another environment's must not get."""

from __future__ import annotations

import os
import sys
import venv
from typing import TYPE_CHECKING

import pytest

from atomr_infer.bridge import open_bridged_runner
from atomr_infer.bridge.on_ray.order import order_of, read, written
from atomr_infer.bridge.system.environment import child_environment
from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.placement import Placement
from atomr_infer.model.ray import RayHost
from atomr_infer.model.validation import InvalidValueError
from atomr_infer.runtimes.available import check_available
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.runtimes.loader import load_runtime
from tests.bridge.conftest import HERE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from atomr_infer.model.batch import ExecuteBatch

    Ask = Callable[..., ExecuteBatch]

OTHER = "/opt/vllm/bin/python"
A = '[[deployment]]\nname = "a"\nruntime = "ort"\n'


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("PYTHONHOME", "/usr")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")


def test_another_environment_does_not_get_where_ours_has_its_packages() -> None:
    environment = child_environment(OTHER, own={})
    assert "PYTHONPATH" not in environment
    assert "PYTHONHOME" not in environment
    assert environment["OMP_NUM_THREADS"] == "8"
    own = {"PYTHONPATH": "/theirs", "OMP_NUM_THREADS": "2"}
    environment = child_environment(OTHER, own=own, python_path=["/first"])
    assert environment["PYTHONPATH"] == "/first:/theirs"
    assert environment["OMP_NUM_THREADS"] == "2"


def test_our_own_interpreter_does() -> None:
    for python in (sys.executable, os.path.relpath(sys.executable)):
        environment = child_environment(python, own={}, python_path=["/first"])
        assert environment["PYTHONPATH"] == "/first:/ours"
        assert environment["PYTHONHOME"] == "/usr"


def test_an_environment_that_was_made_of_ours_is_another(tmp_path: Path) -> None:
    venv.create(tmp_path / "v", symlinks=True)
    python = str(tmp_path / "v/bin/python")
    assert "PYTHONPATH" not in child_environment(python, own={})


def test_the_gpus_that_a_replica_was_given_are_what_it_sees() -> None:
    environment = child_environment(OTHER, own={}, gpus=["GPU-a", "GPU-b"])
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"


async def test_a_child_has_the_variables_of_its_deployment(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONHOME")
    deployment = Deployment(
        name="awk", runtime="awkward", environment={"OMP_NUM_THREADS": "2", "A": "ü"}
    )
    async with (
        open_bridged_runner(
            "awkward:PLUGIN", deployment, RunnerContext(), python_path=[str(HERE)]
        ) as runner,
        runner.execute(ask("variables OMP_NUM_THREADS A")) as chunks,
    ):
        assert (await anext(chunks)).text == "2 ü"


async def test_an_interpreter_is_asked_with_the_variables_that_its_child_has(
    tmp_path: Path,
) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho PYTHONPATH=$PYTHONPATH A=$A; exit 1\n")
    other.chmod(0o755)
    deployment = Deployment(
        name="awk", runtime="ort", interpreter=str(other), environment={"A": "b"}
    )
    with pytest.raises(EngineStartError, match=r"it said: PYTHONPATH= A=b$"):
        async with open_bridged_runner("x:Y", deployment, RunnerContext()):
            pass


def test_they_go_along_to_rays_nodes() -> None:
    deployment = Deployment(
        name="a", runtime="vllm", environment={"A": "b"}, ray=RayHost()
    )
    order = order_of("x:Y", deployment)
    assert order is not None
    assert read(written(order)).environment == {"A": "b"}


def test_a_representation_has_their_names_alone() -> None:
    deployment = Deployment(
        name="a", runtime="vllm", environment={"A": "secret"}, ray=RayHost()
    )
    for shown in (repr(deployment), repr(order_of("x:Y", deployment))):
        assert "environment={'A': ...}" in shown
        assert "secret" not in shown


async def test_a_command_line_has_none_of_them(tmp_path: Path) -> None:
    relay = tmp_path / "python"
    relay.write_text('#!/bin/sh\necho "$@" > $0.told; env > $0.env; exit 1\n')
    relay.chmod(0o755)
    deployment = Deployment(
        name="a", runtime="vllm", environment={"A": "secret"}, ray=RayHost()
    )
    with pytest.raises(EngineStartError):
        async with open_bridged_runner(
            "x:Y", deployment, RunnerContext(), python=str(relay)
        ):
            pass
    arguments = (tmp_path / "python.told").read_text()
    assert "atomr_infer.bridge.on_ray.relay" in arguments
    assert "secret" not in arguments
    assert "secret" in (tmp_path / "python.env").read_text()


def test_a_file_says_them() -> None:
    text = f'{A}environment = {{ OMP_NUM_THREADS = "4" }}\nmemory_limit_gib = 1.5\n'
    (found,) = parse_config(text, "x.toml").deployments
    assert found.environment == {"OMP_NUM_THREADS": "4"}
    assert found.memory_limit_gib == 1.5


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "environment = { A = 4 }",
            'environment: A is a number, not a string; write A = "..."',
        ),
        ("environment = ['A=b']", "environment is an array, not a table"),
        ('environment = { "A=" = "b" }', "environment: 'A=' is no name of a variable"),
        ('environment = { A = "b\\u0000" }', "environment: 'A' has a value that no"),
        ('env = { A = "b" }', "did you mean 'environment'?"),
        ("memory_limit_gib = 0", "memory_limit_gib: 0 must be a number above 0"),
        ('memory_limit = "4 GiB"', "did you mean 'memory_limit_gib'?"),
        (
            'environment = { CUDA_VISIBLE_DEVICES = "1" }\nplacement = { gpus = 1 }',
            "environment: 'CUDA_VISIBLE_DEVICES' is what placement.gpus decides; leave",
        ),
    ],
)
def test_each_mistake_is_told_with_its_line(written: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(A + written, "x.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("x.toml:4: ")


def test_gpus_that_ray_gives_are_not_named_by_hand() -> None:
    with pytest.raises(InvalidValueError, match=r"is what ray\.num_gpus decides"):
        Deployment(
            name="a",
            runtime="vllm",
            environment={"CUDA_VISIBLE_DEVICES": "0"},
            ray=RayHost(num_gpus=1),
        )
    # Without a plan for GPUs it is the operator's to say.
    Deployment(
        name="a",
        runtime="vllm",
        environment={"CUDA_VISIBLE_DEVICES": "0"},
        placement=Placement(),
    )


@pytest.mark.parametrize(
    ("runtime", "ray", "key", "said"),
    [
        ("openai", None, "environment", "'openai' runs in this process; leave it out"),
        ("openai", None, "memory_limit_gib", "'openai' runs in this process; leave"),
        ("vllm", RayHost(), "memory_limit_gib", "one of Ray's nodes, where nobody"),
    ],
)
def test_what_nobody_would_read_is_refused(
    runtime: str, ray: RayHost | None, key: str, said: str
) -> None:
    deployment = Deployment(
        name="a",
        runtime=runtime,
        ray=ray,
        environment={"A": "b"} if key == "environment" else {},
        memory_limit_gib=1.0 if key == "memory_limit_gib" else None,
    )
    with pytest.raises(ConfigError, match=f"'a': {key} is written, but .*{said}"):
        check_available(load_runtime(runtime), deployment)
