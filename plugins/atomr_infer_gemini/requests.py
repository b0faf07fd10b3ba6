"""Which request a generation becomes, and what reads its answer.

A client of the same dialect has its own bytes sent and gets the upstream's; any
other request is written in this dialect, and its answer read from it.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING

from atomr_infer.model.dialect import Dialect
from atomr_infer.remote.provider import ProviderRequest, key_header
from atomr_infer.wire.gemini.upstream import encode_request
from atomr_infer.wire.gemini.upstream_raw import (
    RawAnswer,
    absent_members,
    with_members,
)
from atomr_infer.wire.gemini.upstream_stream import GeminiAnswer
from atomr_infer_gemini import paths
from atomr_infer_gemini.models import model_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.parts import RawJson
    from atomr_infer.model.secret import Secret
    from atomr_infer.remote.http.headers import Headers
    from atomr_infer.wire.gemini.signature_memory import SignatureMemory
    from atomr_infer_gemini.config import GeminiOptions


def make_request(
    batch: ExecuteBatch, options: GeminiOptions, *, memory: SignatureMemory
) -> ProviderRequest[TokenChunk | RawChunk]:
    """Return the request for a generation.

    Args:
        batch: the generation.
        options: the deployment's.
        memory: keeps the signatures that clients cannot carry.

    Raises:
        InvalidRequestError: it cannot be written; ``param`` names the member.
        ModelNotFoundError: its model's name can be none.
    """
    method = paths.STREAM if batch.stream else paths.GENERATE
    path = paths.path(batch.model, method, options)
    source = batch.source
    if source is not None and source.dialect is Dialect.GEMINI:
        return ProviderRequest(
            path=path,
            body=_with_defaults(source.body, options.defaults),
            reader=partial(_raw_answer, batch),
        )
    encoded = encode_request(
        batch,
        rules=model_of(batch.model).rules,
        defaults=options.defaults,
        memory=memory,
    )
    return ProviderRequest(
        path=path,
        body=encoded.body,
        reader=partial(_answer, batch, memory),
        warnings=encoded.warnings,
    )


def show_key(secret: Secret, *, is_vertex: bool) -> Headers:
    """Return the header that shows a key, or Vertex's access token.

    Raises:
        UpstreamAuthError: it holds what no header can carry.
    """
    if is_vertex:
        return key_header("authorization", f"Bearer {secret.reveal()}")
    return key_header("x-goog-api-key", secret.reveal())


def _with_defaults(body: bytes, defaults: Mapping[str, RawJson]) -> bytes:
    """Return the client's bytes, with the deployment's members where absent."""
    missing = absent_members(body, defaults)
    return with_members(body, missing) if missing else body


def _answer(
    batch: ExecuteBatch, memory: SignatureMemory, secret: Secret | None
) -> GeminiAnswer:
    return GeminiAnswer(batch, new_id=_new_call_id, secret=secret, memory=memory)


def _raw_answer(batch: ExecuteBatch, secret: Secret | None) -> RawAnswer:
    return RawAnswer(batch, secret=secret)


def _new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"
