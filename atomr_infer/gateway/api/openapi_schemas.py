"""What requests and answers look like, as JSON Schema, dialect by dialect.

A schema says what the gateway itself reads; members that it passes on are open,
because a provider may know more of them tomorrow.

Pure.
"""

from __future__ import annotations

from atomr_infer.model.dialect import Dialect
from atomr_infer.model.tensors import Datatype

Schema = dict[str, object]

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_FLAG: Schema = {"type": "boolean"}
_MODEL: Schema = {"type": "string", "minLength": 1, "maxLength": 256}


def _object(*required: str, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
    }


def _list(items: Schema, *, least: int = 0) -> Schema:
    schema: Schema = {"type": "array", "items": items}
    return schema | {"minItems": least} if least else schema


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _bounded(schema: Schema, low: float, high: float) -> Schema:
    return _or_null({**schema, "minimum": low, "maximum": high})


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


# --- errors ---------------------------------------------------------------------

_OPENAI_ERROR = _object(
    "error",
    error=_object(
        "message",
        "type",
        "param",
        "code",
        message=_TEXT,
        type=_TEXT,
        param=_or_null(_TEXT),
        code=_or_null(_TEXT),
    ),
)
_ANTHROPIC_ERROR = _object(
    "type",
    "error",
    type={"const": "error"},
    error=_object("type", "message", type=_TEXT, message=_TEXT),
    request_id=_TEXT,
)
_GEMINI_ERROR = _object(
    "error",
    error=_object(
        "code",
        "message",
        "status",
        code=_WHOLE,
        message=_TEXT,
        status=_TEXT,
        details=_list({"type": "object"}),
    ),
)

ERRORS: dict[Dialect, Schema] = {
    Dialect.OPENAI_CHAT: _OPENAI_ERROR,
    Dialect.OPENAI_COMPLETIONS: _OPENAI_ERROR,
    Dialect.OPENAI_RESPONSES: _OPENAI_ERROR,
    Dialect.ANTHROPIC: _ANTHROPIC_ERROR,
    Dialect.GEMINI: _GEMINI_ERROR,
    Dialect.OPEN_INFERENCE: _object("error", error=_TEXT),
}
"""The error envelope of each dialect."""

# --- requests -------------------------------------------------------------------

_CHAT_TEXT = _object("role", "content", role=_TEXT, content=_TEXT)
_CHAT_MESSAGE: Schema = {
    **_CHAT_TEXT,
    "properties": {
        "role": _one_of("system", "developer", "user", "assistant"),
        "content": _TEXT,
        "name": _TEXT,
    },
}
_FUNCTION = _object(
    "name",
    name={"type": "string", "minLength": 1},
    description=_TEXT,
    parameters={"type": "object"},
)
_CHAT_TOOL = _object("type", "function", type={"const": "function"}, function=_FUNCTION)

CHAT = _object(
    "model",
    "messages",
    model=_MODEL,
    messages=_list(_CHAT_MESSAGE, least=1),
    stream=_or_null(_FLAG),
    temperature=_bounded(_NUMBER, 0, 2),
    top_p=_bounded(_NUMBER, 0, 1),
    max_tokens=_bounded(_WHOLE, 1, 2**31),
    max_completion_tokens=_bounded(_WHOLE, 1, 2**31),
    n=_bounded(_WHOLE, 1, 128),
    seed=_or_null(_WHOLE),
    stop=_or_null({"anyOf": [_TEXT, _list(_TEXT)]}),
    presence_penalty=_bounded(_NUMBER, -2, 2),
    frequency_penalty=_bounded(_NUMBER, -2, 2),
    tools=_list(_CHAT_TOOL),
    user=_or_null(_TEXT),
)

COMPLETION = _object(
    "model",
    "prompt",
    model=_MODEL,
    prompt=_TEXT,
    stream=_or_null(_FLAG),
    temperature=_bounded(_NUMBER, 0, 2),
    top_p=_bounded(_NUMBER, 0, 1),
    max_tokens=_bounded(_WHOLE, 1, 2**31),
    n=_bounded(_WHOLE, 1, 128),
    logprobs=_bounded(_WHOLE, 0, 20),
)

RESPONSE = _object(
    "model",
    "input",
    model=_MODEL,
    input={"anyOf": [_TEXT, _list(_CHAT_TEXT, least=1)]},
    instructions=_or_null(_TEXT),
    stream=_or_null(_FLAG),
    store=_or_null(_FLAG),
    previous_response_id=_or_null(_TEXT),
    temperature=_bounded(_NUMBER, 0, 2),
    top_p=_bounded(_NUMBER, 0, 1),
    max_output_tokens=_bounded(_WHOLE, 1, 2**31),
    tools=_list({"type": "object"}),
)

EMBEDDINGS = _object(
    "model",
    "input",
    model=_MODEL,
    input={"anyOf": [_TEXT, _list(_TEXT, least=1)]},
    encoding_format=_one_of("float", "base64"),
    dimensions=_bounded(_WHOLE, 1, 2**20),
    user=_or_null(_TEXT),
)

RERANK = _object(
    "model",
    "query",
    "documents",
    model=_MODEL,
    query=_TEXT,
    documents=_list(
        {"anyOf": [_TEXT, {"type": "object", "required": ["text"]}]}, least=1
    ),
    top_n=_bounded(_WHOLE, 1, 2**20),
    return_documents={"type": "boolean"},
)

CLASSIFY = _object(
    "model",
    "input",
    model=_MODEL,
    input={"anyOf": [_TEXT, _list(_TEXT, least=1)]},
    user=_or_null(_TEXT),
)

_TENSOR = _object(
    "name",
    "shape",
    "datatype",
    "data",
    name=_TEXT,
    shape=_list({"type": "integer", "minimum": 0}),
    datatype=_one_of(*(kind.value for kind in Datatype)),
    data={"type": "array"},
)

INFER = _object(
    "inputs",
    id=_or_null(_TEXT),
    inputs=_list(_TENSOR, least=1),
    outputs=_list(_object("name", name=_TEXT)),
)

_TURN = _object("role", "content", role=_one_of("user", "assistant"), content=_TEXT)

COUNT_TOKENS = _object(
    "model", "messages", model=_MODEL, messages=_list(_TURN, least=1), system=_TEXT
)

MESSAGES = _object(
    "model",
    "max_tokens",
    "messages",
    model=_MODEL,
    max_tokens={"type": "integer", "minimum": 1},
    messages=_list(_TURN, least=1),
    system=_TEXT,
    stream=_FLAG,
    temperature={"type": "number", "minimum": 0, "maximum": 1},
    top_p={"type": "number", "minimum": 0, "maximum": 1},
    top_k={"type": "integer", "minimum": 0},
    stop_sequences=_list(_TEXT),
)

_CONTENT = _object(
    "parts",
    role=_one_of("user", "model"),
    parts=_list(_object("text", text=_TEXT), least=1),
)
_GENERATION_CONFIG = _object(
    temperature={"type": "number", "minimum": 0, "maximum": 2},
    topP={"type": "number", "minimum": 0, "maximum": 1},
    topK={"type": "integer", "minimum": 1},
    maxOutputTokens={"type": "integer", "minimum": 1},
    candidateCount={"type": "integer", "minimum": 1, "maximum": 8},
    stopSequences=_list(_TEXT),
)

GENERATE_CONTENT = _object(
    "contents",
    contents=_list(_CONTENT, least=1),
    systemInstruction=_CONTENT,
    generationConfig=_GENERATION_CONFIG,
)
COUNT_CONTENT = _object("contents", contents=_list(_CONTENT, least=1))
EMBED_CONTENT = _object("content", content=_CONTENT)
BATCH_EMBED_CONTENTS = _object("requests", requests=_list(EMBED_CONTENT, least=1))

# --- answers --------------------------------------------------------------------

_USAGE = _or_null({"type": "object"})

CHAT_ANSWER = _object(
    "id",
    "object",
    "created",
    "model",
    "choices",
    id=_TEXT,
    object={"const": "chat.completion"},
    created=_WHOLE,
    model=_TEXT,
    choices=_list(
        _object(
            "index",
            "message",
            "finish_reason",
            index=_WHOLE,
            message=_object("role", "content", content=_or_null(_TEXT)),
            finish_reason=_TEXT,
        )
    ),
    usage=_USAGE,
)
COMPLETION_ANSWER = _object(
    "id",
    "choices",
    id=_TEXT,
    object={"const": "text_completion"},
    choices=_list(_object("index", "text", index=_WHOLE, text=_TEXT)),
    usage=_USAGE,
)
RESPONSE_ANSWER = _object(
    "id",
    "object",
    "status",
    "output",
    id=_TEXT,
    object={"const": "response"},
    status=_one_of("completed", "incomplete"),
    output=_list({"type": "object"}),
    usage=_USAGE,
)
DELETED = _object("id", "deleted", id=_TEXT, deleted={"const": True})
CLASSIFIED = _object("labels", "data", data=_list({"type": "object"}))
INFERRED = _object("model_name", "outputs", outputs=_list({"type": "object"}))
DESCRIBED = _object("name", "inputs", "outputs", inputs=_list({"type": "object"}))
MODEL_READY = _object("name", "ready", ready={"const": True})
INDEX = _object("name", "version", "extensions", name=_TEXT, version=_TEXT)
RERANK_ANSWER = _object("results", results=_list({"type": "object"}))
EMBEDDINGS_ANSWER = _object("data", data=_list({"type": "object"}))
MESSAGE_ANSWER = _object(
    "id",
    "type",
    "role",
    "content",
    "stop_reason",
    "usage",
    id=_TEXT,
    type={"const": "message"},
    role={"const": "assistant"},
    content=_list({"type": "object"}),
    stop_reason=_TEXT,
    usage=_object("input_tokens", "output_tokens"),
)
COUNTED = _object("input_tokens", input_tokens=_WHOLE)
CONTENT_ANSWER = _object(
    "candidates",
    "usageMetadata",
    candidates=_list({"type": "object"}),
    usageMetadata={"type": "object"},
)
CONTENT_STREAM = _list({"type": "object"})
COUNTED_CONTENT = _object("totalTokens", totalTokens=_WHOLE)
EMBEDDED = _object("embedding", embedding={"type": "object"})
BATCH_EMBEDDED = _object("embeddings", embeddings=_list({"type": "object"}))
READINESS = _object("ready", "deployments", ready=_FLAG)
ALIVE = _object("status", status={"const": "alive"})
MODELS: Schema = {"type": "object"}
EVENT = _object("data", data=_TEXT, event=_TEXT)
