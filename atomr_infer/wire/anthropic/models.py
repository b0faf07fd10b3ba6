"""Write ``/v1/models`` answers as Anthropic's clients read them.

Pure.

Source: Anthropic API reference, "List Models".
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


def model_list(names: Iterable[str], created_s: int) -> bytes:
    """Return the list object, which is always one page.

    Args:
        names: the public name of each model.
        created_s: Unix time in seconds.
    """
    models = [_members(name, created_s) for name in names]
    answer = {
        "data": models,
        "has_more": False,
        "first_id": models[0]["id"] if models else None,
        "last_id": models[-1]["id"] if models else None,
    }
    return msgspec.json.encode(answer)


def model_object(name: str, created_s: int) -> bytes:
    """Return one model."""
    return msgspec.json.encode(_members(name, created_s))


def _members(name: str, created_s: int) -> dict[str, object]:
    created = datetime.fromtimestamp(created_s, UTC)
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
    }
