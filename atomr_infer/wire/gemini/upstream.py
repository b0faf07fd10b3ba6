"""A generation as the body of a request to a Gemini upstream.

Pure.

Source: Gemini API reference, "Generating content".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.errors import InvalidRequestError, UnsupportedFeatureError
from atomr_infer.model.asks import FormatKind, RawTool, ToolMode
from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.gemini.thinking import NO_THINKING, Thinking, thinking_config
from atomr_infer.wire.gemini.upstream_contents import turns
from atomr_infer.wire.in_words import WARNING, json_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.asks import ResponseFormat, Tool, ToolChoice
    from atomr_infer.model.batch import ExecuteBatch, RawJson, Sampling
    from atomr_infer.wire.gemini.signature_memory import SignatureMemory

_encode = msgspec.json.Encoder().encode

_MAX_STOPS = 5
_INT32 = 2**31

_Members = dict[str, object]


@attrs.frozen(kw_only=True)
class Rules:
    """What a model's requests must look like.

    Attributes:
        thinking: how it is told to think.
        signed_calls: True when it refuses a call of its own without signature.
        json_beside_tools: True when it takes a response format beside tools.
        media_in_results: True when what a tool shows stands inside its result;
            older models want it beside.
        max_output_tokens: most that it writes; None: not known.
    """

    thinking: Thinking = NO_THINKING
    signed_calls: bool = False
    json_beside_tools: bool = True
    media_in_results: bool = True
    max_output_tokens: int | None = None


_PLAIN = Rules()


@attrs.frozen
class Encoded:
    """A request, written.

    Attributes:
        body: JSON.
        warnings: what was approximated or left out, in one phrase each.
    """

    body: bytes
    warnings: tuple[str, ...] = ()


def encode_request(
    batch: ExecuteBatch,
    *,
    rules: Rules = _PLAIN,
    defaults: Mapping[str, RawJson] | None = None,
    memory: SignatureMemory | None = None,
) -> Encoded:
    """Return the body of a generation; the model and the action are the path's.

    Args:
        batch: the generation; its raw members must each be one JSON value.
        rules: what its model takes.
        defaults: members for a request that does not have them.
        memory: where the signatures are that clients could not carry.

    Raises:
        InvalidRequestError: something in it has no form there; ``param`` names
            the member.
    """
    body, warnings = _conversation(batch, rules, memory)
    if batch.tools:
        body["tools"] = _tools(batch)
    if batch.parallel_tool_calls is False and batch.tools:
        warnings.append("parallel_tool_calls was left out: Gemini has no such switch")
    if batch.tool_choice is not None and batch.tools:
        body["toolConfig"] = {"functionCallingConfig": _calling(batch.tool_choice)}
    if _must_be_asked_in_words(batch, rules):
        warnings.append(WARNING)
        batch = _asked_in_words(batch, body)
    most, wanted = rules.max_output_tokens, batch.sampling.max_tokens
    if most is not None and wanted is not None and wanted > most:
        warnings.append(f"max_tokens was lowered to {most}")
        batch = _limited(batch, most)
    config = _generation_config(batch, rules)
    if config:
        body["generationConfig"] = config
    extra = dict(batch.extra) if batch.dialect is Dialect.GEMINI else {}
    for name, raw in {**(defaults or {}), **extra}.items():
        body[name] = _merged(body.get(name), raw)
    return Encoded(_encode(body), tuple(warnings))


def _limited(batch: ExecuteBatch, max_tokens: int) -> ExecuteBatch:
    sampling = attrs.evolve(batch.sampling, max_tokens=max_tokens)
    return attrs.evolve(batch, sampling=sampling)


def _must_be_asked_in_words(batch: ExecuteBatch, rules: Rules) -> bool:
    form = batch.response_format
    if form is None or form.kind is FormatKind.TEXT or not batch.tools:
        return False
    return not rules.json_beside_tools


def _asked_in_words(batch: ExecuteBatch, body: _Members) -> ExecuteBatch:
    """Put the format into the instruction; return the request without it."""
    assert batch.response_format is not None, "asked by the caller"
    words = {"text": json_in_words(batch.response_format.schema)}
    said = body.get("systemInstruction")
    parts = said["parts"] if isinstance(said, dict) else []
    body["systemInstruction"] = {"parts": [*parts, words]}
    return attrs.evolve(batch, response_format=None)


def encode_count(
    batch: ExecuteBatch, *, model: str | None, rules: Rules = _PLAIN
) -> bytes:
    """Return the body of ``:countTokens``.

    Args:
        batch: whose prompt is counted.
        model: the model's resource name, where the request is to be wrapped
            with it (AI Studio); None: the members stand at the root (Vertex).
        rules: what the model takes.

    Raises:
        InvalidRequestError: as :func:`encode_request`.
    """
    body, _ = _conversation(batch, rules)
    if batch.tools:
        body["tools"] = _tools(batch)
    if model is None:
        return _encode(body)
    return _encode({"generateContentRequest": {"model": model, **body}})


def _conversation(
    batch: ExecuteBatch, rules: Rules, memory: SignatureMemory | None = None
) -> tuple[_Members, list[str]]:
    said = turns(
        batch,
        signed_calls=rules.signed_calls,
        media_in_results=rules.media_in_results,
        memory=memory,
    )
    body: _Members = {"contents": said.contents}
    if said.system:
        body["systemInstruction"] = {"parts": said.system}
    return body, said.warnings


def _merged(ours: object, raw: RawJson) -> object:
    """Return a raw member; an object is laid under what is said already."""
    if not isinstance(ours, dict):
        return msgspec.Raw(raw)
    theirs = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    merged: _Members = dict(ours)
    for name, value in theirs.items():
        merged[name] = _merged(merged.get(name), bytes(value))
    return merged


# --- tools ------------------------------------------------------------------


def _tools(batch: ExecuteBatch) -> list[object]:
    functions: list[_Members] = []
    own: list[object] = []
    for tool in batch.tools:
        if not isinstance(tool, RawTool):
            functions.append(_function(tool))
        elif batch.dialect is Dialect.GEMINI:
            own.append(msgspec.Raw(tool.json))
        else:
            raise UnsupportedFeatureError(
                f"Gemini has no tool {tool.kind!r}", param="tools"
            )
    return [{"functionDeclarations": functions}, *own] if functions else own


def _function(tool: Tool) -> _Members:
    declared: _Members = {"name": tool.name}
    if tool.description is not None:
        declared["description"] = tool.description
    if tool.parameters is not None:
        # JSON Schema as the client wrote it: the older member refuses keywords
        # that it does not know, this one passes over them.
        declared["parametersJsonSchema"] = msgspec.Raw(tool.parameters)
    return declared


_MODES = {ToolMode.AUTO: "AUTO", ToolMode.REQUIRED: "ANY", ToolMode.NONE: "NONE"}


def _calling(choice: ToolChoice) -> _Members:
    told: _Members = {"mode": _MODES[choice.mode]}
    if choice.names and choice.mode is ToolMode.REQUIRED:
        told["allowedFunctionNames"] = choice.names
    return told


# --- generationConfig -------------------------------------------------------


def _generation_config(batch: ExecuteBatch, rules: Rules) -> _Members:
    config = _sampling(batch.sampling)
    if batch.response_format is not None:
        config |= _response_format(batch.response_format)
    thinking = thinking_config(
        batch.reasoning,
        rules.thinking,
        shown=batch.dialect is not Dialect.GEMINI,
    )
    if thinking:
        config["thinkingConfig"] = thinking
    return config


def _sampling(sampling: Sampling) -> _Members:
    if len(sampling.stop) > _MAX_STOPS:
        raise InvalidRequestError(
            f"Gemini takes at most {_MAX_STOPS} stop sequences, not"
            f" {len(sampling.stop)}",
            param="stop",
        )
    members: _Members = {
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        # Another engine's word for "all of them" is -1.
        "topK": None if sampling.top_k == -1 else sampling.top_k,
        "maxOutputTokens": sampling.max_tokens,
        "stopSequences": sampling.stop or None,
        "seed": None if sampling.seed is None else _int32(sampling.seed),
        "presencePenalty": sampling.presence_penalty,
        "frequencyPenalty": sampling.frequency_penalty,
        "candidateCount": None if sampling.n == 1 else sampling.n,
        "responseLogprobs": None if sampling.top_logprobs is None else True,
        "logprobs": sampling.top_logprobs or None,
    }
    return {name: value for name, value in members.items() if value is not None}


def _int32(seed: int) -> int:
    """Return a seed that fits: the same for the same one, as a seed must be."""
    return (seed + _INT32) % (2 * _INT32) - _INT32


def _response_format(form: ResponseFormat) -> _Members:
    if form.kind is FormatKind.TEXT:
        return {}
    members: _Members = {"responseMimeType": "application/json"}
    if form.kind is FormatKind.JSON_SCHEMA and form.schema is not None:
        members["responseJsonSchema"] = msgspec.Raw(form.schema)
    return members
