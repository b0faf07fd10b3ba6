"""What goes to an OpenAI-like server for a generation: path, body, reader.

A client that speaks the same format is passed on: its bytes with the model's
name replaced, and the answer's bytes back.  Anything else is written anew from
the canonical form, as a chat, or as bare text where that was asked for and the
model takes it.

Pure.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from atomr_infer.errors import ModelNotFoundError, UnsupportedFeatureError
from atomr_infer.model.dialect import Dialect
from atomr_infer.remote.provider import ProviderRequest
from atomr_infer.wire.openai.fitting import fitted
from atomr_infer.wire.openai.responses_pass import ResponsePass
from atomr_infer.wire.openai.upstream_body import passed_body
from atomr_infer.wire.openai.upstream_pass import ChatPass
from atomr_infer.wire.openai.upstream_request import (
    encode_completion_request,
    encode_request,
)
from atomr_infer.wire.openai.upstream_stream import ChatAnswer
from atomr_infer_openai.models import (
    max_tokens_member,
    takes_bare_text,
    traits_of,
)

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.secret import Secret
    from atomr_infer_openai.config import OpenAIOptions

EMBEDDINGS = "/embeddings"

_CHAT = "/chat/completions"
_COMPLETIONS = "/completions"
_RESPONSES = "/responses"

_STEPS = (".", "..")
"""What no quoting keeps from being a step to another path."""

_PATHS = {
    Dialect.OPENAI_CHAT: _CHAT,
    Dialect.OPENAI_COMPLETIONS: _COMPLETIONS,
    Dialect.OPENAI_RESPONSES: _RESPONSES,
}


def make_request(
    batch: ExecuteBatch, options: OpenAIOptions
) -> ProviderRequest[TokenChunk | RawChunk]:
    """Return the request for a generation.

    Raises:
        UnsupportedFeatureError: it would have to be passed on, and cannot be.
    """
    passed = passed_request(batch, options)
    if passed is not None:
        return passed
    if batch.only_passed is not None:
        raise UnsupportedFeatureError(
            f"{batch.only_passed} are only passed on as they are, and this request "
            "cannot be: it must name its model once, without escapes, and have no "
            "stream_options that lack include_usage",
            param="prompt",
        )
    fit = fitted(batch, traits_of(batch.model, options))
    if batch.prompt is not None and takes_bare_text(batch.model, options):
        path, body = _COMPLETIONS, encode_completion_request(fit.batch)
    else:
        member = max_tokens_member(batch.model, options)
        path, body = _CHAT, encode_request(fit.batch, max_tokens_member=member)
    return ProviderRequest(
        path=path_of(path, batch.model, options),
        body=body,
        reader=lambda secret: ChatAnswer(batch, secret=secret),
        warnings=fit.warnings,
    )


def passed_request(
    batch: ExecuteBatch, options: OpenAIOptions
) -> ProviderRequest[TokenChunk | RawChunk] | None:
    """Return the request that passes the client's bytes on; None: it cannot be."""
    source = batch.source
    if source is None or source.dialect not in options.passes(batch.model):
        return None
    body = passed_body(batch)
    if body is None:
        return None
    path = path_of(_PATHS[source.dialect], batch.model, options)
    if source.dialect is Dialect.OPENAI_RESPONSES:
        return ProviderRequest(
            path=path, body=body.data, reader=partial(_response_reader, batch)
        )
    return ProviderRequest(
        path=path,
        body=body.data,
        reader=lambda secret: ChatPass(
            batch, show_usage=body.show_usage, secret=secret
        ),
    )


def _response_reader(batch: ExecuteBatch, secret: Secret | None) -> ResponsePass:
    return ResponsePass(batch, secret=secret)


def models_path(options: OpenAIOptions) -> str:
    """Return where the list of models is, behind the endpoint."""
    if options.azure_api_version is None:
        return "/models"
    version = quote(options.azure_api_version, safe="")
    return f"/openai/models?api-version={version}"


def path_of(path: str, model: str, options: OpenAIOptions) -> str:
    """Return a path behind the endpoint; Azure's older API names the model in it.

    Raises:
        ModelNotFoundError: the model's name would be a step in the path.
    """
    if options.azure_api_version is None:
        return path
    if model in _STEPS:
        raise ModelNotFoundError(f"the model {model!r} does not exist", param="model")
    version = quote(options.azure_api_version, safe="")
    return f"/openai/deployments/{quote(model, safe='')}{path}?api-version={version}"
