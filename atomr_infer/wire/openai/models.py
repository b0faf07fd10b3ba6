"""Write ``/v1/models`` answers.

Pure.

Source: OpenAI API reference, "List models".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


def model_list(models: Iterable[tuple[str, str]], created_s: int) -> bytes:
    """Return the list object.

    Args:
        models: public name and owner of each.
        created_s: Unix time in seconds.
    """
    members = [_members(name, owner, created_s) for name, owner in models]
    return msgspec.json.encode({"object": "list", "data": members})


def model_object(name: str, deployment: str, created_s: int) -> bytes:
    """Return one model."""
    return msgspec.json.encode(_members(name, deployment, created_s))


def _members(name: str, deployment: str, created_s: int) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": created_s,
        "owned_by": deployment,
    }
