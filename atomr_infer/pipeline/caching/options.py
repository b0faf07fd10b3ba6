"""Options of a cache.

Pure.
"""

from __future__ import annotations

import attrs

from atomr_infer.model.validation import at_least, non_empty, positive
from atomr_infer.pipeline.asking.options import one_of


@attrs.frozen(kw_only=True)
class CacheOptions:
    """A cache before another deployment.

    Attributes:
        model: the public name of who is asked.
        ttl_s: how long an answer is given again.
        max_bytes: how much memory the answers may take, about.
        requests: which are answered from it.  ``deterministic``: those with
            ``temperature`` 0 or a ``seed``, and texts to embed.  ``all``: every one,
            which then has the answer of the first.
        shared_by: who may have each other's answers: those with the same virtual
            ``key``, the same ``team``, or ``all``.
    """

    model: str = attrs.field(validator=non_empty)
    ttl_s: float = attrs.field(default=3600.0, validator=positive)
    max_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=at_least(1))
    requests: str = attrs.field(
        default="deterministic", validator=one_of("deterministic", "all")
    )
    shared_by: str = attrs.field(default="key", validator=one_of("key", "team", "all"))

    def asks(self) -> tuple[str, ...]:
        """The model whose answers it keeps."""
        return (self.model,)
