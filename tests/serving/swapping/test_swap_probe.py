"""Which refusals have a swap's probe ask for something else, and which end the swap."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from atomr_infer.errors import (
    ContentFilterError,
    ContextLengthError,
    InferenceError,
    InvalidRequestError,
    ModelNotFoundError,
    UnsupportedFeatureError,
)
from atomr_infer.policy.lifecycle.hot_swap import Phase
from atomr_infer.serving.swapping.probe import says_other_kind
from tests.serving.swapping.test_hot_swap import lab
from tests.serving.swapping.test_swap_obstacles import QUICK, Provider

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree

AnyRefusal = InvalidRequestError | ModelNotFoundError

AZURE = "The chatCompletion operation does not work with the specified model, m."
MAX_TOKENS = "Unsupported parameter: 'max_tokens' is not supported with this model."


@pytest.fixture
def way() -> str:
    """One way of making requests is enough here: both are swapped alike."""
    return "ordinary"


@pytest.mark.parametrize(
    "refusal",
    [
        InvalidRequestError("This is not a chat model and thus not supported"),
        InvalidRequestError("The model does not support Chat Completions API"),
        InvalidRequestError('"nomic-embed-text" does not support chat'),
        InvalidRequestError(AZURE, code="OperationNotSupported"),
        InvalidRequestError("Invalid model: mistral-embed", code="1500"),
        UnsupportedFeatureError("this model has no chat template", param="messages"),
        ModelNotFoundError("The model `m` does not exist"),
    ],
    ids=lambda error: error.message[:24],
)
def test_what_says_that_a_model_makes_something_else(refusal: AnyRefusal) -> None:
    assert says_other_kind(refusal)


@pytest.mark.parametrize(
    "refusal",
    [
        InvalidRequestError("the model's chat template refuses the conversation"),
        UnsupportedFeatureError(MAX_TOKENS, param="max_tokens"),
        UnsupportedFeatureError("m does not support chat in it", param="max_tokens"),
        InvalidRequestError("max_tokens is not supported in chat completions"),
        ContextLengthError("not a chat model: the prompt is too long"),
        ContentFilterError("the model does not support chat about that"),
    ],
    ids=lambda error: error.message[:24],
)
def test_what_says_that_it_fails_at_what_it_makes(refusal: AnyRefusal) -> None:
    assert not says_other_kind(refusal)


async def test_what_is_no_chat_model_is_asked_for_a_vector_and_it_is_logged(
    open_tree: OpenTree, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Provider(refuses=InvalidRequestError(AZURE))
    with caplog.at_level(logging.WARNING, "atomr_infer.serving.swapping.probe"):
        async with open_tree(lab(1)) as tree:
            tree.lab.plan += [runner, Provider()]
            ended = await tree.serving.hot_swaps.swap(lab(2), QUICK)
    assert (ended.phase, len(runner.asked)) == (Phase.SWAPPED, 1)
    said = f"m:next passes its probe by embeddings; asked for chat it says: {AZURE}"
    assert said in caplog.messages


@pytest.mark.parametrize(
    "refusal",
    [
        InvalidRequestError("the chat template refuses the conversation"),
        ContextLengthError("the prompt is too long"),
    ],
)
async def test_a_model_that_cannot_chat_does_not_pass_by_its_vectors(
    open_tree: OpenTree, autojump_clock: MockClock, refusal: InferenceError
) -> None:
    runner = Provider(refuses=refusal)
    async with open_tree(lab(1)) as tree:
        tree.lab.plan += [runner]
        ended = await tree.serving.hot_swaps.swap(lab(2), QUICK)
        assert tree.serving.deployments == {"m": lab(1)}
    assert (ended.phase, runner.asked) == (Phase.ROLLED_BACK, [])
    assert ended.reason == f"{type(refusal).__name__}: {refusal.message}"
