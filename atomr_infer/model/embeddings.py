"""Texts to vectors, independent of any dialect.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from atomr_infer.model.asker import Asker
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import RawJson
from atomr_infer.model.usage import Usage

Vector = tuple[float, ...]
"""One embedding."""


@attrs.frozen(kw_only=True)
class EmbedRequest:
    """Texts to embed, or to judge.

    Attributes:
        request_id: unique per request; appears in every log line about it.
        model: what the runtime is asked for.
        inputs: texts, or token ids, each of which becomes one vector.
        dimensions: length of the vectors; None: the model's own.
        task: what the vectors are for, in Gemini's words
            (``RETRIEVAL_QUERY``, ...); None: not said.
        title: the document's title, for Gemini's retrieval tasks.
        query: what each text is judged by (``Feature.RERANK``): its vector is then
            one number from 0 to 1, higher for a better answer to it; None: the
            texts are embedded.
        classifies: True when each text's vector shall be the probabilities of the
            model's labels (``Feature.CLASSIFY``).
        user: whom the client serves, for the provider's abuse checks.
        dialect: whose words ``extra`` is.
        extra: further members of the request as raw JSON by member name.
        priority: who goes first when there is a queue; higher first.
        timeout_s: the client's own bound on the whole request.
        asker: whose virtual key it showed; None: none.
    """

    request_id: str
    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    task: str | None = None
    title: str | None = None
    query: str | None = None
    classifies: bool = False
    user: str | None = None
    dialect: Dialect = Dialect.OPENAI_CHAT
    extra: Mapping[str, RawJson] = attrs.field(factory=dict, hash=False)
    priority: int = 0
    timeout_s: float | None = None
    asker: Asker | None = None


@attrs.frozen(kw_only=True)
class Embeddings:
    """The vectors of one request, in the order of its inputs.

    Attributes:
        vectors: one for each input, all of the same length.
        usage: tokens that were read.
        model: the model that served, when the upstream says it.
        labels: what the numbers of a vector are the probabilities of, where texts
            were classified.
    """

    vectors: tuple[Vector, ...] = attrs.field(repr=False)
    usage: Usage
    model: str | None = None
    labels: tuple[str, ...] = ()
