"""What a gateway is opened with, and can be told anew while it serves."""

from __future__ import annotations

import ssl

import attrs

from atomr_infer.gateway.admin.everywhere import Everywhere
from atomr_infer.gateway.cors import Cors
from atomr_infer.gateway.door import Door
from atomr_infer.gateway.http1.connection import Http1Settings
from atomr_infer.gateway.reading import GatewayLimits


@attrs.frozen(kw_only=True)
class Setup:
    """All but the address and the file of the stored responses.

    Attributes:
        limits: what it accepts, and how long it is silent.
        door: who is let in.
        cors: which pages may read its answers.
        settings: how long a connection is waited for.
        tls: what connections begin with; None: no TLS.
        admin: the operators' routes; None: there are none.
    """

    limits: GatewayLimits
    door: Door
    cors: Cors
    settings: Http1Settings
    tls: ssl.SSLContext | None
    admin: Everywhere | None
