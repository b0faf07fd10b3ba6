"""The request that ``serve`` shows fits what is served."""

from __future__ import annotations

import json
import shlex

import pytest

from atomr_infer.cli.output.first_request import FirstRequest, first_request
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.deployment import Deployment

M = Deployment(name="m", runtime="mock", serves=("public",))
HELLO = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.mark.parametrize(
    ("features", "path", "body"),
    [
        (
            {Feature.CHAT, Feature.COMPLETIONS},
            "/v1/chat/completions",
            {"model": "public", "stream": True, "messages": HELLO},
        ),
        (
            {Feature.COMPLETIONS},
            "/v1/completions",
            {"model": "public", "prompt": "Why is the sky blue?"},
        ),
        (
            {Feature.EMBEDDINGS, Feature.COUNT_TOKENS},
            "/v1/embeddings",
            {"model": "public", "input": "Why is the sky blue?"},
        ),
        (
            {Feature.CLASSIFY},
            "/v1/classify",
            {"model": "public", "input": "Why is the sky blue?"},
        ),
        ({Feature.INFER}, "/v2/models/public", None),
        (
            set(),
            "/v1/chat/completions",
            {"model": "public", "stream": True, "messages": HELLO},
        ),
    ],
)
def test_what_a_model_can_do_is_asked(
    features: set[Feature], path: str, body: dict[str, object] | None
) -> None:
    assert first_request((M,), {"m": features}, ()) == FirstRequest(path, body)


def test_without_a_body_there_is_nothing_to_say_of_it() -> None:
    shown = FirstRequest("/v2/models/m", None).lines("http://h:1", has_keys=False)
    assert shown == ["  curl http://h:1/v2/models/m"]


def test_a_key_is_shown_where_one_is_needed() -> None:
    request = FirstRequest("/v1/embeddings", {"model": "m", "input": "a"})
    assert request.lines("http://h:1", has_keys=True) == [
        "  curl http://h:1/v1/embeddings \\",
        "    -H 'content-type: application/json' \\",
        "    -H 'authorization: Bearer KEY' \\",
        """    -d '{"model": "m", "input": "a"}'""",
    ]


def test_a_quote_in_a_name_does_not_end_the_shell_s_word() -> None:
    body = {"model": "it's", "input": "a"}
    shown = FirstRequest("/v1/embeddings", body).lines("http://h:1", has_keys=False)
    words = shlex.split("\n".join(shown))
    assert json.loads(words[-1]) == body


def test_a_name_stands_in_a_path_as_a_path_has_it() -> None:
    odd = Deployment(name="m", runtime="mock", serves=("org/it's a?",))
    shown = first_request((odd,), {"m": {Feature.INFER}}, ())
    assert shown == FirstRequest("/v2/models/org/it%27s%20a%3F", None)
