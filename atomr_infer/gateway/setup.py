"""What a gateway is opened with, and can be told anew while it serves."""

from __future__ import annotations

import ssl

import attrs

from atomr_infer.gateway.access.cors import Cors
from atomr_infer.gateway.access.door import Door
from atomr_infer.gateway.admin.everywhere import Everywhere
from atomr_infer.gateway.exchanges.reading import GatewayLimits
from atomr_infer.gateway.http1.connection import Http1Settings


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
