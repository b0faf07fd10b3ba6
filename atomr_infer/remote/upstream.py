"""What a provider's runner stands on: a session, what asks with it, and the key check.

A plugin says where its provider is and how it speaks (:class:`Upstream`); the rest is
the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.secret import Secret
from atomr_infer.remote.http.headers import Headers
from atomr_infer.remote.key_check import KeyCheck
from atomr_infer.remote.provider import Fault, ProviderClient, open_provider_client
from atomr_infer.remote.session import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.remote.http.dialing.tcp import Connect
    from atomr_infer.runtimes.credentials import Credentials


@attrs.frozen(kw_only=True)
class Upstream:
    """Where a deployment's provider is, and how it speaks.

    Attributes:
        endpoint: base URL, with its version.
        headers: of every request; they win over the usual ones.
        http2: one of ``HTTP2``.
        show_key: the headers that carry a key.
        fault: what an answer other than 200 means.
        models_path: of the list of models, with its query; None: there is none.
        models_headers: for the list alone.
        is_own: whether it is the provider itself, and no proxy or other server.
    """

    endpoint: str
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    http2: str
    show_key: Callable[[Secret], Headers]
    fault: Fault
    models_path: str | None
    models_headers: Headers = attrs.field(default=(), repr=False)
    is_own: bool


@asynccontextmanager
async def open_upstream(
    upstream: Upstream,
    deployment: Deployment,
    credentials: Credentials,
    *,
    connect: Connect | None = None,
) -> AsyncIterator[tuple[ProviderClient, KeyCheck]]:
    """Open a session with a provider; no connection is made before it is used.

    Args:
        upstream: who is asked.
        deployment: whose timeouts and retries apply.
        credentials: hands out the key of each request.
        connect: opens streams; None: TCP and TLS.

    Returns:
        What makes a runner's requests, and what asks whether the key is taken.

    Raises:
        ConfigError: the client cannot be made so.
    """
    timeouts = deployment.timeouts
    open_client = partial(
        open_provider_client,
        upstream.endpoint,
        headers=upstream.headers,
        timeouts=timeouts,
        http2=upstream.http2,
        connect=connect,
    )
    async with open_session(open_client, credentials) as session:
        client = ProviderClient(
            session,
            timeouts=timeouts,
            replay=deployment.retry.idempotent,
            show_key=upstream.show_key,
            fault=upstream.fault,
        )
        check = KeyCheck(
            session,
            path=upstream.models_path,
            headers=upstream.models_headers,
            timeouts=timeouts,
            show_key=upstream.show_key,
            fault=upstream.fault,
            is_own=upstream.is_own,
        )
        yield client, check
