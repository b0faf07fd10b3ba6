"""Tensors over HTTP, as clients of KServe and Triton ask for them; and labels."""

from __future__ import annotations

import gc
import json
import math
import os
import socket
import struct
import tracemalloc
from contextlib import asynccontextmanager
from importlib.metadata import Distribution, distribution, distributions
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.gateway.api.tensor_routes import parsed, written
from atomr_infer.gateway.opening import open_on
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.secret import Secret
from atomr_infer.model.tensors import (
    Datatype,
    Inferred,
    InferRequest,
    Signature,
    Tensor,
    TensorSpec,
    joined,
)
from atomr_infer.model.usage import Usage
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.requests.elsewhere import know
from atomr_infer.testing.mock import MockPlugin, MockRunner
from atomr_infer.wire.ingress import Call
from tests.gateway.http import Answer, request, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from atomr_infer.runtimes.contract import RunnerContext

    Open = Callable[..., AbstractAsyncContextManager[int]]

TAKES = Signature(
    inputs=(
        TensorSpec("x", Datatype.FP32, (-1, 2)),
        TensorSpec("t", Datatype.BYTES, (-1,)),
    ),
    outputs=(
        TensorSpec("y", Datatype.FP32, (-1, 2)),
        TensorSpec("t", Datatype.BYTES, (-1,)),
        TensorSpec("h", Datatype.FP16, (1,)),
    ),
)


class _Runner(MockRunner):
    """Gives ``x`` back as ``y``, and ``t`` as it is; says how long texts are."""

    @property
    def capabilities(self) -> Capabilities:
        features = frozenset({Feature.INFER, Feature.CLASSIFY})
        return Capabilities(features=features, signature=TAKES)

    async def infer(self, asked: InferRequest) -> Inferred:
        given = {each.name: each for each in asked.inputs}
        made = (
            attrs.evolve(given["x"], name="y"),
            given["t"],
            Tensor("h", Datatype.FP16, (1,), b"\x00\x3c"),
        )
        wanted = asked.outputs or ("y", "t")
        by_name = {each.name: each for each in made}
        return Inferred(outputs=tuple(by_name[name] for name in wanted))

    async def embed(self, asked: EmbedRequest) -> Embeddings:
        assert asked.classifies
        vectors = tuple(
            (0.25, 0.75) if "bad" in str(x) else (1.0, 0.0) for x in asked.inputs
        )
        usage = Usage(input_uncached=3)
        return Embeddings(vectors=vectors, usage=usage, labels=("good", "bad"))


class _Plugin(MockPlugin):
    name = "tensors"

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[_Runner]:
        del deployment, context
        yield _Runner()


PLUGIN = _Plugin()


@pytest.fixture
def gateway(tmp_path: Path) -> Open:
    info = tmp_path / "tensors-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tensors\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[atomr_infer.runtimes]\ntensors = tests.gateway.test_tensors:PLUGIN\n"
    )

    def installed() -> Iterator[Distribution]:
        yield from distributions(path=[str(tmp_path)])
        yield distribution("atomr-infer")

    @asynccontextmanager
    async def open_it(keys: tuple[Secret, ...] = ()) -> AsyncIterator[int]:
        async with open_serving(environ={}, installed=installed) as serving:
            await serving.deploy(Deployment(name="org/m", runtime="tensors"))
            await serving.deploy(Deployment(name="chat", runtime="mock"))
            # Of the catalogue, and no node can run it.
            know(serving, Deployment(name="far", runtime="mock"), ())
            config = GatewayConfig(bind="127.0.0.1:0")
            opened = await open_on(
                serving,
                config,
                keys=keys,
                admin_key=None,
                response_store=None,
                tls=None,
                sockets=(),
            )
            try:
                yield int(opened.url.rpartition(":")[2])
            finally:
                await opened.drain(0)

    return open_it


X: dict[str, Any] = {
    "name": "x",
    "shape": [2, 2],
    "datatype": "FP32",
    "data": [1.0, 2.5, -3.0, 4.0],
}
T: dict[str, Any] = {
    "name": "t",
    "shape": [2],
    "datatype": "BYTES",
    "data": ["héllo", ""],
}
PATH = "/v2/models/org/m"
JSON_LENGTH = "inference-header-content-length"


async def infer(port: int, path: str = PATH, **members: Any) -> Answer:
    body = json.dumps({"inputs": [X, T], **members}).encode()
    return await request(port, "POST", f"{path}/infer", body)


async def test_tensors_are_answered_as_the_protocol_writes_them(gateway: Open) -> None:
    async with gateway() as port:
        answer = await infer(port, id="mine")
        assert (answer.status, answer.headers["content-type"]) == (
            200,
            "application/json",
        )
        assert answer.json == {
            "model_name": "org/m",
            "model_version": "1",
            "id": "mine",
            "outputs": [{**X, "name": "y"}, T],
        }
        assert answer.headers["x-atomr-deployment"] == "org/m"
        nested = {**X, "data": [[1, 2.5], [-3, 4]]}
        answer = await infer(
            port, f"{PATH}/versions/1", inputs=[nested, T], outputs=[{"name": "y"}]
        )
        assert answer.json["outputs"] == [{**X, "name": "y"}]
        assert answer.json["id"] == answer.headers["x-request-id"]


async def test_binary_tensors_stand_behind_the_json(gateway: Open) -> None:
    texts = joined(["a", b"\xff"])
    floats = struct.pack("<4f", 1.0, math.inf, math.nan, 4.0)
    inputs = []
    for each, size in ((X, len(floats)), (T, len(texts))):
        bare = {name: value for name, value in each.items() if name != "data"}
        inputs.append({**bare, "parameters": {"binary_data_size": size}})
    asked = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    head = json.dumps(asked).encode()
    kind = {"content-type": "application/octet-stream", JSON_LENGTH: str(len(head))}
    async with gateway() as port:
        answer = await request(
            port, "POST", f"{PATH}/infer", head + floats + texts, **kind
        )
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        length = int(answer.headers[JSON_LENGTH])
        told = json.loads(answer.body[:length])
        assert [each["parameters"]["binary_data_size"] for each in told["outputs"]] == [
            len(floats),
            len(texts),
        ]
        assert answer.body[length:] == floats + texts
        # Some as bytes, the others as JSON: there, infinity has no number.
        asked["outputs"] = [
            {"name": "y"},
            {"name": "t", "parameters": {"binary_data": True}},
        ]
        head = json.dumps(asked).encode()
        kind[JSON_LENGTH] = str(len(head))
        answer = await request(
            port, "POST", f"{PATH}/infer", head + floats + texts, **kind
        )
        length = int(answer.headers[JSON_LENGTH])
        outputs = json.loads(answer.body[:length])["outputs"]
        assert outputs[0]["data"] == [1.0, None, None, 4.0]
        assert answer.body[length:] == texts


async def test_others_have_their_turn_while_large_tensors_are_read_and_written() -> (
    None
):
    numbers = [1] * 40_000
    one = {"name": "x", "shape": [40_000], "datatype": "FP32", "data": numbers}
    body = json.dumps({"inputs": [one]}).encode()
    turns: list[int] = []

    async def others() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            turns.append(len(turns))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        asked = await parsed(Call(request_id="r", body=body, model="m"))
        after_reading = len(turns)
        found = Inferred(outputs=asked.request.inputs)
        answer, _ = await written(asked, found, "m")
        nursery.cancel_scope.cancel()
    assert 0 < after_reading < len(turns)
    assert json.loads(answer)["outputs"] == [one]


async def test_what_json_has_no_form_for_is_refused(gateway: Open) -> None:
    async with gateway() as port:
        answer = await infer(port, outputs=[{"name": "h"}])
        assert answer.status == 400
        assert answer.json == {
            "error": "the output 'h' is FP16, which JSON does not have: ask for it "
            "with the parameter binary_data"
        }


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        (
            {"inputs": [X]},
            "'t' is missing; the model takes 'x' FP32 [-1, 2], 't' BYTES [-1]",
        ),
        (
            {"inputs": [{**X, "shape": [4]}, T]},
            "'x' is FP32 [4]; the model takes 'x' FP32 [-1, 2]",
        ),
        ({"inputs": []}, "'inputs' must not be empty"),
    ],
    ids=["missing", "shape", "none"],
)
async def test_a_mistake_is_named_with_what_is_wanted(
    gateway: Open, members: dict[str, Any], problem: str
) -> None:
    async with gateway() as port:
        answer = await infer(port, **members)
        assert (answer.status, answer.json) == (400, {"error": problem})


async def test_a_model_says_what_it_takes_and_whether_it_is_ready(
    gateway: Open,
) -> None:
    async with gateway() as port:
        answer = await request(port, "GET", PATH)
        assert answer.status == 200
        assert answer.json == {
            "name": "org/m",
            "versions": ["1"],
            "platform": "tensors",
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
                {"name": "t", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [-1, 2]},
                {"name": "t", "datatype": "BYTES", "shape": [-1]},
                {"name": "h", "datatype": "FP16", "shape": [1]},
            ],
        }
        answer = await request(port, "GET", f"{PATH}/ready")
        assert (answer.status, answer.json) == (200, {"name": "org/m", "ready": True})
        assert (await request(port, "GET", "/v2/health/live")).status == 200
        assert (await request(port, "GET", "/v2/health/ready")).status == 200
        server = await request(port, "GET", "/v2")
        assert server.json["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("POST", "/v2/models/none/infer", 404, "the model 'none' does not exist"),
        ("GET", "/v2/models/none", 404, "the model 'none' does not exist"),
        ("GET", "/v2/models/none/ready", 404, "the model 'none' does not exist"),
        (
            "GET",
            "/v2/models/far/ready",
            503,
            "the model 'far' is served by no node now",
        ),
        ("GET", f"{PATH}/infer", 405, f"{PATH}/infer takes POST, OPTIONS, not GET"),
        ("GET", "/v2/nothing", 404, "there is no /v2/nothing here"),
        ("GET", f"{PATH}/versions/2", 404, "the model 'org/m/versions/2' does not"),
        (
            "POST",
            "/v2/models/chat/infer",
            501,
            "model 'chat' of deployment 'chat' does not",
        ),
        ("GET", "/v2/models/chat", 501, "model 'chat' of deployment 'chat' does not"),
    ],
)
async def test_the_protocol_s_errors_are_one_sentence(
    gateway: Open, method: str, path: str, status: int, problem: str
) -> None:
    body = json.dumps({"inputs": [X]}).encode() if method == "POST" else b""
    async with gateway() as port:
        answer = await request(port, method, path, body)
        assert answer.status == status
        assert answer.json["error"].startswith(problem)


async def test_tensors_need_the_key_that_other_requests_need(gateway: Open) -> None:
    async with gateway(keys=(Secret("k"),)) as port:
        assert (await infer(port)).status == 401
        body = json.dumps({"inputs": [X, T]}).encode()
        told = {"authorization": "Bearer k"}
        answer = await request(port, "POST", f"{PATH}/infer", body, **told)
        assert answer.status == 200


# --- labels ---------------------------------------------------------------------


async def classify(port: int, **members: Any) -> Answer:
    body = json.dumps({"model": "org/m", **members}).encode()
    return await request(port, "POST", "/v1/classify", body)


async def test_texts_get_their_likeliest_label(gateway: Open) -> None:
    async with gateway() as port:
        answer = await classify(port, input=["a bad one", "a good one"])
        assert answer.status == 200
        members = answer.json
        assert members.pop("created") > 0
        assert members == {
            "id": f"classify-{answer.headers['x-request-id']}",
            "object": "list",
            "model": "org/m",
            "labels": ["good", "bad"],
            "data": [
                {"index": 0, "label": "bad", "probs": [0.25, 0.75], "num_classes": 2},
                {"index": 1, "label": "good", "probs": [1.0, 0.0], "num_classes": 2},
            ],
            "usage": {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0},
        }
        answer = await classify(port, input="one")
        assert [each["label"] for each in answer.json["data"]] == ["good"]


@pytest.mark.parametrize(
    ("members", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": ["a", ""]}, 400, "input[1]"),
        ({"input": [1]}, 400, "input"),
        ({"input": ["a"] * 2049}, 400, "input"),
        ({"input": "a", "model": "chat"}, 501, "model"),
        ({"input": "a", "model": "none"}, 404, "model"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_what_cannot_be_classified_is_refused(
    gateway: Open, members: dict[str, Any], status: int, param: str
) -> None:
    async with gateway() as port:
        answer = await classify(port, **members)
        assert answer.status == status
        assert answer.json["error"]["param"] == param


async def test_clients_that_leave_in_their_bodies_leave_nothing(gateway: Open) -> None:
    size = 4 * 1024 * 1024
    head = (
        f"POST {PATH}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n"
        "content-type: application/json\r\n\r\n"
    ).encode()
    begun = b'{"inputs": [{"name": "x", "shape": [1], "data": [' + b"1," * 500_000

    async def leave(port: int, how: str) -> None:
        client = await trio.open_tcp_stream("127.0.0.1", port)
        async with client:
            await client.send_all(head + begun)
            if how == "half":
                # It would listen on, and gets nothing: it has said that this is all.
                await client.send_eof()
                with trio.fail_after(30):
                    assert await client.receive_some() == b""
            elif how == "reset":
                at_once = struct.pack("ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

    async with gateway() as port:
        await infer(port)
        before = open_files()
        tracemalloc.start()
        try:
            async with trio.open_nursery() as nursery:
                for how in ("end", "reset", "half") * 4:
                    nursery.start_soon(leave, port, how)
            await until(lambda: open_files() <= before)
            gc.collect()
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < len(begun) < peak
        assert (await infer(port)).status == 200


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
