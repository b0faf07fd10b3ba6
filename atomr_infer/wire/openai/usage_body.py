"""Write usage as OpenAI counts it: totals include cached and reasoning tokens.

Pure.

Source: OpenAI API reference, ``usage`` of chat completions and responses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr_infer.model.usage import Usage


def usage_members(usage: Usage) -> dict[str, object]:
    """Return the ``usage`` of a chat completion."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": _input_details(usage),
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.output_audio,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def response_usage_members(usage: Usage) -> dict[str, object]:
    """Return the ``usage`` of a response; its details are required members."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total_tokens,
    }


def _input_details(usage: Usage) -> dict[str, int]:
    details = {"cached_tokens": usage.cache_read, "audio_tokens": usage.input_audio}
    if usage.cache_write:
        details["cache_write_tokens"] = usage.cache_write
    if usage.input_image:
        details["image_tokens"] = usage.input_image
    return details
