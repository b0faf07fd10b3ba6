"""Opening a gateway: from its settings to one that serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.gateway.access.cors import Cors
from atomr_infer.gateway.access.door import Door
from atomr_infer.gateway.access.keys import GatewayKeys
from atomr_infer.gateway.admin.address import OPERATORS
from atomr_infer.gateway.admin.beside import ADMIN_PREFIX, open_admin
from atomr_infer.gateway.exchanges.reading import GatewayLimits
from atomr_infer.gateway.gateway import open_gateway
from atomr_infer.gateway.http1.connection import Http1Settings
from atomr_infer.gateway.listening.listener import Listener
from atomr_infer.gateway.setup import Setup
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
    setup = prepare(serving, config, keys=keys, admin_key=admin_key, tls=tls)
    if sockets:
        listener = Listener(sockets, setup.settings, tls)
    else:
        host, port = config.host, config.port
        listener = await Listener.bind(host, port, setup.settings, tls=tls)
    operators = None
    if config.admin_bind is not None and setup.admin is not None:
        operators = await Listener.bind(*config.admin_address, OPERATORS, tls=tls)
    store = ResponseStore(response_store)
    return await open_gateway(
        serving, listener, setup, store=store, operators=operators
    )


def prepare(
    serving: Serving,
    config: GatewayConfig,
    *,
    keys: tuple[Secret, ...],
    admin_key: Secret | None,
    tls: ssl.SSLContext | None,
) -> Setup:
    """Return what a gateway is opened with, or told anew.

    Args:
        serving: the tree.
        config: how it is to listen.
        keys: those that open it.
        admin_key: what opens the operators' routes.
        tls: what connections begin with.

    Raises:
        ConfigError: the admin key is a client's too, or the operators' routes need
            what is not installed.
    """
    admin = None
    if admin_key is not None:
        admin = open_admin(serving, admin_key, clients=keys)
    ring = serving.key_ring if config.virtual_keys else None
    return Setup(
        limits=GatewayLimits(
            max_body_bytes=config.max_body_bytes,
            keepalive_s=config.keepalive_s,
            shared_references=config.shared_references,
        ),
        door=Door(GatewayKeys(keys), ring),
        cors=Cors(config.cors_origins),
        settings=Http1Settings(
            write_timeout_s=config.write_timeout_s,
            hypercorn_prefix="" if admin is None else ADMIN_PREFIX,
        ),
        tls=tls,
        admin=admin,
    )
