"""mistral.rs's texts become typed errors."""

from __future__ import annotations

import pytest

from atomr_infer.errors import (
    ContextLengthError,
    EngineCrashedError,
    EngineError,
    InferenceError,
    InvalidRequestError,
    NotReadyError,
    encode,
)
from atomr_infer_mistralrs.faults import to_inference_error

TOO_LONG = (
    "Prompt sequence length is greater than 8192, perhaps consider using "
    "`truncate_sequence`?"
)
TEMPLATE = "invalid operation: roles must alternate (in chat_template:4)"
CRASH = "input tensor is not contiguous Layout { shape: [2, 1] }\n   0: bt\n   1: x"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (
            ValueError(TOO_LONG),
            ContextLengthError(
                "the prompt is longer than the model's context of 8192 tokens",
                code="context_length_exceeded",
                param="messages",
            ),
        ),
        (
            ValueError("max_tokens must be at least 1."),
            InvalidRequestError("max_tokens must be at least 1.", param="max_tokens"),
        ),
        (
            ValueError("Invalid grammar. Invalid type: objekt"),
            InvalidRequestError(
                "this schema cannot be kept to: Invalid grammar. Invalid type: objekt",
                param="response_format",
            ),
        ),
        (
            ValueError(TEMPLATE),
            InvalidRequestError(
                f"the model's chat template refuses the conversation: {TEMPLATE}",
                param="messages",
            ),
        ),
        (
            TypeError("failed to convert the value to 'Union[...]'"),
            InvalidRequestError("the request holds text that is not Unicode"),
        ),
        (
            ValueError(CRASH),
            EngineError(
                "mistral.rs failed: input tensor is not contiguous Layout { shape: "
                "[2, 1] }"
            ),
        ),
        (RuntimeError(""), EngineError("mistral.rs failed: RuntimeError")),
        (
            SystemExit("called `Option::unwrap()` on a `None` value"),
            EngineCrashedError(
                "mistral.rs panicked: called `Option::unwrap()` on a `None` value"
            ),
        ),
        (NotReadyError("ours"), NotReadyError("ours")),
    ],
)
def test_texts_are_mapped(raised: BaseException, expected: InferenceError) -> None:
    error = to_inference_error(raised)
    assert type(error) is type(expected)
    assert encode(error) == encode(expected)
