"""What goes to the Messages API for a generation: path, headers, body, reader.

A client that speaks the dialect itself is passed on: its bytes with the model's
name replaced, its version and its beta features, and the answer's bytes back.
Anything else is written anew from the canonical form, and so is a conversation
that a Claude model would refuse because another model had a part in it.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.dialect import Dialect
from atomr_infer.remote.provider import ProviderRequest
from atomr_infer.wire.anthropic.upstream import encode_count, encode_request
from atomr_infer.wire.anthropic.upstream_pass import MessagePass
from atomr_infer.wire.anthropic.upstream_stream import MessageAnswer
from atomr_infer.wire.anthropic.upstream_turns import check_prefill, fit_as_they_are
from atomr_infer.wire.anthropic.versions import BETA_HEADER, HEADER, OLD
from atomr_infer_anthropic.models import fitted_traits

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.wire.anthropic.traits import ModelTraits
    from atomr_infer_anthropic.config import AnthropicOptions

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
MODELS = "/v1/models?limit=1"


def make_request(
    batch: ExecuteBatch, options: AnthropicOptions
) -> ProviderRequest[TokenChunk | RawChunk]:
    """Return the request for a generation.

    Raises:
        InvalidRequestError: it cannot be written for this API.
        UnsupportedFeatureError: the model lacks what it takes.
    """
    traits = fitted_traits(batch.model, options)
    passed = _passed_body(batch, traits)
    if passed is not None:
        # Refused here rather than there, because another model may take it.
        check_prefill(batch, traits)
        return ProviderRequest(
            path=MESSAGES,
            body=passed,
            headers=_headers(batch, options, batch.client_headers.get(HEADER, OLD)),
            reader=lambda secret: MessagePass(batch, secret=secret),
        )
    encoded = encode_request(batch, traits)
    return ProviderRequest(
        path=MESSAGES,
        body=encoded.body,
        headers=_headers(batch, options, options.api_version or encoded.version),
        reader=lambda secret: MessageAnswer(
            batch, json_tool=encoded.json_tool, secret=secret
        ),
        warnings=encoded.warnings,
    )


def passed_request(
    batch: ExecuteBatch, options: AnthropicOptions
) -> ProviderRequest[TokenChunk | RawChunk] | None:
    """Return the request that passes the client's bytes on; None: it cannot be.

    Args:
        batch: without its conversation, of which is known that any model takes it.
        options: the deployment's.
    """
    source = batch.source
    if source is None or source.dialect is not Dialect.ANTHROPIC:
        return None
    body = source.renamed(batch.model)
    if body is None:
        return None
    return ProviderRequest(
        path=MESSAGES,
        body=body,
        headers=_headers(batch, options, batch.client_headers.get(HEADER, OLD)),
        reader=lambda secret: MessagePass(batch, secret=secret),
    )


def make_count(
    batch: ExecuteBatch, options: AnthropicOptions
) -> tuple[bytes, list[tuple[str, str]]]:
    """Return the body and headers of a request that counts the prompt's tokens.

    Raises:
        InvalidRequestError: as :func:`make_request`.
    """
    traits = fitted_traits(batch.model, options)
    passed = _passed_body(batch, traits)
    if passed is not None and batch.sampling.max_tokens is None:
        version = batch.client_headers.get(HEADER, OLD)
        return passed, _headers(batch, options, version)
    encoded = encode_count(batch, traits)
    version = options.api_version or encoded.version
    return encoded.body, _headers(batch, options, version)


def headers_of_list(options: AnthropicOptions) -> list[tuple[str, str]]:
    """Return the headers of a request for the list of models."""
    headers = [(HEADER, options.api_version or OLD)]
    return headers if options.beta is None else [*headers, (BETA_HEADER, options.beta)]


def _passed_body(batch: ExecuteBatch, traits: ModelTraits) -> bytes | None:
    source = batch.source
    if source is None or source.dialect is not Dialect.ANTHROPIC:
        return None
    # Of other models behind this API nothing is known: they may want back what
    # they did not sign.
    if "claude" in batch.model and not fit_as_they_are(batch, traits):
        return None
    return source.renamed(batch.model)


def _headers(
    batch: ExecuteBatch, options: AnthropicOptions, version: str
) -> list[tuple[str, str]]:
    headers = [(HEADER, version)]
    wanted = [options.beta]
    if batch.dialect is Dialect.ANTHROPIC:
        wanted.append(batch.client_headers.get(BETA_HEADER))
    beta = ",".join(each for each in wanted if each)
    return [*headers, (BETA_HEADER, beta)] if beta else headers
