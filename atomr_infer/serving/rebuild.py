"""What is asked of the deployment manager when a deployment becomes another one."""

from __future__ import annotations

import attrs

from atomr.otp import Request
from atomr.refs import Pid
from atomr_infer.model.deployment import Deployment
from atomr_infer.serving.blueprint import Blueprint
from atomr_infer.serving.engine_context import EngineContext, EngineSource


@attrs.frozen(eq=False)
class Rebuild:
    """Engines that are to be made anew before a deployment becomes another.

    Attributes:
        blueprint: what the deployment is made from until then.
        source: how an engine of the other one is opened.
        tree: the deployment's tree.
        expected: as it was asked with.
        contexts: those that are open, by the replica's number, and are to be run on.
    """

    blueprint: Blueprint
    source: EngineSource
    tree: Pid
    expected: frozenset[str]
    contexts: dict[int, EngineContext] = attrs.field(factory=dict)


@attrs.frozen
class Replace(Request[Exception | Rebuild | None]):
    """Take another deployment for the one of its name.

    Answered with None when it is taken, and with what is to be opened first where
    its engines are others.

    Attributes:
        deployment: the other one.
        expected: names of those that come or change together with it.
    """

    deployment: Deployment
    expected: frozenset[str] = frozenset()


@attrs.frozen(eq=False)
class Commit(Request[Exception | None]):
    """The engines of a rebuild are open: let them take the traffic."""

    rebuild: Rebuild
