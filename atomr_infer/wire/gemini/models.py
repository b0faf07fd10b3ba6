"""Write the lists of models as Google's clients read them.

Pure.

Source: Gemini API reference, "Models".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

_METHODS = ("generateContent", "countTokens", "embedContent", "batchEmbedContents")


def model_list(names: Iterable[str]) -> bytes:
    """Return the list object, which is always one page.

    Args:
        names: the public name of each model.
    """
    return msgspec.json.encode({"models": [_members(name) for name in names]})


def model_object(name: str) -> bytes:
    """Return one model."""
    return msgspec.json.encode(_members(name))


def _members(name: str) -> dict[str, object]:
    return {
        "name": f"models/{name}",
        "baseModelId": name,
        "version": "",
        "displayName": name,
        "supportedGenerationMethods": _METHODS,
    }
