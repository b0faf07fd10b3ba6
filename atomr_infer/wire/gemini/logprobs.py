"""The probabilities of tokens: OpenAI's form, which is canonical, and Gemini's.

Pure.

Source: Gemini API reference, "LogprobsResult".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.model.parts import RawJson

# What a log of a probability is where there is none: OpenAI's own stand-in.
_LEAST = -9999.0


class _Token(msgspec.Struct):
    token: str = ""
    logprob: float = _LEAST


class _Entry(_Token):
    top_logprobs: list[_Token] = []


class _Logprobs(msgspec.Struct):
    content: list[_Entry] | None = None


_decode = msgspec.json.Decoder(_Logprobs | None).decode


def logprobs_result(pieces: Sequence[RawJson]) -> dict[str, object]:
    """Return the members of a candidate for probabilities in OpenAI's form.

    Pieces that are no such thing say nothing; {} when none does.
    """
    entries: list[_Entry] = []
    for raw in pieces:
        try:
            told = _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        entries += (told and told.content) or ()
    if not entries:
        return {}
    result: dict[str, object] = {"chosenCandidates": [_member(e) for e in entries]}
    if any(entry.top_logprobs for entry in entries):
        result["topCandidates"] = [
            {"candidates": [_member(token) for token in entry.top_logprobs]}
            for entry in entries
        ]
    average = sum(entry.logprob for entry in entries) / len(entries)
    return {"avgLogprobs": average, "logprobsResult": result}


def _member(token: _Token) -> dict[str, object]:
    return {"token": token.token, "logProbability": token.logprob}


class _Candidate(msgspec.Struct, rename="camel"):
    token: str | None = None
    log_probability: float | None = None


class _Top(msgspec.Struct):
    candidates: list[_Candidate] | None = None


class LogprobsResult(msgspec.Struct, rename="camel"):
    """Gemini's probabilities of a candidate's tokens."""

    chosen_candidates: list[_Candidate] | None = None
    top_candidates: list[_Top] | None = None


_decode_result = msgspec.json.Decoder(LogprobsResult | None).decode


def canonical_logprobs(raw: bytes) -> RawJson | None:
    """Return Gemini's probabilities in OpenAI's form; None when there are none."""
    try:
        result = _decode_result(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if result is None or not result.chosen_candidates:
        return None
    top = result.top_candidates or []
    entries = []
    for position, chosen in enumerate(result.chosen_candidates):
        others = (top[position].candidates or ()) if position < len(top) else ()
        alternatives = [_entry(other) for other in others]
        entries.append({**_entry(chosen), "top_logprobs": alternatives})
    return msgspec.json.encode({"content": entries, "refusal": None})


def _entry(candidate: _Candidate) -> dict[str, Any]:
    token = candidate.token or ""
    logprob = candidate.log_probability
    return {
        "token": token,
        "logprob": _LEAST if logprob is None else logprob,
        "bytes": list(token.encode()),
    }
