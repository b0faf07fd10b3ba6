from __future__ import annotations

import pytest

from atomr_infer.model.batch import ExecuteBatch, Message, Role, TokenChunk, Usage
from atomr_infer.wire.openai.upstream import decode_chunk
from atomr_infer.wire.openai.upstream_pass import ChatPass
from atomr_infer.wire.openai.upstream_stream import ChatAnswer
from atomr_infer.wire.openai.upstream_usage import decode_usage

BATCH = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "hi"),))


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (b"null", None),
        (b"[]", None),
        (b'"12"', None),
        (b"{}", None),
        (b'{"prompt_tokens":null,"completion_tokens":null}', None),
        (b'{"total_tokens":7,"prompt_tokens_details":{"cached_tokens":2}}', None),
        (
            b'{"prompt_tokens":12.0,"completion_tokens":1e1}',
            Usage(input_uncached=12, output_text=10),
        ),
        (
            b'{"prompt_tokens":null,"completion_tokens":2}',
            Usage(input_uncached=0, output_text=2),
        ),
        (
            b'{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":2.0}}',
            Usage(input_uncached=3, cache_read=2, output_text=0),
        ),
        (b'{"prompt_tokens":12.5}', None),
        (b'{"prompt_tokens":"12"}', None),
        (b'{"prompt_tokens":true}', None),
        (b'{"prompt_tokens":-1}', None),
        (b'{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":-2}}', None),
        (b'{"prompt_tokens":5,"prompt_tokens_details":[]}', None),
        (b'{"prompt_tokens":1e400}', None),
        (b'{"prompt_tokens":' + b"9" * 30 + b"}", None),
        (b'{"prompt_tokens":' + b"9" * 5000 + b"}", None),
    ],
)
def test_usage_is_read_leniently_and_never_wrongly(
    raw: bytes, usage: Usage | None
) -> None:
    assert decode_usage(raw) == usage


def test_usage_that_cannot_be_read_costs_no_content() -> None:
    choices = b'[{"delta":{"content":"a"}}]'
    data = b'{"model":"m","choices":%b,"usage":{"prompt_tokens":1.5}}' % choices
    assert decode_chunk(data) == (TokenChunk(text="a", model="m"),)


@pytest.mark.parametrize("reader", [ChatAnswer, ChatPass])
def test_usage_without_a_count_is_not_billed_as_nothing(
    reader: type[ChatAnswer | ChatPass],
) -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"abcd"}%b}],"usage":%b}\n\n'
    counted = chunk % (b"", b'{"prompt_tokens":5,"completion_tokens":2}')
    ending = chunk % (b',"finish_reason":"stop"', b"{}") + b"data: [DONE]\n\n"

    estimate = reader(BATCH).feed(ending)[-1].usage
    assert estimate is not None
    assert estimate.estimated
    assert estimate.output_text > 0

    told_before = reader(BATCH).feed(counted + ending)[-1].usage
    assert told_before == Usage(input_uncached=5, output_text=2)
