"""The client's own bytes as the body of a request to an OpenAI-like upstream.

Nothing is written anew: the model's name is spliced in, and where a stream's
client did not ask for usage, that wish is put in front of its members, because
the request is billed by it.  Only a response's input is, where another provider's
model had a part in the conversation.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.openai.responses_items import readable_there

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch

_WISH = b'"stream_options":{"include_usage":true},'


class _Options(msgspec.Struct):
    include_usage: bool | None = None


class _Asked(msgspec.Struct):
    stream_options: _Options | msgspec.UnsetType | None = msgspec.UNSET


_decode = msgspec.json.Decoder(_Asked).decode


@attrs.frozen
class PassedBody:
    """A body to send.

    Attributes:
        data: the bytes.
        show_usage: True when the client asked for usage itself.
    """

    data: bytes = attrs.field(repr=False)
    show_usage: bool = True


def passed_body(batch: ExecuteBatch) -> PassedBody | None:
    """Return the client's bytes for the upstream; None: they cannot be passed on.

    They cannot where ``model`` stands twice, and where ``stream_options`` are
    there without the wish for usage; the canonical form must do then.
    """
    source = batch.source
    renamed = None if source is None else source.renamed(batch.model)
    if source is None or renamed is None:
        return None
    if source.dialect is Dialect.OPENAI_RESPONSES:
        return PassedBody(readable_there(renamed))
    return _with_usage(renamed) if batch.stream else PassedBody(renamed)


def _with_usage(body: bytes) -> PassedBody | None:
    options = _decode(body).stream_options
    if isinstance(options, _Options):
        return PassedBody(body) if options.include_usage else None
    if options is None:
        return None
    start = body.index(b"{") + 1
    data = b"".join((body[:start], _WISH, body[start:]))
    return PassedBody(data, show_usage=False)
