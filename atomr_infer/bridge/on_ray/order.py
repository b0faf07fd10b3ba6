"""What a relay is told of its deployment, in an environment variable.

A command line could be read by everybody on this machine, and the engine's variables
are in it.  It holds no credential: those go with the first frame, which the relay
passes on unread.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.model.child_environment import shown
from atomr_infer.model.ray import RayHost

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment


ORDER = "ATOMR_INFER_RAY_ORDER"
"""The variable that holds it; a relay takes it out of its environment."""


@attrs.frozen(kw_only=True)
class Order:
    """One engine's start.

    Attributes:
        name: the deployment's.
        runtime: what the deployment calls its plugin.
        plugin_ref: the plugin object as ``module:attribute``.
        interpreter: the engine's Python on Ray's node; None: that of Ray's own.
        environment: the engine's environment variables, beside those of the actor.
        ray: what is to be set aside.
    """

    name: str
    runtime: str
    plugin_ref: str
    interpreter: str | None
    environment: dict[str, str] = attrs.field(repr=shown)
    ray: RayHost


def order_of(plugin_ref: str, deployment: Deployment) -> Order | None:
    """Return the order of a deployment that runs on Ray; None: it does not."""
    if deployment.ray is None:
        return None
    return Order(
        name=deployment.name,
        runtime=deployment.runtime,
        plugin_ref=plugin_ref,
        interpreter=deployment.interpreter,
        environment=dict(deployment.environment),
        ray=deployment.ray,
    )


def written(order: Order) -> str:
    """Return an order as a text."""
    return msgspec.json.encode(attrs.asdict(order)).decode()


def read(text: str) -> Order:
    """Return the order that :func:`written` wrote."""
    told = msgspec.json.decode(text)
    return Order(**{**told, "ray": RayHost(**told["ray"])})
