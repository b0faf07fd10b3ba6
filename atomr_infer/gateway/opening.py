"""Opening a gateway: from its settings to one that serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.gateway.admin.beside import ADMIN_PREFIX, open_admin
from atomr_infer.gateway.cors import Cors
from atomr_infer.gateway.door import Door
from atomr_infer.gateway.gateway import open_gateway
from atomr_infer.gateway.http1.connection import Http1Settings
from atomr_infer.gateway.keys import GatewayKeys
from atomr_infer.gateway.listener import Listener
from atomr_infer.gateway.reading import GatewayLimits
from atomr_infer.store.responses import ResponseStore

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence
    from pathlib import Path

    from atomr_infer.config.gateway import GatewayConfig
    from atomr_infer.gateway.gateway import Gateway
    from atomr_infer.model.secret import Secret
    from atomr_infer.serving.shared import Serving


async def open_on(  # noqa: PLR0913 - most by keyword
    serving: Serving,
    config: GatewayConfig,
    *,
    keys: tuple[Secret, ...],
    admin_key: Secret | None,
    response_store: Path | None,
    tls: ssl.SSLContext | None,
    sockets: Sequence[socket.socket],
) -> Gateway:
    """Serve a tree's deployments; see :meth:`atomr_infer.cluster.Cluster.serve`.

    Args:
        serving: the tree.
        config: how it listens; of its secrets and files only what follows is used.
        keys: those that open it.
        admin_key: what opens the operators' routes.
        response_store: the file that keeps responses.
        tls: what connections begin with.
        sockets: that listen already; empty: ``config.bind`` is bound.

    Raises:
        ConfigError: the address cannot be bound, or the file cannot be used.
    """
    admin = None
    if admin_key is not None:
        admin = open_admin(serving, admin_key, clients=keys)
    settings = Http1Settings(
        write_timeout_s=config.write_timeout_s,
        hypercorn_prefix="" if admin is None else ADMIN_PREFIX,
    )
    if sockets:
        listener = Listener(sockets, settings, tls)
    else:
        listener = await Listener.bind(config.host, config.port, settings, tls=tls)
    limits = GatewayLimits(
        max_body_bytes=config.max_body_bytes,
        keepalive_s=config.keepalive_s,
        shared_references=config.shared_references,
    )
    ring = serving.key_ring if config.virtual_keys else None
    return await open_gateway(
        serving,
        listener,
        limits,
        door=Door(GatewayKeys(keys), ring),
        store=ResponseStore(response_store),
        cors=Cors(config.cors_origins),
        admin=admin,
    )
