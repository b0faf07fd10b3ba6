"""Where the replicas of a deployment may run: a value of a `Deployment`.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import attrs

from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    at_most,
    identifier,
    positive,
)


class Check(Enum):
    """What is looked at before a node says that a deployment serves there."""

    MODELS = "models"
    CONNECT = "connect"
    NONE = "none"


class Role(Enum):
    """What a node is there for."""

    CONTROL = "control"
    GPU = "gpu"
    EGRESS = "egress"
    EDGE = "edge"


def _as_roles(roles: Iterable[Role]) -> frozenset[Role]:
    return frozenset(roles)


def _as_labels(
    labels: Mapping[str, str | Iterable[str]],
) -> Mapping[str, tuple[str, ...]]:
    return {
        name: (wanted,) if isinstance(wanted, str) else tuple(wanted)
        for name, wanted in labels.items()
    }


def _are_labels(_: object, field: attrs.Attribute[Any], labels: object) -> None:
    assert isinstance(labels, Mapping), "converted"
    for name, wanted in labels.items():
        if not name:
            raise InvalidValueError(field.name, name, "is empty; give it a name")
        if not wanted or not all(isinstance(t, str) and t for t in wanted):
            problem = "says nothing; name what the label may be"
            raise InvalidValueError(field.name, {name: list(wanted)}, problem)


@attrs.frozen(kw_only=True)
class Placement:
    """Which nodes of a cluster may run replicas, and how many each.

    Where a node has no others, only ``gpus``, ``gpu_memory_gib`` and ``check`` are
    looked at: what asks for more GPUs than are free is refused.

    Attributes:
        roles: what a node must be, all of them; none: ``egress`` for a remote
            provider, ``gpu`` where ``gpus`` are asked for.
        labels: what a node's labels must say: ``{ region = "eu" }``, or one of
            several, ``{ region = ["eu", "us"] }``.
        gpus: GPUs that each replica takes, all of one node.
        gpu_memory_gib: memory that a replica takes of each of them; left out:
            all of it, so that nobody else gets that GPU.
        colocate_with: another deployment; only nodes that run it are taken.
        check: what a node looks at before it says that it serves a provider's
            deployment.  ``models``: whether the provider takes the key, by a request
            for its list of models, which costs nothing; with a key that is refused
            the deployment has failed until another one is there.  ``connect``: only
            whether a connection can be made.  Where nobody answers, the deployment
            serves all the same, the reason is shown, and it is tried again.
            ``none``: nothing.
        everywhere: whether each node that fits runs ``serving.replicas`` copies;
            false: so many run in all.  Left out: true for a remote provider.
    """

    roles: frozenset[Role] = attrs.field(
        default=frozenset(),
        converter=_as_roles,
        validator=attrs.validators.deep_iterable(attrs.validators.instance_of(Role)),
    )
    labels: Mapping[str, tuple[str, ...]] = attrs.field(
        factory=dict, converter=_as_labels, validator=_are_labels, hash=False
    )
    gpus: int = attrs.field(default=0, validator=[at_least(0), at_most(64)])
    gpu_memory_gib: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(positive)
    )
    colocate_with: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(identifier)
    )
    check: Check = attrs.field(
        default=Check.MODELS, validator=attrs.validators.instance_of(Check)
    )
    everywhere: bool | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.instance_of(bool)),
    )

    def __attrs_post_init__(self) -> None:
        if self.gpu_memory_gib is not None and not self.gpus:
            problem = "needs gpus; say how many a replica takes"
            raise InvalidValueError("gpu_memory_gib", self.gpu_memory_gib, problem)
