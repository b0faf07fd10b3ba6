"""The turns of a conversation with Gemini: parts, and what follows what.

Pure.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from atomr_infer.testing.upstreams.call import Media, words
from atomr_infer.testing.upstreams.checks import Invalid, inline_media

Turn = Mapping[str, Any]

SKIP_SIGNATURE = base64.b64encode(b"skip_thought_signature_validator").decode()
"""What Google documents for calls that another model made."""

_ROLES = ("user", "model", "function")
_DATA = (
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
)
_SIGNING_MODEL = re.compile(r"gemini-[3-9]")


def check_turns(turns: Sequence[Turn], *, model: str, vertex: bool) -> None:
    """Check a request's contents.

    Args:
        turns: its contents.
        model: the model's name; from Gemini 3 on calls must be signed.
        vertex: Vertex wants a role on each turn; AI Studio takes ``user``.

    Raises:
        Invalid: as Google says it.
    """
    if not turns:
        raise Invalid("* GenerateContentRequest.contents: contents is not specified\n")
    for number, turn in enumerate(turns):
        _check_turn(number, turn, vertex=vertex)
    _check_alternation(turns)
    _check_calls(turns)
    if _SIGNING_MODEL.search(model):
        _check_signed(turns)


def signature_of(name: str, arguments: object) -> str:
    """Return the signature of a call, or of a text with no arguments.

    It is made of what it signs, so that a signature that comes back on another
    part is noticed.
    """
    text = f"{name} {msgspec.json.encode(arguments, order='sorted').decode()}"
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def words_of(turns: Sequence[Turn]) -> int:
    """Return the words of all text parts and of what functions returned."""
    parts = [part for turn in turns for part in turn.get("parts", ())]
    texts = [str(part.get("text", "")) for part in parts]
    results = [str(p["functionResponse"]) for p in parts if "functionResponse" in p]
    return sum(map(words, texts)) + len(results)


def media_of(turns: Sequence[Turn]) -> Iterator[Media]:
    """Yield what in the contents is not text."""
    for turn in turns:
        results = [part.get("functionResponse", {}) for part in turn["parts"]]
        inside = [part for result in results for part in result.get("parts", ())]
        for part in (*turn["parts"], *inside):
            if "inlineData" in part:
                blob = part["inlineData"]
                yield inline_media(blob.get("mimeType", ""), blob.get("data"))
            elif "fileData" in part:
                file = part["fileData"]
                yield Media(file.get("mimeType", ""), url=file.get("fileUri"))


# --- one turn ---------------------------------------------------------------


def _check_turn(number: int, turn: Turn, *, vertex: bool) -> None:
    role = turn.get("role", None if vertex else "user")
    if role not in _ROLES:
        raise Invalid("Please use a valid role: user, model.")
    parts = turn.get("parts")
    where = f"* GenerateContentRequest.contents[{number}].parts"
    if not parts:
        raise Invalid(f"{where}: contents.parts must not be empty.\n")
    for place, part in enumerate(parts):
        _check_part(f"{where}[{place}]", part)


def _check_part(where: str, part: Turn) -> None:
    given = [name for name in _DATA if name in part]
    if len(given) != 1:
        raise Invalid(
            f"{where}.data: required oneof field 'data' must have one initialized"
            " field\n"
        )
    if "inlineData" in part and not part["inlineData"].get("mimeType"):
        raise Invalid(f"{where}.inline_data.mime_type: mimeType must be set\n")
    if "functionResponse" in part:
        response = part["functionResponse"]
        if not response.get("name"):
            raise Invalid(f"{where}.function_response.name: Name cannot be empty.\n")
        if not isinstance(response.get("response"), Mapping):
            raise Invalid(
                f"Invalid value at '{where.removeprefix('* ')}.function_response"
                f".response' (type.googleapis.com/google.protobuf.Struct),"
                f" {response.get('response')!r}"
            )
    if "functionCall" in part:
        call = part["functionCall"]
        if not isinstance(call.get("args", {}), Mapping):
            raise Invalid(
                f"Invalid value at '{where.removeprefix('* ')}.function_call.args'"
                f" (type.googleapis.com/google.protobuf.Struct), {call['args']!r}"
            )


# --- what follows what ------------------------------------------------------


def _check_alternation(turns: Sequence[Turn]) -> None:
    speakers = [_speaker(turn) for turn in turns]
    if speakers[0] != "user" or speakers[-1] != "user":
        raise Invalid(
            "Please ensure that multiturn requests begin and end with a user role or a"
            " function response."
        )
    for before, after in pairwise(speakers):
        if before == after:
            raise Invalid(
                "Please ensure that multiturn requests alternate between user and"
                " model."
            )


def _check_calls(turns: Sequence[Turn]) -> None:
    """As many answers follow a turn of calls as it has calls, by the same names."""
    for before, after in zip(turns, [*turns[1:], None], strict=True):
        calls = _named(before, "functionCall")
        answers = [] if after is None else _named(after, "functionResponse")
        if len(calls) != len(answers):
            raise Invalid(
                "Please ensure that the number of function response parts is equal to"
                " the number of function call parts of the function call turn."
            )
        if sorted(calls) != sorted(answers):
            raise Invalid(
                "Please ensure that function response parts have the names of the"
                f" function calls: {calls}, not {answers}."
            )
    if _named(turns[0], "functionResponse"):
        raise Invalid(
            "Please ensure that function response turn comes immediately after a"
            " function call turn."
        )


def _check_signed(turns: Sequence[Turn]) -> None:
    """The first call of each step since the user last spoke carries its signature."""
    spoken = [i for i, turn in enumerate(turns) if _speaks(turn)]
    for turn in turns[max(spoken, default=0) :]:
        calls = [part for part in turn["parts"] if "functionCall" in part]
        if not calls:
            continue
        call = calls[0]["functionCall"]
        signature = calls[0].get("thoughtSignature")
        if signature is None:
            raise Invalid(
                "Function call is missing a thought_signature in functionCall parts."
                " This is required for tools to work correctly. Additional data,"
                f" function call `default_api:{call['name']}`."
            )
        expected = signature_of(call["name"], call.get("args", {}))
        # Bytes are read in either alphabet, and Google's library writes the other.
        standard = signature.replace("-", "+").replace("_", "/")
        if standard not in (expected, SKIP_SIGNATURE):
            raise Invalid("Thought signature is not valid")


def _speaker(turn: Turn) -> str:
    return "model" if turn.get("role") == "model" else "user"


def _speaks(turn: Turn) -> bool:
    return _speaker(turn) == "user" and not _named(turn, "functionResponse")


def _named(turn: Turn, kind: str) -> list[str]:
    return [str(part[kind].get("name")) for part in turn["parts"] if kind in part]
