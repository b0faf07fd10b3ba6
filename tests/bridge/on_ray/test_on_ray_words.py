"""What a relay for Ray passes on and is told, without Ray."""

from __future__ import annotations

import sys

import pytest
import trio

from atomr_infer.bridge import open_bridged_runner
from atomr_infer.bridge.on_ray.order import Order, order_of, read, written
from atomr_infer.bridge.on_ray.relay import Relay
from atomr_infer.bridge.on_ray.whole_frames import WholeFrames
from atomr_infer.bridge.protocol.frames import (
    Chunk,
    Failed,
    FrameError,
    Ready,
    StartFailed,
    Text,
    child_reader,
    encode,
)
from atomr_infer.bridge.protocol.values import (
    capabilities_to_wire,
    chunk_to_wire,
    error_from_wire,
    error_to_wire,
)
from atomr_infer.errors import ConfigError, EngineCrashedError, EngineStartError
from atomr_infer.errors import decode as decode_error
from atomr_infer.errors import encode as encode_error
from atomr_infer.model.batch import TokenChunk
from atomr_infer.model.capabilities import Capabilities
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.ray import RayHost
from atomr_infer.runtimes.available import check_available
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer.testing.mock import PLUGIN as MOCK
from atomr_infer_vllm.plugin import PLUGIN as VLLM

READY = encode(Ready(capabilities_to_wire(Capabilities())))
TEXT = encode(Text(7, "hello", 0))
ON_RAY = Deployment(
    name="chat",
    runtime="vllm",
    interpreter="/opt/vllm/bin/python",
    ray=RayHost(address="head:6379", num_gpus=0.5, resources={"TPU": 2}),
)


def test_frames_come_out_whole_however_they_come_in() -> None:
    sent = READY + TEXT + encode(Chunk(7, chunk_to_wire(TokenChunk(text="x" * 9000))))
    for size in (1, 2, 3, 5, 1000, len(sent)):
        frames = WholeFrames()
        came = [
            frames.receive(sent[at : at + size]) for at in range(0, len(sent), size)
        ]
        assert b"".join(came) == sent
        assert frames.ready


def test_half_a_frame_of_an_engine_that_died_is_held_back() -> None:
    frames = WholeFrames()
    assert frames.receive(TEXT + TEXT[:-1]) == TEXT
    assert frames.receive(b"") == b""


def test_ready_is_what_the_child_says_of_its_runner_and_not_a_word_of_an_answer() -> (
    None
):
    frames = WholeFrames()
    error = error_to_wire(encode_error(EngineCrashedError("Ready")))
    frames.receive(encode(Failed(error)) + encode(Text(1, "Ready", 0)))
    assert not frames.ready
    frames.receive(READY)
    assert frames.ready


def test_a_length_that_no_frame_has_is_refused_before_it_is_kept() -> None:
    with pytest.raises(FrameError, match="4294967295 bytes is announced; 100 is the"):
        WholeFrames(max_bytes=100).receive(b"\xff\xff\xff\xff")


def test_an_order_is_read_as_it_was_written() -> None:
    order = order_of("atomr_infer_vllm.plugin:PLUGIN", ON_RAY)
    assert order is not None
    assert read(written(order)) == order
    assert order == Order(
        name="chat",
        runtime="vllm",
        plugin_ref="atomr_infer_vllm.plugin:PLUGIN",
        interpreter="/opt/vllm/bin/python",
        environment={},
        ray=RayHost(address="head:6379", num_gpus=0.5, resources={"TPU": 2}),
    )
    assert order.ray.wanted == "0.5 GPU, 1 CPU, 2 TPU"


def test_an_engine_on_ray_is_not_looked_for_on_this_machine() -> None:
    python = sys.executable
    check_available(VLLM, _with(interpreter=python))
    with pytest.raises(ConfigError, match="interpreter is '/no/python', which is not"):
        check_available(VLLM, _with(interpreter="/no/python"))
    with pytest.raises(ConfigError, match=r"pip install 'atomr-infer\[ray\]'"):
        check_available(VLLM, _with(interpreter=None))


def test_ray_for_a_runtime_of_this_process_is_refused() -> None:
    on_ray = Deployment(name="tiny", runtime="mock", ray=RayHost())
    with pytest.raises(ConfigError, match="'mock' runs in this process; leave it out"):
        check_available(MOCK, on_ray)


async def test_a_relay_whose_interpreter_has_no_ray_is_told_what_to_install() -> None:
    said = f"the interpreter '{sys.executable}' lacks ray>=2.60; run: "
    with pytest.raises(EngineStartError) as caught:
        async with open_bridged_runner(
            "atomr_infer_vllm.plugin:PLUGIN",
            _with(interpreter=sys.executable),
            RunnerContext(),
        ):
            pass
    assert caught.value.message.startswith(said)


class Elsewhere:
    """Ray, which knows this machine by an address that it has not."""

    async def connect(self, address: str) -> None:
        """Be connected."""

    def own_address(self) -> str:
        """Return one that is for documentation alone."""
        return "192.0.2.7"


async def test_an_address_where_nobody_can_listen_is_told_to_the_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The module itself needs Ray, which is in another environment.
    monkeypatch.setitem(
        sys.modules,
        "atomr_infer.bridge.on_ray.actors",
        Elsewhere(),
    )
    order = order_of("atomr_infer_vllm.plugin:PLUGIN", ON_RAY)
    assert order is not None
    ours, theirs = trio.socket.socketpair()
    with trio.fail_after(10):
        async with trio.SocketStream(theirs) as relay:
            await Relay(relay, order).run()
        async with trio.SocketStream(ours) as parent:
            said = b"".join([bytes(piece) async for piece in parent])
    *_, last = child_reader().receive(said)
    assert isinstance(last, StartFailed)
    error = decode_error(error_from_wire(last.error))
    assert isinstance(error, EngineStartError)
    assert error.message.startswith(
        "the engine cannot connect to this machine at '192.0.2.7', the address by "
        "which Ray's nodes know it: "
    )


def _with(interpreter: str | None) -> Deployment:
    return Deployment(name="c", runtime="vllm", ray=RayHost(interpreter=interpreter))
