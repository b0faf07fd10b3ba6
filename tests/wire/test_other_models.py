"""A request names one model: upstreams in Go read a name in whatever case."""

from __future__ import annotations

import pytest

from atomr_infer.errors import InvalidRequestError
from atomr_infer.gateway.exchanges.ingresses import INGRESSES
from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.ingress import Call
from atomr_infer.wire.openai.embeddings import parse_embeddings

CHAT = b'"messages":[{"role":"user","content":"hi"}],"max_tokens":1'
BODIES = {
    Dialect.OPENAI_CHAT: CHAT,
    Dialect.ANTHROPIC: CHAT,
    Dialect.OPENAI_COMPLETIONS: b'"prompt":"hi"',
    Dialect.OPENAI_RESPONSES: b'"input":"hi"',
}


@pytest.mark.parametrize("other", ["Model", "MODEL", "\\u004dodel"])
@pytest.mark.parametrize("dialect", BODIES)
def test_a_second_model_in_another_case_is_refused(
    dialect: Dialect, other: str
) -> None:
    body = b'{"model":"a","%b":"b",%b}' % (other.encode(), BODIES[dialect])
    with pytest.raises(InvalidRequestError, match="stands beside 'model'"):
        INGRESSES[dialect].parse(Call(request_id="r", body=body))


def test_embeddings_name_one_model() -> None:
    body = b'{"model":"a","Model":"b","input":"x"}'
    with pytest.raises(InvalidRequestError) as caught:
        parse_embeddings(Call(request_id="r", body=body))
    assert caught.value.param == "Model"


@pytest.mark.parametrize("told", [b'"model":"models/b",', b""])
def test_a_body_of_gemini_s_that_names_a_model_is_written_anew(told: bytes) -> None:
    body = b'{%b"contents":[{"parts":[{"text":"hi"}]}]}' % told
    call = Call(request_id="r", body=body, model="a", action="generateContent")
    batch = INGRESSES[Dialect.GEMINI].parse(call).batch
    assert batch.model == "a"
    assert (batch.source is None) == bool(told)
    assert "model" not in batch.extra
