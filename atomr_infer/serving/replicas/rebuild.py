"""What is asked of the deployment manager when a deployment becomes another one."""

from __future__ import annotations

import attrs

from atomr.otp import Request
from atomr.refs import Pid
from atomr_infer.model.deployment import Deployment
from atomr_infer.serving.replicas.blueprint import Blueprint
from atomr_infer.serving.replicas.engine_context import EngineContext, EngineSource


@attrs.frozen(eq=False)
class Rebuild:
    """What is to be done before a deployment becomes another.

    Attributes:
        blueprint: what the deployment is made from until then.
        source: how an engine of the other one is opened.
        tree: the deployment's tree.
        opens: whether its engines are others; if not, nothing is to be done.
        contexts: those that are open, by the replica's number, and are to be run on.
    """

    blueprint: Blueprint
    source: EngineSource
    tree: Pid
    opens: bool
    contexts: dict[int, EngineContext] = attrs.field(factory=dict)

    @property
    def wanted(self) -> Deployment:
        """What is to be served."""
        return self.source.deployment


@attrs.frozen
class Replace(Request[Exception | tuple[Rebuild, ...]]):
    """Say what must be done before deployments become others; changes nothing.

    Attributes:
        deployments: the other ones, of names that are served.
        expected: names of those that come or change together with them.
    """

    deployments: tuple[Deployment, ...]
    expected: frozenset[str]


@attrs.frozen(eq=False)
class Commit(Request[Exception | None]):
    """What rebuilds open is open: let all of it take the traffic, in one step.

    Attributes:
        rebuilds: what was done.
        expected: as they were asked for with.
    """

    rebuilds: tuple[Rebuild, ...]
    expected: frozenset[str]
