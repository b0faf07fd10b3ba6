"""What is published, on its way to another node.

Pure.
"""

from __future__ import annotations

import msgspec


class Published(msgspec.Struct, frozen=True, array_like=True):
    """A message for the subscribers of a topic.

    Attributes:
        topic: which.
        body: the message, encoded.
    """

    topic: str
    body: msgspec.Raw
