"""Everything but inference: health, models, what is not there."""

import logging
from typing import Any

import pytest

from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.serving.replicas.replica import Phase
from tests.gateway.conftest import Serve
from tests.gateway.http import chat, request

M = Deployment(name="m", runtime="mock", serves=("m", "org/m:1"))
PATTERN = Deployment(name="p", runtime="mock", serves=("gpt-*",))


async def test_health_is_alive_before_anything_is_deployed(serve: Serve) -> None:
    async with serve() as running:
        assert (await request(running.port, "GET", "/healthz")).status == 200
        ready = await request(running.port, "GET", "/readyz")
    assert ready.status == 503
    assert ready.json == {"ready": False, "deployments": {}}


async def test_ready_when_every_deployment_serves(serve: Serve) -> None:
    async with serve(M) as running:
        ready = await request(running.port, "GET", "/readyz")
    assert (ready.status, ready.json) == (
        200,
        {"ready": True, "deployments": {"m": "serving"}},
    )


async def test_who_cannot_answer_is_named_and_keeps_the_node_from_nobody_else(
    serve: Serve,
) -> None:
    async with serve(M, PATTERN) as running:
        serving = running.cluster._serving
        for phase, others, status in (
            (Phase.RESTARTING, Phase.SERVING, 200),
            (Phase.FAILED, Phase.ASLEEP, 200),
            (Phase.RESTARTING, Phase.FAILED, 503),
        ):
            serving._phases.update(m=phase, p=others)
            answer = await request(running.port, "GET", "/readyz")
            ready = {Phase.SERVING, Phase.ASLEEP}.intersection({others})
            assert answer.status == status
            assert answer.json == {
                "ready": status == 200,
                "deployments": {"m": phase.value, "p": others.value},
                "not_ready": ["m"] if ready else ["m", "p"],
            }


async def test_models_are_listed_and_looked_up(serve: Serve) -> None:
    async with serve(M, PATTERN) as running:
        listed = await request(running.port, "GET", "/v1/models")
        one = await request(running.port, "GET", "/v1/models/org/m:1")
        by_pattern = await request(running.port, "GET", "/v1/models/gpt-9")
        none = await request(running.port, "GET", "/v1/models/nope")
    assert [m["id"] for m in listed.json["data"]] == ["m", "org/m:1", "gpt-*"]
    assert one.json["id"] == "org/m:1"
    assert one.json["owned_by"] == "m"
    assert by_pattern.json["id"] == "gpt-9"
    assert none.status == 404
    assert none.json["error"]["code"] == "model_not_found"


async def test_the_index_says_what_is_here(serve: Serve) -> None:
    async with serve(M) as running:
        index = await request(running.port, "GET", "/")
    assert index.json["name"] == "atomr-infer"
    assert "POST /v1/chat/completions" in index.json["endpoints"]


async def test_what_is_not_there_answers_in_the_envelope(serve: Serve) -> None:
    async with serve(M) as running:
        missing = await request(running.port, "POST", "/v1/nothing", b"{}")
        wrong = await request(running.port, "GET", "/v1/chat/completions")
    assert missing.status == 404
    assert missing.json["error"]["message"] == "there is no /v1/nothing here"
    assert wrong.status == 405
    assert wrong.headers["allow"] == "POST, OPTIONS"


async def test_a_version_that_a_client_puts_before_its_own_is_taken_off(
    serve: Serve,
) -> None:
    async with serve(M) as running:
        for path in ("/v1/v1/models", "/v1/v1beta/models", "/v1beta/v1beta/models"):
            assert (await request(running.port, "GET", path)).status == 200, path
        thrice = await request(running.port, "GET", "/v1/v1/v1/models")
    assert thrice.status == 404


async def test_an_action_of_geminis_that_is_not_there_is_404(serve: Serve) -> None:
    async with serve(M) as running:
        path = "/v1beta/models/m:generateContnt"
        answer = await request(running.port, "POST", path, b"{}")
    assert (answer.status, answer.json["error"]["message"]) == (
        404,
        f"there is no {path} here",
    )


async def test_what_stands_behind_a_response_is_404(serve: Serve) -> None:
    async with serve(M) as running:
        for method, path in (
            ("GET", "/v1/responses/resp_1/input_items"),
            ("POST", "/v1/responses/resp_1/cancel"),
        ):
            answer = await request(running.port, method, path)
            assert (answer.status, answer.json["error"]["message"]) == (
                404,
                f"there is no {path} here",
            )


async def test_head_and_a_trailing_slash_are_understood(serve: Serve) -> None:
    async with serve(M) as running:
        head = await request(running.port, "HEAD", "/healthz")
        slash = await request(running.port, "GET", "/v1/models/")
    assert (head.status, head.body) == (200, b"")
    assert slash.status == 200


async def test_a_request_is_one_line_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Deployment(
        name="broken",
        runtime="mock",
        options={"fail_after": 0},
        retry=RetryPolicy(max_attempts=1),
    )
    async with serve(M, broken) as running:
        asked: tuple[dict[str, Any], ...] = (
            {"model": "m"},
            {"model": "broken"},
            {"model": "none"},
            {"model": "m", "messages": []},
        )
        for members in asked:
            caplog.clear()
            with caplog.at_level(logging.INFO):
                await chat(running.port, **members)
            lines = [r.getMessage() for r in caplog.records]
            assert len(lines) == 1, lines
