"""What may be an actor, what its deployment says, and which GPUs it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.actors import Context, deployment_of, gpu_actor, inference_actor
from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.placement import Placement
from atomr_infer_python.gpus import check_gpus
from tests.actors.own import Bare, Counter, Greedy, plan

if TYPE_CHECKING:
    from pathlib import Path


def test_a_deployment_names_the_code_and_holds_its_options() -> None:
    assert deployment_of(plan, "p", style="bold") == Deployment(
        name="p", runtime="actor:tests.actors.own:plan", options={"style": "bold"}
    )
    assert deployment_of(Counter, "c", 3).options == {"start": 3}
    assert deployment_of(Greedy, "g") == Deployment(
        name="g",
        runtime="python:tests.actors.own:Greedy",
        placement=Placement(gpus=64),
    )


def test_memory_of_gpus_is_placed_in_gib() -> None:
    placed = gpu_actor(devices=2, memory_bytes=3 << 29)(type("Big", (), HANDLES))
    placed.__module__ = __name__

    assert deployment_of(placed, "b").placement == Placement(gpus=2, gpu_memory_gib=1.5)


HANDLES: dict[str, Any] = {"handle": lambda _, text: text}


def test_code_stays_what_it_is() -> None:
    counter = Counter(5)

    assert (counter.count, Counter.__name__, plan.__name__) == (5, "Counter", "plan")


def a_plain_function(ctx: Context, text: str) -> str:
    return text


class WithoutHandle:
    """Has nothing to be asked by."""


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (a_plain_function, "is not async; an inference_actor runs in the loop"),
        (WithoutHandle, "is no class with a method handle"),
        (type("Plain", (), HANDLES), "is not async"),
    ],
)
def test_code_that_cannot_be_an_inference_actor_is_refused_with_what_helps(
    code: Any, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        inference_actor(code)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"asks": "small"}, r"write a row: asks=\('small',\)"),
        ({"concurrency": 0}, "concurrency is 0; it must be a number, 1 at least"),
    ],
)
def test_a_decorator_that_makes_no_sense_is_refused(
    said: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        inference_actor(**said)


async def with_asks(ctx: Context, text: str, asks: list[str]) -> str:
    return text


class Asks:
    """Takes what is not its own."""

    def __init__(self, *, asks: int = 1) -> None:
        self.asks = asks

    async def handle(self, ctx: Context, text: str) -> str:
        return text


@pytest.mark.parametrize(
    ("decorator", "code"),
    [(inference_actor, with_asks), (inference_actor, Asks), (gpu_actor, Asks)],
)
def test_a_parameter_that_would_be_taken_for_whom_it_asks_is_refused(
    decorator: Any, code: Any
) -> None:
    with pytest.raises(ConfigError) as raised:
        decorator(code)

    assert str(raised.value) == (
        f"{__name__}:{code.__name__} has a parameter 'asks'; the option of that name "
        "says whom an actor asks, and is not given to the code: call it something else"
    )


def test_a_request_may_be_called_asks() -> None:
    @inference_actor
    async def count_them(ctx: Context, asks: str) -> int:
        return len(asks)


def test_a_class_that_does_not_say_what_it_takes_may_be_an_actor() -> None:
    child = type("Child", (dict,), HANDLES)

    assert gpu_actor(child) is child


@pytest.mark.parametrize("devices", [-1, True, 1.5])
def test_gpus_are_counted_in_whole_numbers(devices: Any) -> None:
    with pytest.raises(ConfigError, match="must be a number, 0 at least"):
        gpu_actor(devices=devices)


def test_what_nobody_has_decorated_is_no_actor_and_neither_is_its_child() -> None:
    class Child(Counter):
        """Of a class that is one."""

    for code in (Bare, Child):
        with pytest.raises(ConfigError, match="is no actor; decorate it"):
            deployment_of(code, "x")


def test_code_that_no_other_process_could_find_is_refused() -> None:
    @inference_actor
    async def local(_: Context, text: str) -> str:
        return text

    with pytest.raises(ConfigError, match="is inside a function"):
        deployment_of(local, "x")


def test_an_option_that_toml_cannot_hold_is_refused() -> None:
    start: Any = object()
    with pytest.raises(ConfigError, match=r"start is <object .*; an option is what"):
        deployment_of(Counter, "x", start)


def dev(folder: Path, count: int) -> Path:
    for number in range(count):
        (folder / f"nvidia{number}").touch()
    (folder / "nvidiactl").touch()
    return folder


@pytest.mark.parametrize(
    ("there", "visible", "told"),
    [
        (0, None, "needs 2 GPUs, and this process sees 0; run it on a node with"),
        (1, None, "sees 1; say devices=1 where it is decorated"),
        (2, "1", "sees 1; set CUDA_VISIBLE_DEVICES, which hides the others"),
        (2, "", "sees 0; set CUDA_VISIBLE_DEVICES"),
        (2, "NoDevFiles", "sees 0; set CUDA_VISIBLE_DEVICES"),
        (2, "-1,0", "sees 0; set CUDA_VISIBLE_DEVICES"),
        (4, "0,-1,2", "sees 1; set CUDA_VISIBLE_DEVICES"),
        (2, None, None),
        (4, "3,1", None),
    ],
)
def test_gpus_are_counted_before_anything_is_loaded(
    tmp_path: Path, there: int, visible: str | None, told: str | None
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    devices = dev(tmp_path, there)
    if told is None:
        check_gpus("mine:Thing", 2, environ, devices)
        return
    with pytest.raises(EngineStartError, match=told):
        check_gpus("mine:Thing", 2, environ, devices)
