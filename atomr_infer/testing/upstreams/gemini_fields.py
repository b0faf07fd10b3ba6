"""The messages of Gemini's API, and a reader that refuses what they do not have.

Google's APIs read JSON as protocol buffers: a member may be written in either
case, an unknown one is refused with its place, and free-form values are left
alone.

Pure.

Source: google.ai.generativelanguage.v1beta; "ProtoJSON format".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from atomr_infer.testing.upstreams.checks import Invalid

Fields = Mapping[str, str]
"""Each member's type: a message's name, ``map NAME``, or "" for anything."""

_SCHEMA: Fields = dict.fromkeys(
    (
        "type",
        "format",
        "title",
        "description",
        "nullable",
        "enum",
        "maxItems",
        "minItems",
        "required",
        "minProperties",
        "maxProperties",
        "minLength",
        "maxLength",
        "pattern",
        "example",
        "propertyOrdering",
        "default",
        "minimum",
        "maximum",
        "additionalProperties",
    ),
    "",
)

MESSAGES: Mapping[str, Fields] = {
    "GenerateContentRequest": {
        "model": "",
        "contents": "Content",
        "systemInstruction": "Content",
        "tools": "Tool",
        "toolConfig": "ToolConfig",
        "safetySettings": "SafetySetting",
        "generationConfig": "GenerationConfig",
        "cachedContent": "",
        "labels": "",
        "serviceTier": "",
        "store": "",
    },
    "CountTokensRequest": {
        "model": "",
        "contents": "Content",
        "generateContentRequest": "GenerateContentRequest",
        "systemInstruction": "Content",
        "tools": "Tool",
        "generationConfig": "GenerationConfig",
        "instances": "",
    },
    "EmbedContentRequest": {
        "model": "",
        "content": "Content",
        "taskType": "",
        "title": "",
        "outputDimensionality": "",
        "autoTruncate": "",
        "embedContentConfig": "",
    },
    "BatchEmbedContentsRequest": {"model": "", "requests": "EmbedContentRequest"},
    "PredictRequest": {"instances": "", "parameters": "", "labels": ""},
    "Content": {"role": "", "parts": "Part"},
    "Part": {
        "text": "",
        "inlineData": "Blob",
        "fileData": "FileData",
        "functionCall": "FunctionCall",
        "functionResponse": "FunctionResponse",
        "executableCode": "",
        "codeExecutionResult": "",
        "thought": "",
        "thoughtSignature": "",
        "videoMetadata": "",
        "mediaResolution": "",
        "partMetadata": "",
    },
    "Blob": {"mimeType": "", "data": "", "displayName": ""},
    "FileData": {"mimeType": "", "fileUri": "", "displayName": ""},
    "FunctionCall": {"id": "", "name": "", "args": ""},
    "FunctionResponse": {
        "id": "",
        "name": "",
        "response": "",
        "parts": "",
        "willContinue": "",
        "scheduling": "",
    },
    "Tool": {
        "functionDeclarations": "FunctionDeclaration",
        "googleSearch": "",
        "googleSearchRetrieval": "",
        "codeExecution": "",
        "urlContext": "",
        "computerUse": "",
        "fileSearch": "",
        "googleMaps": "",
        "retrieval": "",
    },
    "FunctionDeclaration": {
        "name": "",
        "description": "",
        "behavior": "",
        "parameters": "Schema",
        "parametersJsonSchema": "",
        "response": "Schema",
        "responseJsonSchema": "",
    },
    "ToolConfig": {
        "functionCallingConfig": "FunctionCallingConfig",
        "retrievalConfig": "",
        "includeServerSideToolInvocations": "",
    },
    "FunctionCallingConfig": {
        "mode": "",
        "allowedFunctionNames": "",
        "streamFunctionCallArguments": "",
    },
    "SafetySetting": {"category": "", "threshold": "", "method": ""},
    "GenerationConfig": {
        "candidateCount": "",
        "stopSequences": "",
        "maxOutputTokens": "",
        "temperature": "",
        "topP": "",
        "topK": "",
        "seed": "",
        "presencePenalty": "",
        "frequencyPenalty": "",
        "responseMimeType": "",
        "responseSchema": "Schema",
        "responseJsonSchema": "",
        "responseModalities": "",
        "responseLogprobs": "",
        "logprobs": "",
        "thinkingConfig": "ThinkingConfig",
        "speechConfig": "",
        "imageConfig": "",
        "mediaResolution": "",
        "audioTimestamp": "",
        "enableEnhancedCivicAnswers": "",
        "routingConfig": "",
        "modelSelectionConfig": "",
    },
    "ThinkingConfig": {
        "includeThoughts": "",
        "thinkingBudget": "",
        "thinkingLevel": "",
    },
    "Schema": {
        **_SCHEMA,
        "properties": "map Schema",
        "items": "Schema",
        "anyOf": "Schema",
    },
}


def read_message(value: object, kind: str, where: str = "") -> Mapping[str, Any]:
    """Return a message's members under their names in camel case.

    Args:
        value: as it was decoded.
        kind: the message's name.
        where: its place in the request; "": it is the request.

    Raises:
        Invalid: it is no object, or has a member that the message has not.
    """
    if not isinstance(value, Mapping):
        raise Invalid(f"Invalid value at '{where}' ({kind}), {value!r}")
    fields = MESSAGES[kind]
    read: dict[str, Any] = {}
    for given, member in value.items():
        name = camel(given)
        if name not in fields:
            place = f" at '{where}'" if where else ""
            raise Invalid(
                f'Invalid JSON payload received. Unknown name "{given}"{place}:'
                " Cannot find field."
            )
        if member is not None:
            read[name] = _read(member, fields[name], _place(where, snake(name)))
    return read


def _read(value: object, kind: str, where: str) -> object:
    if not kind:
        return value
    if kind.startswith("map "):
        entries = value if isinstance(value, Mapping) else {}
        inner = kind.removeprefix("map ")
        return {
            key: read_message(entry, inner, f"{where}[{number}].value")
            for number, (key, entry) in enumerate(entries.items())
        }
    if isinstance(value, list):
        return [
            read_message(item, kind, f"{where}[{number}]")
            for number, item in enumerate(value)
        ]
    message = read_message(value, kind, where)
    # One message where a list is wanted is a list of one.
    return [message] if kind in _REPEATED and not where.endswith("items") else message


def camel(name: str) -> str:
    """Return a member's name in camel case.

    >>> camel("system_instruction"), camel("contents"), camel("$schema")
    ('systemInstruction', 'contents', '$schema')
    """
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)


def snake(name: str) -> str:
    """Return a member's name in snake case.

    >>> snake("functionDeclarations")
    'function_declarations'
    """
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)


_REPEATED = frozenset({"Part", "Tool", "FunctionDeclaration", "SafetySetting"})


def _place(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
