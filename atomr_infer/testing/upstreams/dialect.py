"""The seam between the machinery and a provider's dialect.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from atomr_infer.testing.upstream_script import Meaning, Refused
    from atomr_infer.testing.upstreams.answer import Answer
    from atomr_infer.testing.upstreams.call import Call, Request
    from atomr_infer.testing.upstreams.steps import Headers


@attrs.frozen
class Frame:
    """A piece of a streamed body: one event, as a rule.

    Attributes:
        data: its bytes.
        position: which piece of the answer it carries, counted from 0 over
            reasoning, text and calls; None: none.
        closing: True from the first frame on that says how the answer ended.
    """

    data: bytes
    position: int | None = None
    closing: bool = False


@attrs.frozen
class Reply:
    """An answer that no script decides: a list of models.

    Attributes:
        members: the JSON value.
    """

    members: object


class Dialect(Protocol):
    """A provider's way to speak.

    Attributes:
        name: as on the command line.
        refusals: what the provider answers in each case.
    """

    @property
    def name(self) -> str:
        """As on the command line."""

    @property
    def refusals(self) -> Mapping[Meaning, Refused]:
        """What the provider answers in each case."""

    def base_url(self, origin: str) -> str:
        """Return what a client of ``http://HOST:PORT`` is given as its base URL."""

    def read(
        self, request: Request, api_keys: Collection[str]
    ) -> Call | Refused | Reply:
        """Return what a request asks, or how the provider refuses it.

        Args:
            request: as it arrived.
            api_keys: keys that are taken; empty: any, or none.
        """

    def whole(self, call: Call, answer: Answer) -> object:
        """Return the JSON value of an answer that is not streamed."""

    def frames(self, call: Call, answer: Answer, *, done: bool) -> Iterator[Frame]:
        """Yield a streamed answer; ``done`` False leaves out its end."""

    def blocked(self, call: Call) -> Answer | Refused:
        """Return what comes of a prompt that the provider's filter stops."""

    def error(self, refused: Refused) -> tuple[object, Headers]:
        """Return the JSON value and the headers of an HTTP error."""

    def stream_error(self, call: Call, refused: Refused, *, first: bool) -> bytes:
        """Return the event of an error inside a stream.

        Args:
            call: what is answered.
            refused: the error.
            first: whether nothing was streamed before it.
        """

    def malformed(self, call: Call) -> bytes:
        """Return an event whose data is the front part of a JSON value."""

    def keepalive(self, call: Call) -> bytes:
        """Return what the provider sends to keep a silent stream open."""

    def headers(self, call: Call) -> Headers:
        """Return headers of each answer that is not an error."""

    def media_type(self, call: Call) -> str:
        """Return the content type of a streamed answer."""
