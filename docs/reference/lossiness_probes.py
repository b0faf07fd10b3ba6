"""What each dialect's clients can ask, one member at a time.

A probe is a request's members beside those of the plainest request.  The table
of what becomes of them is made by ``generate_lossiness.py``.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import attrs

from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.ingress import Call

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(16)).decode()
PDF = base64.b64encode(b"%PDF-1.4 ...").decode()
WAV = base64.b64encode(b"RIFF....WAVEfmt ").decode()
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}

Members = dict[str, Any]


@attrs.frozen
class Probe:
    """A thing that a client can ask.

    Attributes:
        name: as the client writes it.
        members: of the request, in place of the plain one's.
        beside: members that the thing makes no sense without; they belong to
            the plain request that it is compared with.
    """

    name: str
    members: Members = attrs.field(hash=False)
    beside: Members = attrs.field(factory=dict, hash=False)


_TOOL: Members = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "f", "arguments": "{}"},
}
_HI = {"role": "user", "content": "hi"}


def _said(*parts: Members) -> Members:
    return {"messages": [{"role": "user", "content": list(parts)}]}


_SIGNED = {
    "index": 0,
    "type": "reasoning.text",
    "text": "Hm",
    "signature": "c2ln",
    "origin": "anthropic",
}

CHAT = (
    Probe("system message", {"messages": [{"role": "system", "content": "x"}, _HI]}),
    Probe(
        "system message in the middle",
        {"messages": [_HI, {"role": "system", "content": "x"}, _HI]},
    ),
    Probe(
        "developer message", {"messages": [{"role": "developer", "content": "x"}, _HI]}
    ),
    Probe("message name", {"messages": [{**_HI, "name": "ann"}]}),
    Probe(
        "assistant text last (prefill)",
        {"messages": [_HI, {"role": "assistant", "content": "He"}]},
    ),
    Probe(
        "image by data URL",
        _said(
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        ),
    ),
    Probe(
        "image by https URL",
        _said({"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}),
    ),
    Probe(
        "image detail",
        _said(
            {
                "type": "image_url",
                "image_url": {
                    "url": f"data:image/png;base64,{PNG}",
                    "detail": "low",
                },
            }
        ),
        _said(
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        ),
    ),
    Probe(
        "input_audio",
        _said({"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}),
    ),
    Probe(
        "file (PDF data)",
        _said(
            {
                "type": "file",
                "file": {
                    "file_data": f"data:application/pdf;base64,{PDF}",
                    "filename": "a.pdf",
                },
            }
        ),
    ),
    Probe(
        "file (provider's id)",
        _said({"type": "file", "file": {"file_id": "file-1"}}),
    ),
    Probe(
        "cache_control on a part",
        _said({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}),
    ),
    Probe("tools", {"tools": [_TOOL]}),
    Probe(
        "tools[].function.strict",
        {
            "tools": [
                {"type": "function", "function": {**_TOOL["function"], "strict": True}}
            ]
        },
        {"tools": [_TOOL]},
    ),
    Probe("tools (custom)", {"tools": [{"type": "custom", "custom": {"name": "c"}}]}),
    Probe(
        "tool_choice required",
        {"tools": [_TOOL], "tool_choice": "required"},
        {"tools": [_TOOL]},
    ),
    Probe(
        "tool_choice named",
        {
            "tools": [_TOOL],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
        {"tools": [_TOOL]},
    ),
    Probe(
        "tool_choice none",
        {"tools": [_TOOL], "tool_choice": "none"},
        {"tools": [_TOOL]},
    ),
    Probe(
        "parallel_tool_calls false",
        {"tools": [_TOOL], "parallel_tool_calls": False},
        {"tools": [_TOOL]},
    ),
    Probe(
        "tool call and result",
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "4"},
            ]
        },
    ),
    Probe(
        "signed reasoning_details",
        {
            "messages": [
                _HI,
                {
                    "role": "assistant",
                    "content": "a",
                    "reasoning_content": "Hm",
                    "reasoning_details": [_SIGNED],
                },
                _HI,
            ]
        },
        {"messages": [_HI, {"role": "assistant", "content": "a"}, _HI]},
    ),
    Probe("response_format json_object", {"response_format": {"type": "json_object"}}),
    Probe(
        "response_format json_schema",
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": SCHEMA},
            }
        },
    ),
    Probe("reasoning_effort", {"reasoning_effort": "high"}),
    Probe("max_tokens", {"max_tokens": 7}),
    Probe("max_completion_tokens", {"max_completion_tokens": 7}),
    Probe("temperature", {"temperature": 0.5}),
    Probe("temperature above 1", {"temperature": 1.5}),
    Probe("top_p", {"top_p": 0.5}),
    Probe("top_k", {"top_k": 4}),
    Probe("stop", {"stop": ["END"]}),
    Probe("seed", {"seed": 1}),
    Probe("presence_penalty", {"presence_penalty": 1}),
    Probe("frequency_penalty", {"frequency_penalty": 1}),
    Probe("n", {"n": 2}),
    Probe("logprobs", {"logprobs": True, "top_logprobs": 2}),
    Probe("logit_bias", {"logit_bias": {"5": 1}}),
    Probe("user", {"user": "u"}),
    Probe("metadata", {"metadata": {"a": "b"}}),
    Probe("service_tier", {"service_tier": "flex"}),
    Probe("modalities (audio)", {"modalities": ["text", "audio"]}),
    Probe("models, fallbacks, api_base, ... (another model)", {"models": ["x"]}),
    Probe("functions (the old tools)", {"functions": [{"name": "f"}]}),
    Probe("web_search_options", {"web_search_options": {}}),
)

RESPONSES = (
    Probe("instructions", {"instructions": "x"}),
    Probe(
        "reasoning item with encrypted_content",
        {
            "input": [
                _HI,
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [],
                    "encrypted_content": "x",
                },
                {"role": "assistant", "content": "a"},
                _HI,
            ]
        },
        {"input": [_HI, {"role": "assistant", "content": "a"}, _HI]},
    ),
    Probe(
        "function_call and its output",
        {
            "input": [
                _HI,
                {
                    "type": "function_call",
                    "call_id": "c",
                    "name": "f",
                    "arguments": "{}",
                },
                {"type": "function_call_output", "call_id": "c", "output": "4"},
            ]
        },
    ),
    Probe(
        "input_image",
        {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "input_image",
                            "image_url": f"data:image/png;base64,{PNG}",
                        }
                    ],
                }
            ]
        },
    ),
    Probe(
        "tools", {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA}]}
    ),
    Probe("tools (custom)", {"tools": [{"type": "custom", "name": "f"}]}),
    Probe(
        "tools (namespace)",
        {
            "tools": [
                {
                    "type": "namespace",
                    "name": "n",
                    "description": "x",
                    "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
                }
            ]
        },
    ),
    Probe("tools (web_search)", {"tools": [{"type": "web_search"}]}),
    Probe("tool_choice web_search", {"tool_choice": {"type": "web_search"}}),
    Probe(
        "text.format json_schema",
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
    ),
    Probe("reasoning.effort", {"reasoning": {"effort": "high"}}),
    Probe("reasoning.summary", {"reasoning": {"summary": "auto"}}),
    Probe("max_output_tokens", {"max_output_tokens": 7}),
    Probe("temperature", {"temperature": 0.5}),
    Probe("top_logprobs", {"top_logprobs": 2}),
    Probe("metadata", {"metadata": {"a": "b"}}),
    Probe("models, fallbacks, api_base, ... (another model)", {"models": ["x"]}),
    Probe("background", {"background": True}),
    Probe("conversation", {"conversation": "conv_1"}),
    Probe("prompt (stored)", {"prompt": {"id": "pmpt_1"}}),
)

_ATOOL = {"name": "f", "input_schema": SCHEMA}
_USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
_RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "4"}
_SHOWN = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
}


def _turn(*blocks: Members) -> Members:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


ANTHROPIC = (
    Probe("system", {"system": "x"}),
    Probe(
        "cache_control",
        _turn({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}),
    ),
    Probe(
        "assistant text last (prefill)",
        {"messages": [_HI, {"role": "assistant", "content": "He"}]},
    ),
    Probe(
        "image (base64)",
        _turn(
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PNG},
            }
        ),
    ),
    Probe(
        "image (url)",
        _turn(
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a"}}
        ),
    ),
    Probe(
        "document (base64 PDF)",
        _turn(
            {
                "type": "document",
                "source": {
                    "type": "base64",
                    "media_type": "application/pdf",
                    "data": PDF,
                },
            }
        ),
    ),
    Probe("tools", {"tools": [_ATOOL]}),
    Probe("mcp_servers", {"mcp_servers": [{"type": "url", "url": "https://x"}]}),
    Probe(
        "tools (web_search)",
        {"tools": [{"type": "web_search_20260209", "name": "web_search"}]},
    ),
    Probe(
        "tool_choice any",
        {"tools": [_ATOOL], "tool_choice": {"type": "any"}},
        {"tools": [_ATOOL]},
    ),
    Probe(
        "disable_parallel_tool_use",
        {
            "tools": [_ATOOL],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        },
        {"tools": [_ATOOL], "tool_choice": {"type": "auto"}},
    ),
    Probe(
        "tool_use and tool_result",
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": [_USE]},
                {"role": "user", "content": [_RESULT]},
            ]
        },
    ),
    Probe(
        "tool_result with an image",
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": [_USE]},
                {"role": "user", "content": [{**_RESULT, "content": [_SHOWN]}]},
            ]
        },
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": [_USE]},
                {"role": "user", "content": [_RESULT]},
            ]
        },
    ),
    Probe(
        "tool_result.is_error",
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": [_USE]},
                {"role": "user", "content": [{**_RESULT, "is_error": True}]},
            ]
        },
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": [_USE]},
                {"role": "user", "content": [_RESULT]},
            ]
        },
    ),
    Probe(
        "thinking block with signature",
        {
            "messages": [
                _HI,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
                        {"type": "text", "text": "a"},
                    ],
                },
                _HI,
            ]
        },
        {
            "messages": [
                _HI,
                {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
                _HI,
            ]
        },
    ),
    Probe("thinking adaptive", {"thinking": {"type": "adaptive"}}),
    Probe("thinking budget", {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
    Probe("output_config.effort", {"output_config": {"effort": "high"}}),
    Probe(
        "output_config.format",
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    Probe("max_tokens", {"max_tokens": 7}),
    Probe("temperature", {"temperature": 0.5}),
    Probe("top_p", {"top_p": 0.5}),
    Probe("top_k", {"top_k": 4}),
    Probe("stop_sequences", {"stop_sequences": ["END"]}),
    Probe("metadata.user_id", {"metadata": {"user_id": "u"}}),
    Probe("service_tier", {"service_tier": "auto"}),
    Probe("models, fallbacks, api_base, ... (another model)", {"models": ["x"]}),
)

_DECLARED = {"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}


def _contents(*parts: Members) -> Members:
    return {"contents": [{"role": "user", "parts": list(parts)}]}


def _config(**members: object) -> Members:
    return {"generationConfig": members}


GEMINI = (
    Probe("systemInstruction", {"systemInstruction": {"parts": [{"text": "x"}]}}),
    Probe(
        "inlineData (image)",
        _contents({"inlineData": {"mimeType": "image/png", "data": PNG}}),
    ),
    Probe(
        "inlineData (PDF)",
        _contents({"inlineData": {"mimeType": "application/pdf", "data": PDF}}),
    ),
    Probe(
        "inlineData (audio)",
        _contents({"inlineData": {"mimeType": "audio/wav", "data": WAV}}),
    ),
    Probe(
        "fileData (gs://)",
        _contents({"fileData": {"mimeType": "image/png", "fileUri": "gs://b/a.png"}}),
    ),
    Probe("tools.functionDeclarations", {"tools": [_DECLARED]}),
    Probe("tools.googleSearch", {"tools": [{"googleSearch": {}}]}),
    Probe(
        "functionCallingConfig ANY",
        {
            "tools": [_DECLARED],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        },
        {"tools": [_DECLARED]},
    ),
    Probe(
        "functionCall and functionResponse",
        {
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {
                    "role": "model",
                    "parts": [{"functionCall": {"name": "f", "args": {}}}],
                },
                {
                    "role": "user",
                    "parts": [
                        {"functionResponse": {"name": "f", "response": {"result": 4}}}
                    ],
                },
            ]
        },
    ),
    Probe(
        "responseJsonSchema",
        _config(responseMimeType="application/json", responseJsonSchema=SCHEMA),
    ),
    Probe("responseMimeType JSON", _config(responseMimeType="application/json")),
    Probe(
        "thinkingConfig.thinkingBudget", _config(thinkingConfig={"thinkingBudget": 512})
    ),
    Probe(
        "thinkingConfig.thinkingLevel",
        _config(thinkingConfig={"thinkingLevel": "HIGH"}),
    ),
    Probe("maxOutputTokens", _config(maxOutputTokens=7)),
    Probe("temperature", _config(temperature=0.5)),
    Probe("topP", _config(topP=0.5)),
    Probe("topK", _config(topK=4)),
    Probe("stopSequences", _config(stopSequences=["END"])),
    Probe("seed", _config(seed=1)),
    Probe("presencePenalty", _config(presencePenalty=1)),
    Probe("candidateCount", _config(candidateCount=2)),
    Probe("responseModalities (IMAGE)", _config(responseModalities=["IMAGE"])),
    Probe("responseLogprobs", _config(responseLogprobs=True, logprobs=2)),
    Probe(
        "safetySettings",
        {
            "safetySettings": [
                {
                    "category": "HARM_CATEGORY_HARASSMENT",
                    "threshold": "BLOCK_NONE",
                }
            ]
        },
    ),
    Probe("cachedContent", {"cachedContent": "cachedContents/x"}),
)

PLAIN: dict[Dialect, Members] = {
    Dialect.OPENAI_CHAT: {"model": "m", "messages": [_HI]},
    Dialect.OPENAI_RESPONSES: {"model": "m", "input": [_HI]},
    Dialect.ANTHROPIC: {"model": "m", "max_tokens": 4096, "messages": [_HI]},
    Dialect.GEMINI: _contents({"text": "hi"}),
}
"""The plainest request of each dialect."""

PROBES: dict[Dialect, tuple[Probe, ...]] = {
    Dialect.OPENAI_CHAT: CHAT,
    Dialect.OPENAI_RESPONSES: RESPONSES,
    Dialect.ANTHROPIC: ANTHROPIC,
    Dialect.GEMINI: GEMINI,
}


def call(dialect: Dialect, *members: Members) -> Call:
    """Return a request of the dialect's plain one with further members."""
    body = dict(PLAIN[dialect])
    for more in members:
        body.update(more)
    is_gemini = dialect is Dialect.GEMINI
    return Call(
        request_id="r",
        body=json.dumps(body).encode(),
        headers={"anthropic-version": "2023-06-01"},
        model="m" if is_gemini else None,
        action="generateContent" if is_gemini else None,
    )
