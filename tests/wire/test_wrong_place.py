"""What a 404 is about: the path, or what was asked for there."""

from __future__ import annotations

import pytest

from atomr_infer.wire.wrong_place import is_about_the_path


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (404, "", None),
        (404, "Not Found", None),
        (404, "Resource not found", "404"),
        (404, "404 page not found", None),
        (404, "Invalid URL (POST /chat/completions)", None),
        (404, "Unknown request URL: POST /x.", "unknown_url"),
        (405, "Method Not Allowed", None),
        (405, "whatever", "method_not_supported"),
    ],
)
def test_a_path_that_is_not_there(status: int, message: str, code: str | None) -> None:
    assert is_about_the_path(status, message, code)


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (404, "", "model_not_found"),
        (404, "model: claude-x", None),
        (404, "The API deployment does not exist", "DeploymentNotFound"),
        (404, "model 'x' not found, try pulling it first", None),
        (404, "Item with id 'rs_1' not found.", None),
        (404, "models/x is not found for API version v1beta", None),
        (400, "Not Found", None),
        (500, "", None),
    ],
)
def test_something_that_is_not_there(
    status: int, message: str, code: str | None
) -> None:
    assert not is_about_the_path(status, message, code)
