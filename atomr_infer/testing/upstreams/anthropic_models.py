"""What Claude models accept, told by the generation in their names.

Pure.
"""

from __future__ import annotations

import base64
import hashlib
import re

Generation = tuple[int, int]

SYSTEM_TURNS: Generation = (4, 8)
"""From here on a system message may stand inside a conversation."""

NO_MANUAL_THINKING: Generation = (4, 7)
"""From here on thinking with a budget is refused."""

NO_PREFILL: Generation = (4, 6)
"""From here on a conversation must not end with the assistant."""

ONE_SAMPLER: Generation = (4, 5)
"""From here on ``temperature`` and ``top_p`` exclude each other."""

_NEW = re.compile(r"claude-[a-z]+-(\d+)(?:-(\d{1,2}))?(?!\d)")
_OLD = re.compile(r"claude-(\d+)(?:-(\d{1,2}))?-[a-z]+")


def generation(model: str) -> Generation:
    """Return a model's generation; (0, 0): it has none in its name.

    >>> generation("claude-opus-4-6"), generation("claude-3-5-sonnet-20240620")
    ((4, 6), (3, 5))
    >>> generation("claude-sonnet-4-5-20250929"), generation("claude-opus-5")
    ((4, 5), (5, 0))
    """
    named = _NEW.search(model) or _OLD.search(model)
    return (0, 0) if named is None else (int(named[1]), int(named[2] or 0))


NAME_PATTERN = "^[a-zA-Z0-9_-]{1,128}$"
"""What the name of a tool, and the id of a call, must look like."""


def is_name(text: str) -> bool:
    """Whether a tool may have this name.

    >>> is_name("get_weather"), is_name("get weather")
    (True, False)
    """
    return re.fullmatch(NAME_PATTERN[1:-1], text) is not None


def signature_of(thinking: str) -> str:
    """Return the signature of a thinking block with this text.

    It is made of the text, so that a block that was changed on its way through
    somebody's hands is noticed when it comes back.
    """
    digest = hashlib.sha256(b"anthropic:" + thinking.encode()).digest()
    return base64.b64encode(digest).decode()
