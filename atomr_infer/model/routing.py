"""How requests are spread over the replicas of a deployment.

Pure.
"""

from __future__ import annotations

from enum import Enum


class Routing(Enum):
    """Who of several replicas takes a request.

    ``least_tokens``: the one with the fewest tokens under way.
    ``least_requests``: the one with the fewest requests under way.
    ``two_choices``: the better of two that are drawn.
    ``fastest``: the one whose first words came soonest of late, by its work.
    ``weighted``: the one with the fewest tokens for each of its places.
    ``session``: the one that has the conversation's other requests.
    ``prefix``: the one that has read the longest beginning of the prompt.
    """

    LEAST_TOKENS = "least_tokens"
    LEAST_REQUESTS = "least_requests"
    TWO_CHOICES = "two_choices"
    FASTEST = "fastest"
    WEIGHTED = "weighted"
    SESSION = "session"
    PREFIX = "prefix"
