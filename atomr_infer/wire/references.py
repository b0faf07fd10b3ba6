"""What a request names without holding it: what an upstream keeps for its account.

A response, a file, a cached prompt, a container.  All clients of a gateway share
the upstream's account, so a name is all that stands between them: whoever knows it
reads what it stands for.  These are the places where a request may hold such a
name, in every dialect that is passed on.

It is looked for in the client's own bytes, because those are what the upstream
reads: member by member, in whatever case and spelling, and each of two that stand
twice.  What is the user's own (a tool's arguments and schema, labels) and what only
repeats an answer (annotations, a tool's outputs) is passed over.

Most requests name nothing; a look for the words alone tells.

Pure.

Source: OpenAI API reference, "Create a model response"; Anthropic API, "Files" and
"Code execution tool"; Gemini API reference, "Caching" and "Files".
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from atomr_infer.errors import InvalidRequestError
from atomr_infer.wire.openai.responses_items import is_our_thought

if TYPE_CHECKING:
    from collections.abc import Iterator

# One search for all, in lower case, since each request is looked through.  It begins
# with a quote, which is found at once, and of which long texts have few.
_MARKED = re.compile(
    rb'"_*(?:previous_?response|conversation|prompt"|file_?(?:id|uri|search_?store)|'
    rb'vector_?store|skill_?id|container|cached_?content|retrieval|audio"|'
    rb"rs_|ig_|gs:)"
)

# A letter or an underscore that is written as an escape hides a word.
_ESCAPE = b"\\u00"
_ESCAPED = re.compile(rb"\\u00[4-7]")

_NAMES = frozenset(
    {
        "fileid",
        "fileids",
        "vectorstoreids",
        "skillid",
        "container",
        "containerid",
        "cachedcontent",
        "filesearchstorenames",
        "retrieval",
    }
)
"""Members that name something wherever they stand."""

_ROOT_NAMES = frozenset({"previousresponseid", "conversation", "prompt"})
"""Members that do so in the request itself."""

_URLS = frozenset({"fileuri", "url", "imageurl", "fileurl"})

_PASSED_OVER = frozenset(
    {
        "parameters",
        "parametersjsonschema",
        "schema",
        "inputschema",
        "inputexamples",
        "responseschema",
        "responsejsonschema",
        "arguments",
        "args",
        "response",
        "annotations",
        "citations",
        "results",
        "outputs",
        "metadata",
        "labels",
    }
)

_LOOKED_UP = {"reasoning": "encryptedcontent", "imagegenerationcall": "result"}
"""Items that an upstream completes by their id where this member is missing."""

_REPEATED = "_execution_output"
"""How the type of a block ends that says which files a tool made."""

_GOOGLE = "googleapis"
_APIS = ("generativelanguage", "aiplatform")


@attrs.frozen
class Reference:
    """Something that is named.

    Attributes:
        name: what it is called; "" where it cannot be one that we have seen.
        param: the member that names it.
    """

    name: str
    param: str


class _Object(list["tuple[str, object]"]):
    """A JSON object's members, those too that stand twice."""


def references(body: bytes) -> tuple[Reference, ...]:
    r"""Return what a request names, in the order in which it does.

    Args:
        body: a JSON object.

    Raises:
        InvalidRequestError: it cannot be looked through.

    >>> references(b'{"input": "hi", "previous_response_id": "resp_1"}')
    (Reference(name='resp_1', param='previous_response_id'),)
    >>> references(b'{"tools": [{"parameters": {"file_id": {"type": "string"}}}]}')
    ()
    """
    if not _is_marked(body):
        return ()
    try:
        root = json.loads(
            body, object_pairs_hook=_Object, parse_int=str, parse_float=str
        )
        return tuple(_of(root, ""))
    except RecursionError as error:
        raise InvalidRequestError("the body is nested too deeply") from error
    except ValueError as error:
        raise InvalidRequestError("the body is not valid JSON in UTF-8") from error


def _is_marked(body: bytes) -> bool:
    """Whether a body holds a word that a name could stand behind."""
    text = body.lower()
    if _MARKED.search(text) is not None or _GOOGLE.encode() in text:
        return True
    return _ESCAPE in text and _ESCAPED.search(text) is not None


def _of(value: object, param: str) -> Iterator[Reference]:
    if isinstance(value, _Object):
        yield from _of_object(value, param)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _of(item, f"{param}[{position}]")


def _of_object(members: _Object, param: str) -> Iterator[Reference]:
    kinds = _texts(members, "type")
    yield from _looked_up(members, kinds, param)
    for name, value in members:
        plain = _plain(name)
        place = f"{param}.{name}" if param else name
        if value is None or plain in _PASSED_OVER or (plain == "input" and param):
            continue
        if plain in _NAMES and not _is_everyones(plain, kinds):
            yield from _named(plain, value, place)
        elif plain in _ROOT_NAMES and not param:
            yield from _named_by_root(plain, value, place)
        elif plain in _URLS and _is_kept(plain, value):
            yield Reference("", place)
        elif plain == "audio":
            yield from _named_by_id(value, place)
        yield from _of(value, place)


def _is_everyones(plain: str, kinds: list[str]) -> bool:
    """Whether a name is no secret: of what a tool made, or of the provider's own."""
    if plain == "skillid":
        return kinds == ["anthropic"]
    return bool(kinds) and all(kind.endswith(_REPEATED) for kind in kinds)


def _named(plain: str, value: object, param: str) -> Iterator[Reference]:
    if isinstance(value, str):
        yield Reference(value, param)
    elif isinstance(value, _Object):
        # A container that is to be made has no id; what it is given is looked at.
        yield from _named_by_id(value, param)
        if plain == "retrieval":
            yield Reference("", param)
    elif isinstance(value, list):
        for position, each in enumerate(value):
            name = each if isinstance(each, str) else ""
            yield Reference(name, f"{param}[{position}]")


def _named_by_root(plain: str, value: object, param: str) -> Iterator[Reference]:
    if isinstance(value, str) and plain != "prompt":
        yield Reference(value, param)
    else:
        yield from _named_by_id(value, param)


def _named_by_id(value: object, param: str) -> Iterator[Reference]:
    for name in _texts(value, "id"):
        yield Reference(name, f"{param}.id")


def _looked_up(members: _Object, kinds: list[str], param: str) -> Iterator[Reference]:
    for kind in kinds:
        content = _LOOKED_UP.get(_plain(kind))
        if content is None or _all_given(members, content):
            continue
        for name in _texts(members, "id"):
            if not is_our_thought(name):
                yield Reference(name, f"{param}.id")


def _all_given(members: _Object, content: str) -> bool:
    """Whether a member is there, and each of several of its name is a text."""
    given = [value for name, value in members if _plain(name) == content]
    return bool(given) and all(isinstance(v, str) and v for v in given)


def _is_kept(plain: str, url: object) -> bool:
    """Whether a URL is of a provider's own store, which its account opens."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False  # nobody can fetch that
    if parts.scheme not in ("http", "https"):
        return parts.scheme == "gs" or plain == "fileuri"
    return _GOOGLE in host and any(api in host for api in _APIS)


def _texts(value: object, name: str) -> list[str]:
    """Return the text members of a plain name; none where it is no object."""
    if not isinstance(value, _Object):
        return []
    return [v for n, v in value if _plain(n) == name and isinstance(v, str) and v]


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
