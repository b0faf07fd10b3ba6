"""Where a model's methods are, as paths under the endpoint.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from atomr_infer.errors import ModelNotFoundError
from atomr_infer.wire.gemini.embeddings import EmbedMethod

if TYPE_CHECKING:
    from atomr_infer_gemini.config import GeminiOptions

GENERATE = "generateContent"
STREAM = "streamGenerateContent"
COUNT = "countTokens"

_PUBLISHER = "publishers/google/models"

# Names that say themselves where the model is: a tuned one, another maker's.
_STUDIO_COLLECTIONS = frozenset({"models", "tunedModels"})
_VERTEX_COLLECTIONS = frozenset({"publishers", "endpoints"})


def resource(model: str, options: GeminiOptions) -> str:
    """Return a model's resource name, under the root of its API.

    Raises:
        ModelNotFoundError: the name cannot be one; it may come from a client.

    >>> from atomr_infer_gemini.config import GeminiOptions
    >>> resource("gemini-3-pro", GeminiOptions())
    'models/gemini-3-pro'
    """
    segments = model.split("/")
    known = _VERTEX_COLLECTIONS if options.is_vertex else _STUDIO_COLLECTIONS
    if len(segments) == 1:
        segments = [_PUBLISHER if options.is_vertex else "models", model]
    elif options.is_vertex and segments[0] == "models":
        segments = [_PUBLISHER, *segments[1:]]
    elif segments[0] not in known:
        raise _unknown(model)
    if any(segment in {"", ".", ".."} for segment in segments):
        raise _unknown(model)
    # A colon would end the name where the method begins.
    return "/".join(quote(segment, safe="/") for segment in segments)


def path(model: str, method: str, options: GeminiOptions) -> str:
    """Return the path of a method, with its query.

    Raises:
        ModelNotFoundError: as :func:`resource`.
    """
    # Without alt=sse a stream would be one JSON array.
    query = "?alt=sse" if method == STREAM else ""
    return f"{options.root}/{resource(model, options)}:{method}{query}"


def models(options: GeminiOptions) -> str | None:
    """Return where the list of models is; None: Vertex AI has none in a project.

    >>> from atomr_infer_gemini.config import GeminiOptions
    >>> models(GeminiOptions())
    '/v1beta/models?pageSize=1'
    """
    return None if options.is_vertex else f"{options.root}/models?pageSize=1"


def embed_method(model: str, options: GeminiOptions) -> EmbedMethod:
    """Return how texts are embedded by a model.

    >>> from atomr_infer_gemini.config import GeminiOptions
    >>> embed_method("text-embedding-005", GeminiOptions(project="p")).value
    'predict'
    """
    if not options.is_vertex:
        return EmbedMethod.STUDIO
    name = model.rpartition("/")[2]
    return EmbedMethod.VERTEX if "gemini" in name else EmbedMethod.PREDICT


def _unknown(model: str) -> ModelNotFoundError:
    return ModelNotFoundError(f"{model!r} is not the name of a Gemini model")
