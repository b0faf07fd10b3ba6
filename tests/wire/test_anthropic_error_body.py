"""Errors and lists of models in Anthropic's format."""

from __future__ import annotations

import json

import pytest

from atomr_infer import errors
from atomr_infer.wire.anthropic.ingress import MESSAGES, counted
from atomr_infer.wire.anthropic.models import model_list, model_object


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.InvalidRequestError, 400, "invalid_request_error"),
        (errors.UnsupportedFeatureError, 400, "invalid_request_error"),
        (errors.EndpointUnsupportedError, 501, "invalid_request_error"),
        (errors.ContextLengthError, 400, "invalid_request_error"),
        (errors.ContentFilterError, 400, "invalid_request_error"),
        (errors.ModelNotFoundError, 404, "not_found_error"),
        (errors.RateLimitedError, 429, "rate_limit_error"),
        (errors.OverloadedError, 529, "overloaded_error"),
        (errors.CircuitOpenError, 529, "overloaded_error"),
        (errors.NotReadyError, 529, "overloaded_error"),
        (errors.UpstreamError, 502, "api_error"),
        (errors.UpstreamAuthError, 502, "api_error"),
        (errors.UpstreamConnectError, 502, "api_error"),
        (errors.StreamCutError, 502, "api_error"),
        (errors.UpstreamTimeoutError, 504, "timeout_error"),
        (errors.DeadlineError, 504, "timeout_error"),
        (errors.EngineError, 503, "api_error"),
        (errors.InternalError, 500, "api_error"),
    ],
)
def test_each_error_has_its_status_and_type(
    error: type[errors.InferenceError], status: int, kind: str
) -> None:
    answer = MESSAGES.refuse(error("no"), "r-1")
    assert answer.status == status
    assert json.loads(answer.body) == {
        "type": "error",
        "error": {"type": kind, "message": "no"},
        "request_id": "r-1",
    }


def test_body_that_is_too_large_upstream_is_too_large_here() -> None:
    error = errors.InvalidRequestError("no", code="request_too_large", status=413)
    answer = MESSAGES.refuse(error, "r-1")
    assert answer.status == 413
    assert json.loads(answer.body)["error"]["type"] == "request_too_large"


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (
            errors.RateLimitedError("no", retry_after_s=1.2),
            [(b"retry-after", b"2"), (b"retry-after-ms", b"1200")],
        ),
        (
            errors.OverloadedError("no", retry_after_s=float("nan")),
            [(b"retry-after", b"1"), (b"retry-after-ms", b"1000")],
        ),
        (
            errors.EngineError("no", retry_after_s=-1.0),
            [(b"retry-after", b"1"), (b"retry-after-ms", b"1")],
        ),
        (errors.UpstreamError("no", retry_after_s=1.0), []),
    ],
)
def test_who_shall_come_again_is_told_when(
    error: errors.InferenceError, headers: list[tuple[bytes, bytes]]
) -> None:
    assert list(MESSAGES.refuse(error, "r").headers) == headers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (408, "timeout_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (501, "invalid_request_error"),
        (503, "overloaded_error"),
        (529, "overloaded_error"),
    ],
)
def test_what_http_refuses_has_the_dialects_envelope(status: int, kind: str) -> None:
    answer = MESSAGES.plain(status, "no", "r-1", code="x")
    assert answer.status == status
    assert json.loads(answer.body) == {
        "type": "error",
        "error": {"type": kind, "message": "no"},
        "request_id": "r-1",
    }
    assert answer.headers == ()


def test_models_are_one_page() -> None:
    model = {
        "type": "model",
        "id": "a",
        "display_name": "a",
        "created_at": "1970-01-01T00:00:01Z",
        "lifecycle": "active",
    }
    assert json.loads(model_object("a", 1)) == model
    assert json.loads(model_list(["a", "b"], 1)) == {
        "data": [model, {**model, "id": "b", "display_name": "b"}],
        "has_more": False,
        "first_id": "a",
        "last_id": "b",
    }
    assert json.loads(model_list([], 1)) == {
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


def test_count_is_one_number() -> None:
    assert counted(7) == b'{"input_tokens":7}'
