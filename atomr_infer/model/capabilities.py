"""What a loaded runner can do, so that a request it cannot serve never starts.

Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.errors import UnsupportedFeatureError
from atomr_infer.model.asks import FormatKind, RawTool, ToolMode
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    RawJson,
    RawPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.model.selectors import refuse_selectors
from atomr_infer.model.tensors import Signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Feature(Enum):
    """A thing that a request may need and not every runtime has.

    The value is what an error calls it.
    """

    CHAT = "chat"
    COMPLETIONS = "bare text completions"
    EMBEDDINGS = "embeddings"
    RERANK = "reranking"
    CLASSIFY = "classifying texts"
    INFER = "raw tensors"
    COUNT_TOKENS = "counting tokens"
    TOOLS = "tools"
    PARALLEL_TOOLS = "parallel tool calls"
    JSON_OBJECT = "JSON mode"
    STRUCTURED_OUTPUT = "structured output"
    LOGPROBS = "logprobs"
    IMAGES = "images"
    IMAGE_URLS = "fetching images by URL"
    FILE_URLS = "fetching documents by URL"
    AUDIO = "audio"
    FILES = "documents"
    PREFILL = "continuing an assistant's text"
    REASONING = "reasoning"


class ThinkingStyle(Enum):
    """How a model is told to reason."""

    NONE = "none"
    EFFORT = "effort"
    BUDGET = "budget"
    ADAPTIVE = "adaptive"


ALL_SAMPLING = frozenset(field.name for field in attrs.fields(Sampling))
"""Every sampling field, for a runtime that takes them all."""

_PLAIN = frozenset({Feature.CHAT})


@attrs.frozen(kw_only=True)
class Capabilities:
    """What one loaded model behind one runtime can do.

    Attributes:
        features: what it has.
        sampling: the fields of :class:`Sampling` that change its output.
        max_concurrency: requests that it runs well at once; the default of
            ``Serving.max_concurrency``.
        context_tokens: prompt and output together; None: not known.
        max_output_tokens: most that one answer can have; None: not known.
        thinking: how it is told to reason.
        passes: dialects whose requests it can take as the client's bytes.
        extra_of: dialects whose unknown request members reach the model.
        members: unknown request members that it takes, where it does not take all
            of a dialect's (``extra_of``).
        url_prefixes: how the URLs begin that it fetches itself, where it does
            not fetch all of them (``IMAGE_URLS``).
        max_n: most answers to one request; None: its provider says it.
        selectors: members by which a request would choose another model, endpoint
            or price there; such a one is refused.
        signature: the tensors that it takes and gives (``INFER``).
    """

    features: frozenset[Feature] = _PLAIN
    sampling: frozenset[str] = frozenset({"max_tokens"})
    max_concurrency: int = 1
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    thinking: ThinkingStyle = ThinkingStyle.NONE
    passes: frozenset[Dialect] = frozenset()
    extra_of: frozenset[Dialect] = frozenset()
    members: frozenset[str] = frozenset()
    url_prefixes: tuple[str, ...] = ()
    max_n: int | None = None
    selectors: frozenset[str] = frozenset()
    signature: Signature | None = None


BOOKKEEPING = frozenset(
    {
        "user",
        "metadata",
        "client_metadata",
        "store",
        "safety_identifier",
        "max_completion_tokens",
        "stream_options",
        "include",
    }
)
"""Members that are about the request's bookkeeping and not about the answer: nobody
is told that they have no effect.  Of ``max_completion_tokens`` only the spelling is
left in what else a request says."""

_SAYS_NOTHING = (b"null", b"[]", b'""')

# An assistant's turn at the end asks for its continuation; in OpenAI's dialect it
# is one more turn to answer to.
_CONTINUES = (Dialect.ANTHROPIC, Dialect.GEMINI)


def check_request(batch: ExecuteBatch, capabilities: Capabilities) -> tuple[str, ...]:
    """Refuse what cannot be served, and name what will have no effect.

    Returns:
        The request members that will be ignored, for a warning header.

    Raises:
        UnsupportedFeatureError: the request needs a feature that is absent;
            ``param`` names the member.
        InvalidRequestError: it would choose what its deployment chooses.
    """
    _check_selectors(batch, capabilities)
    if _is_passed_on(batch, capabilities):
        return ()  # its provider says what it does not take
    _check_asks(batch, capabilities)
    _check_modalities(batch, capabilities)
    _check_old_tools(batch, capabilities)
    if batch.only_passed is not None and not _is_passed_on(batch, capabilities):
        raise _absent(batch.only_passed, "prompt")
    for position, message in enumerate(batch.messages):
        _check_message(position, message, batch.dialect, capabilities)
    ignored = batch.sampling.given() - capabilities.sampling
    if "n" in ignored:
        raise UnsupportedFeatureError(
            f"this model gives one answer per request; n is {batch.sampling.n}",
            param="n",
        )
    _check_n(batch.sampling.n, capabilities)
    ignored -= {"top_logprobs"}  # refused above where it is absent
    if batch.dialect not in capabilities.extra_of:
        ignored |= set(_named(batch.extra)) - BOOKKEEPING - capabilities.members
    if batch.prompt is not None and Feature.COMPLETIONS not in capabilities.features:
        ignored |= {"prompt as bare text (it was sent as a message)"}
    if batch.reasoning is not None and Feature.REASONING not in capabilities.features:
        ignored |= {"reasoning"}
    return tuple(sorted(ignored))


def _check_n(n: int, capabilities: Capabilities) -> None:
    most = capabilities.max_n
    if most is not None and n > most:
        problem = f"this model gives at most {most} answers per request; n is {n}"
        raise UnsupportedFeatureError(problem, param="n")


def _check_selectors(batch: ExecuteBatch, capabilities: Capabilities) -> None:
    reaches = batch.dialect in capabilities.extra_of
    if batch.extra and (reaches or _is_passed_on(batch, capabilities)):
        refuse_selectors(batch.extra, capabilities.selectors)


def _named(extra: Mapping[str, RawJson]) -> Iterator[str]:
    """Name members that are not modelled and say something.

    Of an object that was read in part, those of its rest.
    """
    for name, raw in extra.items():
        if name == "generationConfig":
            yield from (f"{name}.{member}" for member in msgspec.json.decode(raw))
        elif bytes(raw) not in _SAYS_NOTHING:
            yield name


def _check_asks(batch: ExecuteBatch, capabilities: Capabilities) -> None:
    choice = batch.tool_choice
    if batch.tools and not (choice and choice.mode is ToolMode.NONE):
        _require(Feature.TOOLS, "tools", capabilities)
    own = batch.dialect in capabilities.extra_of
    if choice is not None and choice.hosted and not own:
        raise _absent(f"the tool {choice.hosted[0]!r}", "tool_choice")
    for tool in batch.tools:
        if isinstance(tool, RawTool) and not own:
            raise _absent(f"the tool {tool.kind!r}", "tools")
    if batch.sampling.top_logprobs is not None:
        _require(Feature.LOGPROBS, "logprobs", capabilities)
    last = batch.messages[-1] if batch.messages else None
    if (
        last is not None
        and last.role is Role.ASSISTANT
        and (batch.dialect in _CONTINUES)
    ):
        _require(Feature.PREFILL, "messages", capabilities)
    form = batch.response_format
    if form is not None and form.kind is FormatKind.JSON_OBJECT:
        _require(Feature.JSON_OBJECT, "response_format", capabilities)
    if form is not None and form.kind is FormatKind.JSON_SCHEMA:
        _require(Feature.STRUCTURED_OUTPUT, "response_format", capabilities)


def _check_modalities(batch: ExecuteBatch, capabilities: Capabilities) -> None:
    """Refuse an answer in pictures or sound of a model that writes text only."""
    if batch.dialect in capabilities.extra_of:
        return  # its provider knows its models
    for param, raw in _modalities(batch.extra):
        for form in _texts(raw):
            if form.lower() not in _TEXT_FORMS:
                raise _absent(f"answers as {form.lower()}", param)


_TEXT_FORMS = ("text", "modality_unspecified")


def _modalities(extra: Mapping[str, RawJson]) -> Iterator[tuple[str, RawJson]]:
    if "modalities" in extra:
        yield "modalities", extra["modalities"]
    config = extra.get("generationConfig")
    name = "responseModalities"
    if config is not None and name.encode() in config:
        members = msgspec.json.decode(config, type=dict[str, msgspec.Raw])
        if name in members:
            yield f"generationConfig.{name}", bytes(members[name])


def _texts(raw: RawJson) -> list[str]:
    try:
        return msgspec.json.decode(raw, type=list[str])
    except msgspec.ValidationError:
        return []  # null, or nothing that means anything


def _check_old_tools(batch: ExecuteBatch, capabilities: Capabilities) -> None:
    """Refuse what would be another request without it, where it has no effect."""
    if "previous_response_id" in batch.extra:
        raise UnsupportedFeatureError(
            "the response that this one goes on from is not stored here",
            code="previous_response_not_found",
            param="previous_response_id",
        )
    if batch.dialect in capabilities.extra_of:
        return
    for name in batch.extra:
        what = _NO_OTHER_ANSWER.get(name)
        if what is not None and bytes(batch.extra[name]) not in _SAYS_NOTHING:
            raise _absent(what, name)


_OLD_TOOLS = "tools in this form; use 'tools'"
_CACHED = "a prompt that another provider keeps; send it whole"

# Members that are part of the prompt, or tools: without them it is another request.
_NO_OTHER_ANSWER = {
    "functions": _OLD_TOOLS,
    "function_call": _OLD_TOOLS,
    "web_search_options": "searching the web",
    "mcp_servers": "MCP servers",
    "cachedContent": _CACHED,
    "cached_content": _CACHED,
}


_FEATURE_OF: dict[type[Part], Feature] = {
    ImagePart: Feature.IMAGES,
    AudioPart: Feature.AUDIO,
    FilePart: Feature.FILES,
    ToolCallPart: Feature.TOOLS,
    ToolResultPart: Feature.TOOLS,
}


def _check_message(
    position: int, message: Message, dialect: Dialect, capabilities: Capabilities
) -> None:
    param = f"messages[{position}].content"
    for part in message.content:
        feature = _FEATURE_OF.get(type(part))
        if feature is not None:
            _require(feature, param, capabilities)
        if isinstance(part, RawPart) and dialect not in capabilities.extra_of:
            raise _absent(f"content of type {part.kind!r}", param)
        if isinstance(part, ToolResultPart):
            for inner in part.content:
                nested = _FEATURE_OF.get(type(inner))
                if nested is not None:
                    _require(nested, param, capabilities)


def needs_fetching(batch: ExecuteBatch, capabilities: Capabilities) -> bool:
    """Whether media must be fetched for a model that does not do it itself."""
    if _is_passed_on(batch, capabilities):
        return False  # what is fetched would not be sent
    return any(not is_fetched_there(part, capabilities) for part in _media_parts(batch))


def _is_passed_on(batch: ExecuteBatch, capabilities: Capabilities) -> bool:
    """Whether the client's own bytes are sent, as they are."""
    return batch.source is not None and batch.source.dialect in capabilities.passes


def is_fetched_there(
    part: ImagePart | AudioPart | FilePart, capabilities: Capabilities
) -> bool:
    """Whether the provider gets at a part's bytes by itself."""
    if not isinstance(part.source, Url):
        return True
    is_image = isinstance(part, ImagePart)
    feature = Feature.IMAGE_URLS if is_image else Feature.FILE_URLS
    if feature in capabilities.features:
        return True
    if not is_image and part.source.url.startswith(("http://", "https://")):
        return False
    return part.source.url.startswith(capabilities.url_prefixes)


def _media_parts(batch: ExecuteBatch) -> Iterator[ImagePart | AudioPart | FilePart]:
    parts = [part for message in batch.messages for part in message.content]
    for part in parts:
        inner = part.content if isinstance(part, ToolResultPart) else (part,)
        for each in inner:
            if isinstance(each, ImagePart | AudioPart | FilePart):
                yield each


def _require(feature: Feature, param: str, capabilities: Capabilities) -> None:
    if feature not in capabilities.features:
        raise _absent(feature.value, param)


def _absent(what: str, param: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"this model does not support {what} (request field {param!r})",
        code="unsupported_parameter",
        param=param,
    )
