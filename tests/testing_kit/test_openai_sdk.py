"""The fake is faithful: OpenAI's own library takes it for the real thing."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, TypeVar

import openai
import pytest
import trio

from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_openai_upstream

if TYPE_CHECKING:
    from collections.abc import Callable

HI: list[Any] = [{"role": "user", "content": "one two"}]
T = TypeVar("T")


async def _with_library(
    base_url: str, use: Callable[[openai.OpenAI], T], api_key: str = "k"
) -> T:
    """Run the library's blocking client in a thread, as most programs use it."""

    def run() -> T:
        with openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0) as client:
            return use(client)

    with trio.fail_after(30):
        return await trio.to_thread.run_sync(run, abandon_on_cancel=True)


def _stream(client: openai.OpenAI, **members: Any) -> list[Any]:
    with client.chat.completions.create(
        model="m", messages=HI, stream=True, **members
    ) as stream:
        return list(stream)


def _whole(client: openai.OpenAI, **members: Any) -> Any:
    return client.chat.completions.create(model="m", messages=HI, **members)


async def test_library_reads_a_stream() -> None:
    def with_usage(client: openai.OpenAI) -> list[Any]:
        return _stream(client, stream_options={"include_usage": True})

    async with open_openai_upstream() as upstream:
        chunks = await _with_library(upstream.base_url, with_usage)
        deltas = [c.choices[0].delta.content for c in chunks[:-1]]
        assert deltas == ["", *script.DEFAULT_TOKENS, None]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage.total_tokens == 2 + 6
        # Usage that was not asked for does not come.
        plain = await _with_library(upstream.base_url, _stream)
        assert [chunk.usage for chunk in plain] == [None] * 8


async def test_library_reads_a_whole_answer() -> None:
    async with open_openai_upstream() as upstream:
        answer = await _with_library(
            upstream.base_url, lambda client: _whole(client, max_tokens=2, n=2)
        )
        assert [c.message.content for c in answer.choices] == ["Hello from"] * 2
        assert [c.finish_reason for c in answer.choices] == ["length"] * 2
        assert answer.usage.completion_tokens == 4


async def test_library_reads_a_tool_call() -> None:
    behaviour = script.ToolCall(arguments=("{", "}"))
    async with open_openai_upstream(otherwise=behaviour) as upstream:
        chunks = await _with_library(upstream.base_url, _stream)
        calls = [c.choices[0].delta.tool_calls for c in chunks]
        assert [call[0].function.arguments for call in calls if call] == ["", "{", "}"]
        answer = await _with_library(upstream.base_url, _whole)
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, call.function.arguments) == ("get_weather", "{}")


@pytest.mark.parametrize(
    ("behaviour", "error_class"),
    [
        (script.rate_limited(), openai.RateLimitError),
        (script.server_error(), openai.InternalServerError),
        (script.Refused(status=400), openai.BadRequestError),
        (script.Refused(status=404), openai.NotFoundError),
        (script.ErrorInStream(), openai.APIError),
        (script.CloseBeforeHeaders(), openai.APIConnectionError),
    ],
)
async def test_library_raises_its_own_error(
    behaviour: script.Behaviour, error_class: type[Exception]
) -> None:
    async with open_openai_upstream([behaviour]) as upstream:
        with pytest.raises(error_class):
            await _with_library(upstream.base_url, _stream)


def _models(client: openai.OpenAI) -> list[str]:
    return [model.id for model in client.models.list().data]


async def test_wrong_key_is_refused_and_the_right_one_is_taken() -> None:
    async with open_openai_upstream(api_key="right") as upstream:
        with pytest.raises(openai.AuthenticationError):
            await _with_library(upstream.base_url, _models, "wrong")
        models = await _with_library(upstream.base_url, _models, "right")
        assert models == ["fake-model"]


async def test_script_is_taken_in_order_and_then_otherwise() -> None:
    steps: list[script.Behaviour] = [script.rate_limited(), script.Happy(tokens=("a",))]

    def outcome(client: openai.OpenAI) -> int:
        try:
            return len(_stream(client))
        except openai.APIStatusError as error:
            return error.status_code

    async with open_openai_upstream(steps, otherwise=script.server_error()) as upstream:
        seen = [await _with_library(upstream.base_url, outcome) for _ in range(4)]
        assert seen == [429, 3, 500, 500]
        with trio.fail_after(5):
            for request in upstream.requests:
                await request.answered.wait()


async def test_client_that_leaves_is_recorded() -> None:
    def leave(client: openai.OpenAI) -> None:
        with client.chat.completions.create(
            model="m", messages=HI, stream=True
        ) as stream:
            assert next(iter(stream)).choices[0].delta.role == "assistant"

    async with open_openai_upstream([script.HangMidStream(after=1)]) as upstream:
        await _with_library(upstream.base_url, leave)
        with trio.fail_after(5):
            await upstream.requests[0].client_left.wait()
        assert not upstream.requests[0].answered.is_set()


async def test_stop_ends_the_answer() -> None:
    async with open_openai_upstream() as upstream:
        answer = await _with_library(
            upstream.base_url, lambda client: _whole(client, stop=["fake"])
        )
        assert answer.choices[0].message.content == "Hello from the "
        assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/nowhere", b"{}", 404),
        ("GET", "/chat/completions", None, 405),
        ("POST", "/chat/completions", b"{", 400),
        ("POST", "/chat/completions", b"[]", 400),
        ("POST", "/chat/completions", b'{"messages":[]}', 400),
    ],
)
async def test_request_that_openai_would_refuse_is_refused(
    method: str, path: str, body: bytes | None, status: int
) -> None:
    async with open_openai_upstream() as upstream:
        request = urllib.request.Request(
            upstream.base_url + path, data=body, method=method
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            await trio.to_thread.run_sync(urllib.request.urlopen, request)
        assert caught.value.code == status
        assert b'"message"' in caught.value.read()
        caught.value.close()


async def test_it_runs_as_a_process_until_it_is_told_to_stop() -> None:
    command = [sys.executable, "-m", "atomr_infer.testing.upstream", "--port", "0"]
    command += ["--script", "inject-429"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with trio.fail_after(30):
        async with process.stdout:
            line = b""
            while not line.endswith(b"\n"):
                line += bytes(await process.stdout.receive_some())
            base_url = line.decode().strip()
            with pytest.raises(openai.RateLimitError):
                await _with_library(base_url, _stream)
            assert len(await _with_library(base_url, _stream)) == 8
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def test_its_command_line_explains_itself() -> None:
    command = [sys.executable, "-m", "atomr_infer.testing.upstream", "--help"]
    result = await trio.run_process(command, capture_stdout=True)
    assert b"--script" in result.stdout
    assert b"hang_mid_stream" in result.stdout
