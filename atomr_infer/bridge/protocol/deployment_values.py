"""A deployment as it crosses the bridge, and the way there and back.

See :mod:`atomr_infer.bridge.protocol.values`.  The engine's side gets the whole value,
what concerns routing too: a runtime may look at any of it.

Pure.
"""

from __future__ import annotations

from typing import Any, Literal

from atomr_infer.bridge.protocol.values import Wire, same_fields
from atomr_infer.model.deployment import (
    Deployment,
    Jitter,
    RetryPolicy,
    Serving,
    Timeouts,
)
from atomr_infer.model.failover import (
    BreakerPolicy,
    Fallback,
    FallbackReason,
    HedgePolicy,
    OnCapacity,
    OnCut,
    Swap,
)
from atomr_infer.model.routing import Routing  # noqa: TC001 - msgspec reads it
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    PluginSecret,
    Secret,
    SecretSource,
)


class SecretSourceWire(Wire, frozen=True):
    """Where a secret is found, or (``literal``) the secret itself."""

    kind: Literal["env", "file", "literal"]
    value: str


class ServingWire(Wire, frozen=True):
    """:class:`Serving`."""

    replicas: int
    max_concurrency: int | None
    max_queue: int
    queue_timeout_s: float
    priority_aging_s: float
    routing: Routing
    local_margin: float
    weight: float
    on_capacity_exhausted: OnCapacity
    swap: Swap
    idle_stop_s: float | None
    probe_s: float | None


class TimeoutsWire(Wire, frozen=True):
    """:class:`Timeouts`."""

    load_s: float
    silent_s: float
    stuck_s: float | None
    connect_s: float
    first_token_s: float
    idle_s: float
    total_s: float


class RetryWire(Wire, frozen=True):
    """:class:`RetryPolicy`."""

    max_attempts: int
    backoff_s: float
    max_backoff_s: float
    jitter: Jitter
    idempotent: bool


class FallbackWire(Wire, frozen=True):
    """:class:`Fallback`; the reasons are sorted, so that equal is equal bytes."""

    to: str
    on: tuple[FallbackReason, ...]
    model: str | None


class BreakerWire(Wire, frozen=True):
    """:class:`BreakerPolicy`."""

    max_failures: int
    failure_share: float
    window_s: float
    open_s: float
    max_open_s: float
    half_open_max_probes: int


class HedgeWire(Wire, frozen=True):
    """:class:`HedgePolicy`."""

    after_s: float | None
    max_fraction: float


class DeploymentWire(Wire, frozen=True):
    """:class:`Deployment`."""

    name: str
    runtime: str
    model: str | None
    interpreter: str | None
    serves: tuple[str, ...]
    credential: SecretSourceWire | None
    # msgspec cannot follow the recursive OptionValue; the plugin checks options.
    options: dict[str, Any]
    serving: ServingWire
    timeouts: TimeoutsWire
    retry: RetryWire
    fallbacks: tuple[FallbackWire, ...]
    on_cut: OnCut
    breaker: BreakerWire
    hedge: HedgeWire


def deployment_to_wire(deployment: Deployment) -> DeploymentWire:
    """Return the wire form; a literal secret goes along in the clear."""
    source = deployment.credential
    return DeploymentWire(
        name=deployment.name,
        runtime=deployment.runtime,
        model=deployment.model,
        interpreter=deployment.interpreter,
        serves=deployment.serves,
        credential=None if source is None else _source_to_wire(source),
        options=dict(deployment.options),
        serving=same_fields(deployment.serving, ServingWire),
        timeouts=same_fields(deployment.timeouts, TimeoutsWire),
        retry=same_fields(deployment.retry, RetryWire),
        fallbacks=tuple(_fallback_to_wire(f) for f in deployment.fallbacks),
        on_cut=deployment.on_cut,
        breaker=same_fields(deployment.breaker, BreakerWire),
        hedge=same_fields(deployment.hedge, HedgeWire),
    )


def deployment_from_wire(wire: DeploymentWire) -> Deployment:
    """Return the deployment; it is validated again on the way."""
    source = wire.credential
    return Deployment(
        name=wire.name,
        runtime=wire.runtime,
        model=wire.model,
        interpreter=wire.interpreter,
        serves=wire.serves,
        credential=None if source is None else _source_from_wire(source),
        options=wire.options,
        serving=same_fields(wire.serving, Serving),
        timeouts=same_fields(wire.timeouts, Timeouts),
        retry=same_fields(wire.retry, RetryPolicy),
        fallbacks=tuple(
            Fallback(to=f.to, on=f.on, model=f.model) for f in wire.fallbacks
        ),
        on_cut=wire.on_cut,
        breaker=same_fields(wire.breaker, BreakerPolicy),
        hedge=same_fields(wire.hedge, HedgePolicy),
    )


def _source_to_wire(source: SecretSource) -> SecretSourceWire:
    match source:
        case EnvSecret(variable):
            return SecretSourceWire("env", variable)
        case FileSecret(path):
            return SecretSourceWire("file", path)
        case Secret():
            return SecretSourceWire("literal", source.reveal())
        case HeaderSecret() | PluginSecret():
            # The deployment manager refuses these for a child process.
            raise AssertionError(f"a child process cannot be given {source!r}")


def _source_from_wire(wire: SecretSourceWire) -> SecretSource:
    match wire.kind:
        case "env":
            return EnvSecret(wire.value)
        case "file":
            return FileSecret(wire.value)
        case "literal":
            return Secret(wire.value)


def _fallback_to_wire(fallback: Fallback) -> FallbackWire:
    reasons = sorted(fallback.on, key=lambda reason: reason.value)
    return FallbackWire(to=fallback.to, on=tuple(reasons), model=fallback.model)
