"""Where an answer's words come from, as OpenAI's ``annotations`` and Gemini's own.

A citation stands for a stretch of the text.  OpenAI counts characters, Gemini bytes
of UTF-8.  What Gemini grounds without saying where is said of the whole text.

Pure.

Source: OpenAI API reference, "The chat completion object" and "The response object";
Gemini API reference, "CitationMetadata" and "GroundingMetadata".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from atomr_infer.model.parts import RawJson

_encode = msgspec.json.encode


@attrs.frozen
class Citation:
    """A page, and the text that comes from it.

    Attributes:
        url: the page.
        title: its title; "" when it was not said.
        start: where the text begins, in characters.
        end: where it ends: the character behind it.
    """

    url: str
    title: str
    start: int
    end: int


# --- OpenAI -------------------------------------------------------------------


class _UrlCitation(msgspec.Struct):
    url: str = ""
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None


class _Annotation(_UrlCitation):
    type: str = ""
    url_citation: _UrlCitation | None = None


_decode_annotations = msgspec.json.Decoder(list[_Annotation]).decode


def chat_annotations(citations: Iterable[Citation]) -> RawJson:
    """Return the ``annotations`` of a chat's message."""
    return _encode(
        [{"type": "url_citation", "url_citation": _members(c)} for c in citations]
    )


def response_annotations(citations: Iterable[Citation]) -> list[dict[str, object]]:
    """Return the ``annotations`` of a response's text."""
    return [{"type": "url_citation", **_members(c)} for c in citations]


def _members(citation: Citation) -> dict[str, object]:
    return {
        "start_index": citation.start,
        "end_index": citation.end,
        "title": citation.title,
        "url": citation.url,
    }


def read_annotations(raw: RawJson | None) -> tuple[Citation, ...]:
    """Return what a chat's ``annotations`` cite; what is no URL is passed over.

    >>> read_annotations(b'[{"type":"url_citation","url_citation":{"url":"https://a"}}]')
    (Citation(url='https://a', title='', start=0, end=0),)
    """
    if raw is None:
        return ()
    try:
        found = [each.url_citation or each for each in _decode_annotations(raw)]
    except msgspec.DecodeError:
        return ()
    return tuple(
        Citation(each.url, each.title or "", each.start_index or 0, each.end_index or 0)
        for each in found
        if each.url
    )


# --- Gemini -------------------------------------------------------------------


class _Source(msgspec.Struct, rename="camel"):
    start_index: int = 0
    end_index: int = 0
    uri: str = ""
    title: str = ""


class CitationMetadata(msgspec.Struct, rename="camel"):
    """What a candidate repeats of others; AI Studio and Vertex name it apart."""

    citation_sources: list[_Source] | None = None
    citations: list[_Source] | None = None


class _Page(msgspec.Struct):
    uri: str = ""
    title: str = ""


class _GroundingChunk(msgspec.Struct, rename="camel"):
    web: _Page | None = None
    retrieved_context: _Page | None = None

    @property
    def page(self) -> _Page:
        return self.web or self.retrieved_context or _Page()


class _Segment(msgspec.Struct, rename="camel"):
    start_index: int = 0
    end_index: int = 0


class _Support(msgspec.Struct, rename="camel"):
    segment: _Segment | None = None
    grounding_chunk_indices: list[int] | None = None


class GroundingMetadata(msgspec.Struct, rename="camel"):
    """What a candidate's text rests on."""

    grounding_chunks: list[_GroundingChunk] | None = None
    grounding_supports: list[_Support] | None = None


_decode_cited = msgspec.json.Decoder(CitationMetadata | None).decode
_decode_grounded = msgspec.json.Decoder(GroundingMetadata | None).decode


class GeminiCitations:
    """The citations of one candidate; they may come in pieces, and twice."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._cited = CitationMetadata()
        self._grounded = GroundingMetadata()

    def say(self, text: str) -> None:
        """Take the next piece of the text, which the citations count in."""
        self._text.append(text)

    def add(self, cited: bytes, grounded: bytes) -> None:
        """Take what a piece of the candidate cites.

        Args:
            cited: ``citationMetadata``, or null.
            grounded: ``groundingMetadata``, or null.
        """
        try:
            self._cited = _decode_cited(cited) or self._cited
            self._grounded = _decode_grounded(grounded) or self._grounded
        except msgspec.DecodeError:
            return  # of a kind that is newer than this code

    def end(self) -> tuple[Citation, ...]:
        """Return all of them."""
        data = "".join(self._text).encode("utf-8", "surrogatepass")
        found = [*self._cited_ones(data), *self._grounded_ones(data)]
        return tuple(dict.fromkeys(found))

    def _cited_ones(self, data: bytes) -> Iterator[Citation]:
        said = self._cited
        for each in (*(said.citation_sources or ()), *(said.citations or ())):
            if each.uri:
                start, end = _stretch(data, each.start_index, each.end_index)
                yield Citation(each.uri, each.title, start, end)

    def _grounded_ones(self, data: bytes) -> Iterator[Citation]:
        pages = [chunk.page for chunk in self._grounded.grounding_chunks or ()]
        used: set[int] = set()
        for support in self._grounded.grounding_supports or ():
            segment = support.segment or _Segment(0, len(data))
            start, end = _stretch(data, segment.start_index, segment.end_index)
            for number in support.grounding_chunk_indices or ():
                if 0 <= number < len(pages) and pages[number].uri:
                    used.add(number)
                    yield Citation(pages[number].uri, pages[number].title, start, end)
        whole = _stretch(data, 0, len(data))
        for number, page in enumerate(pages):
            if page.uri and number not in used:
                yield Citation(page.uri, page.title, *whole)


def _stretch(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return where bytes begin and end, in characters."""
    start = min(max(start, 0), len(data))
    end = min(max(end, start), len(data))
    first, last = (len(data[:at].decode("utf-8", "ignore")) for at in (start, end))
    return first, last


def gemini_members(citations: Sequence[Citation], text: str) -> dict[str, object]:
    """Return the member of a Gemini candidate that cites; none without any.

    >>> gemini_members([Citation("https://a", "A", 1, 2)], "äöü")
    {'citationMetadata': {'citationSources': [{'startIndex': 2, 'endIndex': 4, 'uri': 'https://a'}]}}
    """
    sources = []
    for citation in citations:
        start = len(text[: citation.start].encode("utf-8", "surrogatepass"))
        end = len(text[: citation.end].encode("utf-8", "surrogatepass"))
        source: dict[str, object] = {"startIndex": start, "endIndex": end}
        sources.append({**source, "uri": citation.url})
    return {"citationMetadata": {"citationSources": sources}} if sources else {}
