"""The fakes are faithful: each provider's own library takes one for the real thing."""

from __future__ import annotations

import json

import anthropic
import openai
import pytest
import trio
from google.genai import errors as gemini_errors

from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstreams.call import Media
from tests.testing_kit.sdks import (
    KEY,
    LIBRARIES,
    PNG,
    QUIET,
    SCHEMA,
    Ask,
    Library,
    Seen,
)

pytestmark = [
    pytest.mark.filterwarnings(QUIET),
    pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name),
]
streamed_or_not = pytest.mark.parametrize(
    "stream", [False, True], ids=["whole", "stream"]
)

API_ERRORS = (anthropic.APIStatusError, openai.APIStatusError, gemini_errors.APIError)


@streamed_or_not
async def test_library_reads_an_answer(library: Library, stream: bool) -> None:
    happy = script.Happy(text="It is warm.")
    async with library.open([happy], api_key=KEY) as fake:
        seen = await library.ask_fake(fake, Ask(stream=stream))
        with trio.fail_after(5):
            await fake.requests[0].answered.wait()
    assert seen == Seen(
        text="It is warm.",
        reasoning="",
        calls=[],
        finish=library.ends[0],
        prompt_tokens=3,
        output_tokens=3,
    )


@streamed_or_not
async def test_library_reads_reasoning_text_and_parallel_calls(
    library: Library, stream: bool
) -> None:
    happy = script.Happy(
        reasoning=("Let me ", "see."),
        text="Looking it up.",
        tool_calls=(
            script.ToolCall(),
            script.ToolCall(arguments=('{"ci', 'ty":"Oslo"}')),
        ),
    )
    async with library.open([happy], api_key=KEY) as fake:
        seen = await library.ask_fake(
            fake, Ask(stream=stream, tools=True, thinking=True)
        )
    assert seen == Seen(
        text="Looking it up.",
        reasoning="Let me see.",
        calls=[("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Oslo"})],
        finish=library.ends[1],
        prompt_tokens=3,
        output_tokens=2 + 3 + 4,
    )


@streamed_or_not
async def test_library_reads_an_answer_of_calls_alone(
    library: Library, stream: bool
) -> None:
    async with library.open([script.ToolCall()], api_key=KEY) as fake:
        seen = await library.ask_fake(fake, Ask(stream=stream, tools=True))
    assert (seen.text, seen.finish) == ("", library.ends[1])
    assert seen.calls == [("get_weather", {"city": "Paris"})]


@streamed_or_not
async def test_library_gets_json_of_its_schema(library: Library, stream: bool) -> None:
    async with library.open(api_key=KEY) as fake:
        seen = await library.ask_fake(fake, Ask(stream=stream, schema=True))
        assert fake.requests[0].call.schema == SCHEMA
    assert json.loads(seen.text) == {"city": "text", "hot": True}


async def test_fake_says_which_pictures_it_got(library: Library) -> None:
    async with library.open(api_key=KEY) as fake:
        seen = await library.ask_fake(fake, Ask(image=True))
        assert fake.requests[0].media == (Media("image/png", len(PNG)),)
    assert seen.prompt_tokens == 3


@streamed_or_not
async def test_answer_ends_at_max_tokens(library: Library, stream: bool) -> None:
    ask = Ask(stream=stream, max_tokens=2)
    async with library.open(api_key=KEY) as fake:
        if stream and fake.dialect.name in ("openai", "litellm"):
            # OpenAI's helpers take an answer that was cut short for a failure.
            with pytest.raises((openai.LengthFinishReasonError, RuntimeError)):
                await library.ask_fake(fake, ask)
            return
        seen = await library.ask_fake(fake, ask)
    assert (seen.text, seen.finish, seen.output_tokens) == (
        "Hello from",
        library.ends[2],
        2,
    )


@streamed_or_not
@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (script.rate_limited(), 429),
        (script.server_error(), 500),
        (script.server_error(503), 503),
        (script.Refused(status=403), 403),
    ],
    ids=str,
)
async def test_library_raises_the_providers_error(
    library: Library, stream: bool, refused: script.Refused, status: int
) -> None:
    async with library.open([refused], api_key=KEY) as fake:
        with pytest.raises(API_ERRORS) as caught:
            await library.ask_fake(fake, Ask(stream=stream))
    assert _status(caught.value) == status
    assert refused.message in str(caught.value)


async def test_wrong_key_is_refused(library: Library) -> None:
    async with library.open(api_key="another") as fake:
        with pytest.raises(API_ERRORS) as caught:
            await library.ask_fake(fake, Ask())
    assert _status(caught.value) == (400 if "gemini" in library.name else 401)


async def test_library_raises_on_an_error_inside_a_stream(library: Library) -> None:
    async with library.open([script.ErrorInStream()], api_key=KEY) as fake:
        if "responses" in library.name:
            # It hands the event over, and then finds no end.
            with pytest.raises(RuntimeError, match=r"response.completed"):
                await library.ask_fake(fake, Ask(stream=True))
            return
        with pytest.raises(
            (anthropic.APIError, openai.APIError, gemini_errors.APIError)
        ) as caught:
            await library.ask_fake(fake, Ask(stream=True))
    assert "The server had an error" in str(caught.value)


async def test_library_reads_a_stream_in_pieces_of_three_bytes(
    library: Library,
) -> None:
    happy = script.Happy(text="caf\u00e9 \u2028 \U0001f600", split_bytes=3)
    async with library.open([happy], api_key=KEY) as fake:
        seen = await library.ask_fake(fake, Ask(stream=True))
    assert seen.text == "caf\u00e9 \u2028 \U0001f600"


def _status(error: BaseException) -> object:
    return getattr(error, "status_code", getattr(error, "code", None))
