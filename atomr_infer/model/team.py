"""Teams: what several virtual keys share.

Pure.
"""

from __future__ import annotations

import attrs

from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.virtual_key import is_weight, short_name


@attrs.frozen(kw_only=True)
class Team:
    """A table ``[[team]]``; a virtual key may name it.

    Attributes:
        name: how keys name it.
        weight: its share of a queue beside other teams, and beside keys that have
            none.
        rate_limits: how fast its keys may ask, all of them together, on all nodes
            together; left out: without limit.
    """

    name: str = attrs.field(validator=short_name)
    weight: float = attrs.field(default=1.0, validator=is_weight)
    rate_limits: RateLimits | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.instance_of(RateLimits)),
    )
