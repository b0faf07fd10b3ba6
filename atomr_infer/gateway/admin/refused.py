"""What the operators' routes raise and answer with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from quart import Response

if TYPE_CHECKING:
    from atomr_infer.gateway.admin.shown import Shown


class RefusedError(Exception):
    """What an operator asked for cannot be done.

    Attributes:
        status: the answer's.
        code: for scripts.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        super().__init__(message)


def json_answer(members: Shown, status: int = 200) -> Response:
    """Return an answer of JSON."""
    return Response(msgspec.json.encode(members), status, mimetype="application/json")
